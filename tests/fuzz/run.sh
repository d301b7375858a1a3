#!/usr/bin/env bash
# Fuzzes what reads foreign bytes: run.sh [TARGET|all] [SECONDS]
#
# Runs one target, or all, for so many seconds each (30), and ends non-zero when one of them found an input that
# panics, hangs or takes too much memory; the input is then kept and named. `api` is no target of libFuzzer: it sends
# arbitrary valid messages to every call of a service that runs, about 2 to each call a second, and tells its seed.
#
# What a run learns stays in $FUZZ_TARGET_DIR/corpus; the committed corpus is only read.
#
#   FUZZ_TARGET_DIR  where everything is built and kept (target/fuzz)
#   FUZZ_SANITIZER   none (default), or address. The fleet has no unsafe code of its own; what is looked for are
#                    panics, hangs and broken assertions, which need no sanitizer.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
fuzz=$root/tests/fuzz
home=${FUZZ_TARGET_DIR:-$root/target/fuzz}
wanted=${1:-all}
seconds=${2:-30}

status=0
if [ "$wanted" = all ] || [ "$wanted" = api ]; then
	seed=$((RANDOM * 32768 + RANDOM))
	log=$(mktemp)
	if SQLX_OFFLINE=true MAILFLEET_API_SEED=$seed MAILFLEET_API_CASES=$((seconds * 2)) cargo test --quiet \
		--manifest-path "$root/Cargo.toml" --workspace --test api arbitrary >"$log" 2>&1; then
		printf '%-24s %12s messages a call  ok (seed %s)\n' api $((seconds * 2)) "$seed"
	else
		printf '%-24s FAILED (seed %s)\n' api "$seed"
		tail -n 30 "$log"
		status=1
	fi
	rm -f "$log"
	[ "$wanted" = all ] || exit $status
fi

# libFuzzer's instrumentation is not stable yet; everything else is.
export RUSTC_BOOTSTRAP=1

command -v cargo-fuzz >/dev/null || cargo install cargo-fuzz --locked

# The versions that the fleet is built with; what only the targets need is added by cargo.
cp "$root/Cargo.lock" "$fuzz/Cargo.lock"

targets=$(sed -n 's/^name = "\(.*\)"$/\1/p' "$fuzz/Cargo.toml" | tail -n +2)
if [ "$wanted" != all ]; then
	grep -qx -- "$wanted" <<<"$targets" || {
		echo "there is no target $wanted; there are:" $targets >&2
		exit 64
	}
	targets=$wanted
fi

only=()
[ "$wanted" = all ] || only=("$wanted")
cargo fuzz build --fuzz-dir "$fuzz" --target-dir "$home" --sanitizer "${FUZZ_SANITIZER:-none}" "${only[@]}"
binaries=$home/$(rustc -vV | sed -n 's/^host: //p')/release

for target in $targets; do
	mkdir -p "$home/corpus/$target" "$home/artifacts/$target"
	log=$home/$target.log
	dictionary=()
	[ ! -f "$fuzz/dictionaries/$target" ] || dictionary=(-dict="$fuzz/dictionaries/$target")
	if "$binaries/$target" "$home/corpus/$target" "$fuzz/corpus/$target" -max_total_time="$seconds" -timeout=10 \
		-rss_limit_mb=2048 -max_len=4096 -print_final_stats=1 -artifact_prefix="$home/artifacts/$target/" \
		"${dictionary[@]}" >"$log" 2>&1; then
		outcome=ok
	else
		outcome=FAILED
		status=1
	fi
	executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	printf '%-24s %12s executions  %s\n' "$target" "${executions:-no}" "$outcome"
	if [ "$outcome" = FAILED ]; then
		tail -n 30 "$log"
	fi
done
exit $status
