#!/bin/sh
# Installs Postfix, OpenDKIM and openssl with the system's package manager when they are missing, for the benchmark
# to measure beside mailfleet. No system service is started, and no configuration of the machine is changed: the
# benchmark runs private instances. Where they cannot be had, it says so and ends well: the peers are then skipped.
# With arguments, those programs alone.
set -eu

has() {
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$1" >/dev/null 2>&1
}

missing=
for program in ${*:-postfix opendkim openssl}; do
    has "$program" || missing="${missing:+$missing }$program"
done
[ -n "$missing" ] || exit 0

skip() {
    echo "the peers are skipped: $1" >&2
    exit 0
}

[ "$(id -u)" = 0 ] || skip "$missing missing, and only root can install and run Postfix"
if has apt-get; then
    # Debian starts what it installs unless this says otherwise, and asks what kind of mail server is wanted.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        trap 'rm -f "$policy"' EXIT
        trap 'exit 1' HUP INT TERM
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    fi
    export DEBIAN_FRONTEND=noninteractive
    echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
    set -- apt-get install -y --no-install-recommends
    apt-get update >/dev/null 2>&1 || true
elif has dnf; then
    set -- dnf install -y
elif has apk; then
    set -- apk add
else
    skip "$missing missing, and no apt-get, dnf or apk here"
fi
echo "installing: $missing"
for program in $missing; do
    log=$(mktemp)
    "$@" "$program" >"$log" 2>&1 || {
        tail -n 5 "$log" >&2
        rm -f "$log"
        skip "$program cannot be installed"
    }
    rm -f "$log"
done
