#!/usr/bin/env bash
# Checks the API's definition: its style, its comments, and that no caller of today breaks.
#
#   buf.sh [REF]    compares with the API at REF; default: origin/main, or else the commit before this one
#
# Takes `buf` from the PATH, or installs this version under target/tools with npm or pip. Where it cannot be had it says
# so and succeeds: an API is checked where it is changed, not where it is built.
set -euo pipefail

version=1.75.0
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
tools="$PWD/target/tools"

buf="$(command -v buf || true)"
if [ -z "$buf" ]; then
    buf="$tools/node_modules/.bin/buf"
    if [ ! -x "$buf" ] && command -v npm >/dev/null; then
        mkdir -p "$tools"
        npm install --prefix "$tools" --no-save --no-audit --no-fund --ignore-scripts --silent \
            "@bufbuild/buf@$version" >/dev/null 2>&1 || true
    fi
    if [ ! -x "$buf" ]; then
        buf="$tools/python/bin/buf"
        if [ ! -x "$buf" ] && command -v python3 >/dev/null; then
            { python3 -m venv "$tools/python" && "$tools/python/bin/pip" install --quiet "buf-bin==$version"; } \
                >/dev/null 2>&1 || true
        fi
    fi
fi
if ! "$buf" --version >/dev/null 2>&1; then
    echo "skipped: buf is not installed, and neither npm nor pip brought it"
    exit 0
fi

"$buf" lint proto
"$buf" format --diff --exit-code proto
against="${1:-}"
for ref in origin/main HEAD~1; do
    if [ -z "$against" ] && git rev-parse --verify --quiet "$ref^{commit}" >/dev/null &&
        [ "$(git rev-parse "$ref")" != "$(git rev-parse HEAD)" ]; then
        against="$ref"
    fi
done
if [ -n "$against" ]; then
    earlier="$(mktemp -d)"
    trap 'rm -rf "$earlier"' EXIT
    git archive "$against" proto | tar -x -C "$earlier"
    "$buf" breaking proto --against "$earlier/proto"
fi
echo "the API is in order${against:+, and breaks no caller of $against}"
