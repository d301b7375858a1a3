# Two commands set up all they need on a machine with the Rust toolchain, a C compiler and a package manager:
#   make demo    a whole fleet delivers a campaign, on this machine alone
#   make test    every test
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# The statements of the store are checked against .sqlx/; no build needs a database.
export SQLX_OFFLINE ?= true

# What a local run is built with: optimised, but without the long link of a release. `make bench` uses the release.
PROFILE ?= demo
MAILFLEET := target/$(PROFILE)/mailfleet
BENCH_ARGS ?=

.PHONY: help
help: ## Shows this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Installs postgres and nats-server when they are missing
	@deploy/local/install-dependencies.sh

.PHONY: build
build:
	@cargo build --profile $(PROFILE) -p mailfleet-cli

.PHONY: demo
demo: deps build ## Starts a whole fleet and sends a campaign to 2,000 recipients of its own mail sink
	@$(MAILFLEET) demo

.PHONY: test
test: deps ## Runs every test, on a private Postgres and NATS
	@status=0; rm -f target/tmp/*.skipped; \
	if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace || status=$$?; \
	else \
		cargo test --workspace --no-fail-fast || status=$$?; \
	fi; \
	cargo run --quiet -p mailfleet-testkit --example stop_servers || true; \
	for skipped in target/tmp/*.skipped; do if [ -f "$$skipped" ]; then printf 'skipped: '; cat "$$skipped"; fi; done; \
	exit $$status

.PHONY: up
up: deps build ## Starts the local fleet in the background
	@$(MAILFLEET) up --detach

.PHONY: down
down: build ## Stops the local fleet; its data stay
	@$(MAILFLEET) down

.PHONY: clean-local
clean-local: ## Stops the local fleet and removes its data
	@if [ -x $(MAILFLEET) ]; then $(MAILFLEET) down --quiet; fi
	@# Where the server's user cannot reach this folder, its data lie elsewhere behind a link.
	@if [ -L .mailfleet/postgres/data ]; then rm -rf "$$(readlink -f .mailfleet/postgres/data)"; fi
	@rm -rf .mailfleet
	@echo "removed .mailfleet"

.PHONY: fmt
fmt: ## Formats the code
	@cargo fmt --all

.PHONY: lint
lint: ## Checks format and lints
	@cargo fmt --all -- --check
	@cargo clippy --workspace --all-targets -- -D warnings

.PHONY: api-check
api-check: ## Checks the API's definition, and that no caller breaks (REF=)
	@deploy/local/buf.sh $(REF)

.PHONY: reference
reference: ## Writes the API's reference anew, from its comments and bounds
	@cargo run --quiet -p mailfleet-tests --bin reference

.PHONY: check
check: ## Compiles everything without building it
	@cargo check --workspace --all-targets

.PHONY: sqlx-prepare
sqlx-prepare: deps ## Writes .sqlx/ anew, after a change to a statement or a migration
	@deploy/local/sqlx.sh prepare

.PHONY: sqlx-check
sqlx-check: deps ## Fails when .sqlx/ is not fresh
	@deploy/local/sqlx.sh check

# Each variable that is set becomes the option of its name; the programs' --help tells what they mean.
option = $(if $($(1)),--$(2) $($(1)))

.PHONY: bench
bench: deps ## Measures the fleet beside Postfix, release build (SCENARIO= N= …, see tests/bench/README.md)
	@tests/bench/peers/install.sh
	@cargo build --release --workspace --bin mailfleet --bin bench
	@target/release/bench $(call option,SCENARIO,scenario) $(call option,N,mails) \
		$(call option,SIZE,size) $(call option,CONNS,conns) $(call option,RTT,rtt) $(call option,DKIM,dkim) \
		$(call option,SHARE_4XX,share-4xx) $(call option,REPEAT,repeat) $(call option,D,depths) $(BENCH_ARGS)

.PHONY: bench-steps
bench-steps: deps ## Measures the hot steps one by one (criterion)
	@cargo bench -p mailfleet-tests

.PHONY: chaos
chaos: deps ## Breaks a fleet under load and checks the promises (SEED= MINUTES= FAULTS=)
	@cargo build --workspace --bin mailfleet --bin chaos
	@target/debug/chaos $(call option,SEED,seed) $(call option,MINUTES,minutes) \
		$(call option,FAULTS,faults)

.PHONY: failpoints
failpoints: deps ## Kills a service at every durable step, under each reply of the receiver
	@cargo build --workspace --bin mailfleet --bin failpoints
	@target/debug/failpoints

.PHONY: faults
faults: deps ## Runs the functional tests while calls of the store and the bus go wrong (RATE=0.01)
	@MAILFLEET_FAULTS=$(or $(RATE),0.01) cargo nextest run --workspace --test it -E 'package(mailfleet-tests)'

.PHONY: model
model: ## Checks the protocol's model, and that it fails without each of its rules
	@tests/model/check.sh

.PHONY: fuzz
fuzz: ## Feeds foreign bytes to what reads them, each target for EACH seconds (TARGET= EACH=)
	@tests/fuzz/run.sh $(or $(TARGET),all) $(or $(EACH),30)

.PHONY: ci
ci: ## What the integration server runs
	@.ci/run
