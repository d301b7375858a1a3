#!/bin/sh
# Starts Postfix, and OpenDKIM before it when mail is to be signed, as private instances on loopback.
#
#   start.sh DIR PORT SINK_PORT signed|plain CONCURRENCY
#
# DIR, empty, gets configuration, queue, log and key. Returns when Postfix takes mail; the numbers of the processes
# are then in DIR/queue/pid/master.pid and DIR/opendkim.pid. Needs root, as Postfix does.
set -eu

dir=$1 port=$2 sink_port=$3 kind=$4 concurrency=$5
here=$(cd "$(dirname "$0")" && pwd)

fill() {
    sed -e "s|@DIR@|$dir|g" -e "s|@PORT@|$port|g" -e "s|@SINK_PORT@|$sink_port|g" \
        -e "s|@CONCURRENCY@|$concurrency|g" "$@"
}

mkdir -p "$dir/etc" "$dir/queue" "$dir/data"
chmod 755 "$dir" "$dir/etc" "$dir/queue"
chown postfix "$dir/data"
# Dynamically loaded tables are told of by the package; a Postfix without them has no such file.
for file in dynamicmaps.cf postfix-files; do
    [ ! -f "/etc/postfix/$file" ] || cp "/etc/postfix/$file" "$dir/etc/"
done
fill "$here/main.cf" >"$dir/etc/main.cf"
fill "$here/master.cf" >"$dir/etc/master.cf"
if [ "$kind" = signed ]; then
    fill "$here/signed.cf" >>"$dir/etc/main.cf"
    fill "$here/opendkim.conf" >"$dir/opendkim.conf"
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$dir/dkim.pem" 2>/dev/null
    chmod 600 "$dir/dkim.pem"
    opendkim -x "$dir/opendkim.conf"
fi
postfix -c "$dir/etc" start >"$dir/start.log" 2>&1 || {
    cat "$dir/start.log" >&2
    exit 1
}
