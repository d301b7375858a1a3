#!/bin/sh
# Searches the protocol model completely within its bounds, then takes each protective rule out, one at a time: the
# model must fail then. Ends with one line that says it all, and non-zero when anything is not as it should be.
#
#   check.sh [--quick | --deep]
#
# --quick leaves out the searches with two faults; --deep adds the one with two faults and everything from outside,
# which takes some minutes more and 4 GB. Needs a C compiler, and spin, which it installs with the system's package
# manager when it is missing. Exit codes: 0 as it should be, 1 not, 69 no spin or no compiler.
set -eu

depth=normal
case "${1-}" in
    '') ;;
    --quick) depth=quick ;;
    --deep) depth=deep ;;
    *)
        echo "usage: $0 [--quick | --deep]" >&2
        exit 64
        ;;
esac

model=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

has() {
    command -v "$1" >/dev/null 2>&1
}

install_spin() {
    for manager in apt-get dnf apk brew none; do
        if has "$manager"; then
            break
        fi
    done
    case "$manager" in
        apt-get) install="apt-get install -y --no-install-recommends spin" ;;
        dnf) install="dnf install -y spin" ;;
        apk) install="apk add spin" ;;
        brew) install="brew install spin" ;;
        none)
            echo "missing: spin; no apt-get, dnf, apk or brew here: install it by hand (https://spinroot.com)" >&2
            return 1
            ;;
    esac
    # Homebrew refuses to run as root; the others need it.
    as_root=
    if [ "$manager" != brew ] && [ "$(id -u)" != 0 ]; then
        if has sudo && sudo -n true 2>/dev/null; then
            as_root='sudo -n'
        else
            echo "missing: spin; install with: sudo $install" >&2
            return 1
        fi
    fi
    echo "installing: spin"
    log=$(mktemp)
    if [ "$manager" = apt-get ]; then
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get update >"$log" 2>&1 || true
    fi
    # shellcheck disable=SC2086 # words, on purpose
    if ! $as_root env DEBIAN_FRONTEND=noninteractive $install >"$log" 2>&1; then
        cat "$log" >&2
    fi
    rm -f "$log"
}

has spin || install_spin || true
if ! has spin; then
    echo "spin is missing, and could not be installed" >&2
    exit 69
fi
for compiler in ${CC-cc gcc clang none}; do
    if has "$compiler"; then
        break
    fi
done
if ! has "$compiler"; then
    echo "there is no C compiler" >&2
    exit 69
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# search NAME "SPIN FLAGS" "COMPILER FLAGS" "PAN FLAGS": leaves what the search printed in $work/NAME/out. One that ran
# out of its time or its memory says so there, and counts as failed.
search() {
    mkdir "$work/$1"
    (
        cd "$work/$1"
        cp "$model/protocol.pml" "$model/transitions.pml" .
        # shellcheck disable=SC2086
        spin $2 -a protocol.pml >generated 2>&1 || { cat generated >&2; exit 1; }
        # Not optimised: for all but the largest searches the compiler would take longer than they do.
        # shellcheck disable=SC2086
        "$compiler" -w -DCOLLAPSE -DNOFAIR -DMEMLIM=8000 $3 -o pan pan.c
        # shellcheck disable=SC2086
        nice -n 10 ./pan -n -m100000 $4 >out 2>&1 || true
    ) || echo "the model cannot be searched" >"$work/$1/out"
}

found() {
    sed -n "s/$2/\\1/p" "$work/$1/out" | head -n 1
}
is_complete() {
    ! grep -qiE 'search depth too small|out of memory|memory limit|not completed|aborted|cannot be searched' "$work/$1/out"
}

failures=0
searches=0
ways=$work/ways
begun=$(date +%s)

# sound NAME TEXT "SPIN FLAGS" "COMPILER FLAGS" "PAN FLAGS": a search that must be complete and find nothing.
sound() {
    name=$1 text=$2
    shift 2
    from=$(date +%s)
    search "$name" "$@"
    searches=$((searches + 1))
    complete=no verdict=ok
    is_complete "$name" && complete=yes
    if [ "$(found "$name" '.*errors: \([0-9]*\).*')" != 0 ] || [ $complete = no ]; then
        verdict=FAILED
        failures=$((failures + 1))
    fi
    printf '%-60s %11s %6s  %-8s %5ss  %s\n' "$text" "$(found "$name" '^ *\([0-9.e+]*\) states, stored.*')" \
        "$(found "$name" '.*depth reached \([0-9]*\).*')" $complete $(($(date +%s) - from)) $verdict
    grep '^way ' "$work/$name/out" >>"$ways" || true
    if [ $verdict = FAILED ]; then
        grep -v '^way ' "$work/$name/out" | tail -n 20
        # The way to the fault, as far as a terminal holds it.
        (cd "$work/$name" && [ -e protocol.pml.trail ] && ./pan -r | tail -n 80) || true
    fi
    rm -rf "${work:?}/$name"
}

# broken RULE FAULTS ["MORE SPIN FLAGS"]: without this rule the promises do not hold, and the search must notice. Neither
# the table of transitions nor the rules of a history are looked at: they would often notice first.
broken() {
    rule=$1 budget=$2
    search "$rule" "-DFAULTS=$budget -DNO_TABLE -DNO_HISTORY -DWITHOUT_$rule ${3-}" "-O0 -DSAFETY" ""
    searches=$((searches + 1))
    what=$(found "$rule" '^pan:1: \(.*\) (at depth.*')
    steps=$(found "$rule" '^pan:1: .*(at depth \([0-9]*\)).*')
    if [ -n "$what" ]; then
        printf 'without %-22s fails after %3s steps: %s\n' "$rule" "$steps" "$what"
    else
        printf 'without %-22s SURVIVES\n' "$rule"
        failures=$((failures + 1))
        grep -v '^way ' "$work/$rule/out" | tail -n 20
    fi
    rm -rf "${work:?}/$rule"
}

ends="-O0 -DSAFETY"
cycles="-O0 -DNP"
printf '%-60s %11s %6s  %-8s %6s\n' "searched" states depth complete time
sound one "1 fault: assertions, and the end of every run" "-DFAULTS=1" "$ends" ""
sound one_cycle "1 fault: no run is endless" "-DFAULTS=1" "$cycles" "-l"
sound poison "1 fault, one loss is poison: assertions, ends" "-DFAULTS=1 -DPOISON=1" "$ends" ""
if [ $depth != quick ]; then
    sound two "2 faults, nothing from outside: assertions, ends" "-DFAULTS=2 -DNO_CALLER" "$ends" ""
    sound two_cycle "2 faults, nothing from outside: no run is endless" "-DFAULTS=2 -DNO_CALLER" "$cycles" "-l"
fi
if [ $depth = deep ]; then
    sound all "2 faults: assertions, ends" "-DFAULTS=2" "-O2 -DSAFETY" "-w27"
fi

# A way that no search takes is one that the code does not need, or that the model does not know.
if [ $depth != quick ]; then
    sed -n 's/^way not taken: //p' "$ways" | sort -u | while IFS= read -r way; do
        grep -qxF "way taken: $way" "$ways" || echo "no search takes the way: $way"
    done >"$work/idle"
    if [ -s "$work/idle" ]; then
        cat "$work/idle"
        failures=$((failures + 1))
    fi
fi

echo
rules=0
while read -r rule budget flags; do
    case "$rule" in '' | '#'*) continue ;; esac
    rules=$((rules + 1))
    broken "$rule" "$budget" "$flags" </dev/null
done <<'RULES'
CLAIM_CAS 1
CLAIM_LEASE 1
CLAIM_CANCEL 1
CLAIM_SUPPRESSION 1
CLAIM_KNOWN 1
SUPPRESSION_CLOSING 1
REFUSAL 1
UNDO 1
UNDO_LOOK 1
LOOK 1
NO_ANSWER 1
RECORD_CAS 1
RECORD_KNOWN 1
LATE 1
OWN_FACT 1 -UNO_HISTORY
RELEASE_NUMBER 1
ACCEPT_ONCE 1
PARK_CAS 2 -DNO_CALLER
REPAIR 1
REPAIR_CAS 2 -DNO_CALLER
DOUBT 1
DOUBT_KNOWN 1
RELEASE_KNOWN 1
REFUSE_KNOWN 1
EXPIRE_KNOWN 1
SUPPRESS_KNOWN 1
POISON_KNOWN 2 -DPOISON=1
LINE_FIRST 1
BOOT_ID 1
LOCK 1
FLUSH 2 -DNO_CALLER
RULES
taken=$(grep '^way taken' "$ways" | sort -u | wc -l)
echo
if [ "$failures" = 0 ]; then
    echo "model: ok, $searches searches, $((taken)) ways of the table taken, $rules rules all needed, $(($(date +%s) - begun)) s"
else
    echo "model: FAILED, $failures of $searches searches are not as they should be, $(($(date +%s) - begun)) s"
    exit 1
fi
