#!/bin/sh
# Installs what the local fleet runs on, postgres and nats-server, with the system's package manager.
# Says nothing and does nothing when both are there. Neither is started as a system service: the fleet
# runs private instances of its own.
#
#   install-dependencies.sh [--dry-run]
#
# --dry-run prints the commands instead of running them. Exit codes: 0 all there, 1 something to do by hand.
set -eu

dry_run=false
case "${1-}" in
    '') ;;
    --dry-run) dry_run=true ;;
    *)
        echo "usage: $0 [--dry-run]" >&2
        exit 64
        ;;
esac

# The places where the launchers look, in MAILFLEET_PROGRAM_DIRS when other ones are to be looked at.
postgres_dirs=${MAILFLEET_PROGRAM_DIRS-/usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql* /usr/local/pgsql*/bin /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin /home/linuxbrew/.linuxbrew/opt/postgresql*/bin}
nats_dirs=${MAILFLEET_PROGRAM_DIRS-/usr/sbin /usr/local/sbin /usr/local/bin /opt/homebrew/bin /home/linuxbrew/.linuxbrew/bin}

has() {
    command -v "$1" >/dev/null 2>&1
}

has_postgres() {
    if has postgres && has initdb; then
        return 0
    fi
    # shellcheck disable=SC2086 # the patterns are meant to be expanded
    for dir in $postgres_dirs; do
        if [ -x "$dir/postgres" ] && [ -x "$dir/initdb" ]; then
            return 0
        fi
    done
    return 1
}

has_nats() {
    if has nats-server; then
        return 0
    fi
    # shellcheck disable=SC2086
    for dir in $nats_dirs; do
        if [ -x "$dir/nats-server" ]; then
            return 0
        fi
    done
    return 1
}

missing=
has_postgres || missing="postgres"
has_nats || missing="${missing:+$missing }nats-server"
if [ -z "$missing" ]; then
    exit 0
fi

for manager in apt-get dnf apk brew none; do
    if has "$manager"; then
        break
    fi
done

# The packages of this system that hold what is missing.
packages=
for program in $missing; do
    case "$manager:$program" in
        apt-get:postgres) package=postgresql ;;
        dnf:postgres) package=postgresql-server ;;
        apk:postgres) package=postgresql ;;
        brew:postgres) package=postgresql@17 ;;
        *) package=$program ;;
    esac
    packages="${packages:+$packages }$package"
done

case "$manager" in
    apt-get) install="apt-get install -y --no-install-recommends" ;;
    dnf) install="dnf install -y" ;;
    apk) install="apk add" ;;
    brew) install="brew install" ;;
    none)
        echo "missing: $missing; no apt-get, dnf, apk or brew here: install by hand, or set DATABASE_URL and NATS_URL" >&2
        exit 1
        ;;
esac

# Homebrew refuses to run as root; the others need it.
as_root=
if [ "$manager" != brew ] && [ "$(id -u)" != 0 ]; then
    if has sudo && sudo -n true 2>/dev/null; then
        as_root='sudo -n'
    else
        echo "missing: $missing; install with: sudo $install $packages" >&2
        exit 1
    fi
fi

run() {
    if $dry_run; then
        echo "would run: $*"
    else
        # Package managers talk a lot; what they say matters when they fail.
        log=$(mktemp)
        if "$@" >"$log" 2>&1; then
            rm -f "$log"
        else
            cat "$log" >&2
            rm -f "$log"
            return 1
        fi
    fi
}

# Debian makes and starts a database cluster of its own as postgresql is installed, and starts nats-server,
# unless these two say otherwise. They are there for the installation only; ones that exist are left alone.
cluster_conf=/etc/postgresql-common/createcluster.d/mailfleet.conf
policy=/usr/sbin/policy-rc.d

before_apt() {
    made=
    if [ ! -e "$cluster_conf" ]; then
        made=$cluster_conf
        $as_root mkdir -p "${cluster_conf%/*}"
        echo 'create_main_cluster = false' | $as_root tee "$cluster_conf" >/dev/null
    fi
    if [ ! -e "$policy" ]; then
        made="$made $policy"
        printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
        $as_root chmod 755 "$policy"
    fi
    # shellcheck disable=SC2064 # what was made now
    trap "$as_root rm -f $made" EXIT
    trap 'exit 1' HUP INT TERM
}

echo "installing: $packages"
export DEBIAN_FRONTEND=noninteractive
if [ "$manager" = apt-get ]; then
    if $dry_run; then
        [ -e "$cluster_conf" ] || echo "would write, then remove: $cluster_conf (no cluster is made)"
        [ -e "$policy" ] || echo "would write, then remove: $policy (no service is started)"
    else
        before_apt
    fi
    # shellcheck disable=SC2086
    run $as_root apt-get update || echo "apt-get update failed; trying with the lists that are there" >&2
fi
# One by one: where one is unknown, the other is installed all the same.
failed=
for package in $packages; do
    # shellcheck disable=SC2086
    run $as_root $install "$package" || failed="${failed:+$failed }$package"
done

if $dry_run; then
    exit 0
fi
missing=
has_postgres || missing="postgres"
has_nats || missing="${missing:+$missing }nats-server"
if [ -z "$missing" ]; then
    exit 0
fi
if [ -n "$failed" ]; then
    echo "failed: ${as_root:+$as_root }$install $failed" >&2
fi
echo "still missing: $missing" >&2
case "$missing" in
    *nats-server*)
        cat >&2 <<'TEXT'
nats-server is not in every system's packages. Take one of:
  - Alpine: apk add --repository=https://dl-cdn.alpinelinux.org/alpine/edge/testing nats-server
  - the release for this machine from https://github.com/nats-io/nats-server/releases, into /usr/local/bin
  - a server that runs elsewhere: NATS_URL=nats://HOST:4222
TEXT
        ;;
esac
exit 1
