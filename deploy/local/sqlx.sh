#!/usr/bin/env bash
# Keeps .sqlx/, the answers of Postgres that the query macros are checked against when no database is at hand.
#
#   sqlx.sh prepare    writes .sqlx/ anew
#   sqlx.sh check      fails when .sqlx/ is not what the statements and migrations of today give
#
# Needs the Postgres server and nothing of ours built before: it starts a private instance on a socket of its own
# in a temporary directory, applies the migrations with psql, and lets the compiler ask it.
set -euo pipefail

mode="${1:-}"
case "$mode" in
prepare | check) ;;
*)
    echo "usage: $0 prepare|check" >&2
    exit 2
    ;;
esac
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"

# The server's own programs are not on the PATH on Debian; the newest version wins.
bin="$(dirname "$(command -v initdb || find /usr/lib/postgresql /usr/libexec/postgresql* /usr/pgsql-* /opt/homebrew/opt/postgresql* \
    -name initdb -perm -u+x 2>/dev/null | sort -V | tail -n 1)")"
psql="$(command -v psql || echo "$bin/psql")"
if [ ! -x "$bin/initdb" ] || [ ! -x "$psql" ]; then
    echo "postgres is not installed; run: make deps" >&2
    exit 69
fi

work="$(mktemp -d)"
# Postgres refuses to run as root.
as=()
if [ "$(id -u)" -eq 0 ]; then
    user=postgres
    id -u "$user" >/dev/null 2>&1 || user=nobody
    chown "$user" "$work"
    if command -v runuser >/dev/null; then
        as=(runuser -u "$user" --)
    else
        as=(su -s /bin/sh "$user" -c 'exec "$0" "$@"' --)
    fi
fi
chmod 0755 "$work"
stop() {
    (cd / && "${as[@]}" "$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1) || true
    rm -rf "$work"
}
trap stop EXIT

run() { (cd / && "${as[@]}" "$@"); }
run "$bin/initdb" -D "$work/data" -U mailfleet -A trust -E UTF8 --locale=C -N >/dev/null
run "$bin/pg_ctl" -D "$work/data" -l "$work/log" -w -t 60 \
    -o "-c listen_addresses='' -c unix_socket_directories='$work' -c fsync=off" start >/dev/null
"$psql" -q -h "$work" -U mailfleet -d postgres -c 'create database mailfleet' >/dev/null
for migration in "$root"/crates/store/migrations/*.sql; do
    "$psql" -q -h "$work" -U mailfleet -d mailfleet -v ON_ERROR_STOP=1 -f "$migration" >/dev/null
done

fresh="$work/fresh"
mkdir "$fresh"
# A flag that nobody looks at makes this a compilation of its own: it always runs, and what other builds have
# compiled stays as it is.
(
    cd "$root"
    SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$fresh" \
        DATABASE_URL="postgres://mailfleet@localhost/mailfleet?host=$work" \
        cargo rustc --quiet -p mailfleet-store --lib --profile check -- --cfg "sqlx_$(date +%s)_$$" -A unexpected_cfgs
)
if [ -z "$(ls -A "$fresh")" ]; then
    echo "the compiler wrote no statements" >&2
    exit 70
fi

if [ "$mode" = prepare ]; then
    rm -rf "$root/.sqlx"
    mkdir "$root/.sqlx"
    cp "$fresh"/*.json "$root/.sqlx/"
    echo ".sqlx holds $(find "$root/.sqlx" -name '*.json' | wc -l) statements"
elif diff -rq "$fresh" "$root/.sqlx"; then
    echo ".sqlx is fresh: $(find "$fresh" -name '*.json' | wc -l) statements"
else
    echo ".sqlx is stale; run: make sqlx-prepare, and commit what it changes" >&2
    exit 1
fi
