#!/bin/sh
# Stops what start.sh started in DIR:   stop.sh DIR
set -eu

postfix -c "$1/etc" stop >/dev/null 2>&1 || true
if [ -f "$1/opendkim.pid" ]; then
    kill "$(cat "$1/opendkim.pid")" 2>/dev/null || true
fi
