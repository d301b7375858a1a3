#!/bin/sh
# Says what the processes of a profile spend their time on, as a table in Markdown:
#
#   target/release/bench --without-peers --dkim on --mails 60000 --profile /tmp/fleet.perf
#   tests/bench/budget.sh /tmp/fleet.perf CPU_US_PER_MAIL
#
# Every sample counts for the first step of the table below that one of its frames belongs to, innermost frame first;
# CPU_US_PER_MAIL, as the same run printed it, is shared out by samples. Other processes of the machine are left out.
set -eu

profile=$1 total=$2
perf script -i "$profile" --no-inline -F comm,pid,ip,sym 2>/dev/null | awk -v processes="${profile%.*}.processes" -v total="$total" '
function step(frame) {
    if (frame ~ /rsa|RSA|bn_|BN_|bignum|mont|sha512|x25519|curve25519|ed25519/) return "sign: RSA and Ed25519"
    if (frame ~ /sha256|content::dkim/) return "sign: hash and header"
    if (frame ~ /content::mime|content::header|content::plain|quoted_printable|lettre/) return "render: MIME"
    if (frame ~ /minijinja|content::|press::/) return "render: template"
    if (frame ~ /rmp_serde|bus::chunk|serde_bytes/) return "chunks: encode and decode"
    if (frame ~ /async_nats|mailfleet_bus|bus::/) return "broker client"
    if (frame ~ /smtp::|sender::line|sender::attempt/) return "SMTP"
    if (frame ~ /sender::journal/) return "journal"
    if (frame ~ /sqlx|store::/) return "database client"
    if (frame ~ /tonic|hyper|h2::|prost|tower/) return "gRPC"
    if (frame ~ /ingest::|dispatcher::|sender::|renderer::|analytics::/) return "own logic"
    return ""
}
function part(frame) {
    if (frame ~ /ExecInsert|heap_insert|ExecModifyTable|heap_delete|heap_update|index_insert|_bt_doinsert|btinsert/) return "rows: insert, update, delete"
    if (frame ~ /XLog|issue_xlog|fdatasync/) return "write-ahead log"
    if (frame ~ /jsonb|json_/) return "json"
    if (frame ~ /ExecScan|IndexNext|index_getnext|heap_page_prune|heapam_|ExecHashJoin|ExecSort|ExecNestLoop|ExecAgg/) return "scans, joins, sorts"
    if (frame ~ /exec_bind|exec_parse|pg_plan|pg_analyze|BuildCachedPlan|ExecutorStart|ExecInitNode|ExecutorEnd/) return "bind, plan, start"
    if (frame ~ /CommitTransaction|AbortTransaction|StartTransaction/) return "begin and commit"
    if (frame ~ /pq_|secure_|socket|printtup|SocketBackend|ReadCommand/) return "wire"
    return ""
}
BEGIN {
    while ((getline line < processes) > 0) { split(line, field, "\t"); name[field[1]] = field[2] }
}
function flush_sample() {
    if (service != "") {
        if (found == "") found = service == "nats" ? "all" : service == "postgres" ? "other" : thread ~ /^bulk-press/ ? "other of rendering" : "runtime, kernel, memory"
        count[service "\t" found]++
        all++
    }
    service = ""
}
/^[^ \t]/ {
    flush_sample()
    thread = $1
    pid = $NF + 0
    service = (pid in name) ? name[pid] : (thread == "postgres" ? "postgres" : "")
    found = ""
    next
}
/^$/ { flush_sample(); next }
service != "" && found == "" { found = service == "postgres" ? part($0) : service == "nats" ? "" : step($0) }
END {
    flush_sample()
    print "| process | step | CPU µs/mail |"
    print "| --- | --- | ---: |"
    for (key in count) {
        split(key, field, "\t")
        printf "| %s | %s | %.1f |\n", field[1], field[2], count[key] * total / all | "sort -t\\| -k2,2 -k4,4rn"
    }
}'
