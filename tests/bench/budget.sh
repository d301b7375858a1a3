#!/bin/sh
# Says what the processes of a profile spend their time on, as a table in Markdown:
#
#   target/release/bench --without-peers --dkim on --mails 60000 --profile /tmp/fleet.perf
#   tests/bench/budget.sh /tmp/fleet.perf CPU_US_PER_MAIL
#
# Every sample counts for the first step of the table below that one of its frames belongs to, innermost frame first;
# CPU_US_PER_MAIL, as the same run printed it, is shared out by samples.
set -eu

profile=$1 total=$2
perf script -i "$profile" --no-inline -F pid,ip,sym 2>/dev/null | awk -v processes="${profile%.*}.processes" -v total="$total" '
function step(frame) {
    if (frame ~ /aws_lc.*(rsa|RSA|bn_|BN_|bignum|mont|sha512|x25519|curve25519|ed25519)|bn_mul|rsaz|RsaKeyPair/) return "sign: RSA and Ed25519"
    if (frame ~ /aws_lc.*sha256|sha256_block|content::dkim/) return "sign: hash and header"
    if (frame ~ /content::mime|content::header|quoted_printable|lettre/) return "render: MIME"
    if (frame ~ /minijinja|content::|press::/) return "render: template"
    if (frame ~ /rmp_serde|bus::chunk|serde_bytes/) return "chunks: encode and decode"
    if (frame ~ /async_nats|bus::/) return "broker client"
    if (frame ~ /smtp::|sender::line|sender::attempt/) return "SMTP"
    if (frame ~ /sender::journal/) return "journal"
    if (frame ~ /sqlx|store::/) return "database client"
    if (frame ~ /tonic|hyper|h2::|prost|tower/) return "gRPC"
    if (frame ~ /ingest::|dispatcher::|sender::|renderer::|analytics::/) return "own logic"
    return ""
}
BEGIN {
    while ((getline line < processes) > 0) { split(line, field, "\t"); name[field[1]] = field[2] }
}
function flush_sample() {
    if (pid == "") return
    service = (pid in name) ? name[pid] : "postgres"
    if (found == "") found = (service == "postgres" || service == "nats") ? "all" : "runtime, kernel, memory"
    count[service "\t" found]++
    all++
    pid = ""
}
/^ *[0-9]+ *$/ { flush_sample(); pid = $1 + 0; found = ""; next }
/^$/ { flush_sample(); next }
found == "" && pid != "" { found = step($0) }
END {
    flush_sample()
    print "| process | step | CPU µs/mail |"
    print "| --- | --- | ---: |"
    for (key in count) {
        split(key, part, "\t")
        printf "| %s | %s | %.1f |\n", part[1], part[2], count[key] * total / all | "sort"
    }
}'
