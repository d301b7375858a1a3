/* The ways of a message, from `domain::TRANSITIONS`. Generated; write it anew with
 * cargo run -p mailfleet-tests --bin transitions > tests/model/transitions.pml */

/* places; from the first ending on, the message is closed */
#define NOWHERE 0
#define WAITING 1
#define RELEASED 2
#define SENDING 3
#define IN_DOUBT 4
#define DELIVERED 5
#define BOUNCED 6
#define EXPIRED 7
#define CANCELLED 8
#define SUPPRESSED 9
#define FAILED 10
#define UNKNOWN 11
#define CLOSED(place) ((place) >= DELIVERED)

/* actors */
#define BY_INGEST 0
#define BY_DISPATCHER 1
#define BY_RENDERER 2
#define BY_SENDER 3
#define BY_SUPPRESSION 4

/* statements */
#define DO_ACCEPT 0
#define DO_RELEASE 1
#define DO_PARK 2
#define DO_REPAIR 3
#define DO_CLOSE 4
#define DO_CLAIM 5
#define DO_REFUSE 6
#define DO_EXPIRE 7
#define DO_RECORD 8
#define DO_DOUBT 9

/* facts, a set */
#define TELLS_ACCEPTED 1
#define TELLS_FINAL 2
#define TELLS_DEFERRED 4
#define TELLS_DOUBT 8
#define TELLS_LOST 16
#define TELLS_LATE 32

#define WAY(from, to, by, statement, facts) \
    (((((from) * 16 + (to)) * 8 + (by)) * 16 + (statement)) * 64 + (facts))

#define WAYS 47
#define WAY_TABLE \
    { WAY(NOWHERE, WAITING, BY_INGEST, DO_ACCEPT, TELLS_ACCEPTED), "nowhere to waiting by ingest: accept, writes accepted" }, \
    { WAY(NOWHERE, RELEASED, BY_INGEST, DO_ACCEPT, TELLS_ACCEPTED), "nowhere to released by ingest: accept, writes accepted" }, \
    { WAY(WAITING, RELEASED, BY_DISPATCHER, DO_RELEASE, 0), "waiting to released by dispatcher: release, writes nothing" }, \
    { WAY(WAITING, DELIVERED, BY_DISPATCHER, DO_RELEASE, TELLS_FINAL), "waiting to delivered by dispatcher: release, writes final" }, \
    { WAY(WAITING, CANCELLED, BY_DISPATCHER, DO_RELEASE, TELLS_FINAL), "waiting to cancelled by dispatcher: release, writes final" }, \
    { WAY(WAITING, EXPIRED, BY_DISPATCHER, DO_RELEASE, TELLS_FINAL), "waiting to expired by dispatcher: release, writes final" }, \
    { WAY(RELEASED, WAITING, BY_INGEST, DO_PARK, 0), "released to waiting by ingest: park, writes nothing" }, \
    { WAY(RELEASED, WAITING, BY_DISPATCHER, DO_PARK, 0), "released to waiting by dispatcher: park, writes nothing" }, \
    { WAY(RELEASED, WAITING, BY_RENDERER, DO_PARK, 0), "released to waiting by renderer: park, writes nothing" }, \
    { WAY(RELEASED, WAITING, BY_SENDER, DO_PARK, 0), "released to waiting by sender: park, writes nothing" }, \
    { WAY(RELEASED, WAITING, BY_DISPATCHER, DO_REPAIR, TELLS_LOST), "released to waiting by dispatcher: repair, writes lost" }, \
    { WAY(RELEASED, FAILED, BY_DISPATCHER, DO_REPAIR, TELLS_LOST + TELLS_FINAL), "released to failed by dispatcher: repair, writes lost, final" }, \
    { WAY(RELEASED, FAILED, BY_DISPATCHER, DO_CLOSE, TELLS_FINAL), "released to failed by dispatcher: close, writes final" }, \
    { WAY(RELEASED, FAILED, BY_RENDERER, DO_CLOSE, TELLS_FINAL), "released to failed by renderer: close, writes final" }, \
    { WAY(RELEASED, FAILED, BY_SENDER, DO_CLOSE, TELLS_FINAL), "released to failed by sender: close, writes final" }, \
    { WAY(RELEASED, SENDING, BY_SENDER, DO_CLAIM, 0), "released to sending by sender: claim, writes nothing" }, \
    { WAY(RELEASED, WAITING, BY_SENDER, DO_CLAIM, 0), "released to waiting by sender: claim, writes nothing" }, \
    { WAY(RELEASED, DELIVERED, BY_SENDER, DO_CLAIM, TELLS_FINAL), "released to delivered by sender: claim, writes final" }, \
    { WAY(RELEASED, CANCELLED, BY_SENDER, DO_CLAIM, TELLS_FINAL), "released to cancelled by sender: claim, writes final" }, \
    { WAY(RELEASED, SUPPRESSED, BY_SENDER, DO_CLAIM, TELLS_FINAL), "released to suppressed by sender: claim, writes final" }, \
    { WAY(RELEASED, EXPIRED, BY_SENDER, DO_CLAIM, TELLS_FINAL), "released to expired by sender: claim, writes final" }, \
    { WAY(WAITING, DELIVERED, BY_DISPATCHER, DO_REFUSE, TELLS_FINAL), "waiting to delivered by dispatcher: refuse, writes final" }, \
    { WAY(RELEASED, DELIVERED, BY_DISPATCHER, DO_REFUSE, TELLS_FINAL), "released to delivered by dispatcher: refuse, writes final" }, \
    { WAY(WAITING, CANCELLED, BY_DISPATCHER, DO_REFUSE, TELLS_FINAL), "waiting to cancelled by dispatcher: refuse, writes final" }, \
    { WAY(RELEASED, CANCELLED, BY_DISPATCHER, DO_REFUSE, TELLS_FINAL), "released to cancelled by dispatcher: refuse, writes final" }, \
    { WAY(WAITING, DELIVERED, BY_SUPPRESSION, DO_REFUSE, TELLS_FINAL), "waiting to delivered by suppression: refuse, writes final" }, \
    { WAY(RELEASED, DELIVERED, BY_SUPPRESSION, DO_REFUSE, TELLS_FINAL), "released to delivered by suppression: refuse, writes final" }, \
    { WAY(WAITING, SUPPRESSED, BY_SUPPRESSION, DO_REFUSE, TELLS_FINAL), "waiting to suppressed by suppression: refuse, writes final" }, \
    { WAY(RELEASED, SUPPRESSED, BY_SUPPRESSION, DO_REFUSE, TELLS_FINAL), "released to suppressed by suppression: refuse, writes final" }, \
    { WAY(WAITING, DELIVERED, BY_DISPATCHER, DO_EXPIRE, TELLS_FINAL), "waiting to delivered by dispatcher: expire, writes final" }, \
    { WAY(WAITING, EXPIRED, BY_DISPATCHER, DO_EXPIRE, TELLS_FINAL), "waiting to expired by dispatcher: expire, writes final" }, \
    { WAY(SENDING, DELIVERED, BY_SENDER, DO_RECORD, TELLS_FINAL), "sending to delivered by sender: record, writes final" }, \
    { WAY(SENDING, DELIVERED, BY_SENDER, DO_RECORD, TELLS_DEFERRED + TELLS_FINAL), "sending to delivered by sender: record, writes deferred, final" }, \
    { WAY(SENDING, DELIVERED, BY_SENDER, DO_RECORD, TELLS_DOUBT + TELLS_FINAL), "sending to delivered by sender: record, writes doubt, final" }, \
    { WAY(SENDING, BOUNCED, BY_SENDER, DO_RECORD, TELLS_FINAL), "sending to bounced by sender: record, writes final" }, \
    { WAY(SENDING, CANCELLED, BY_SENDER, DO_RECORD, TELLS_DEFERRED + TELLS_FINAL), "sending to cancelled by sender: record, writes deferred, final" }, \
    { WAY(SENDING, CANCELLED, BY_SENDER, DO_RECORD, TELLS_FINAL), "sending to cancelled by sender: record, writes final" }, \
    { WAY(SENDING, EXPIRED, BY_SENDER, DO_RECORD, TELLS_DEFERRED + TELLS_FINAL), "sending to expired by sender: record, writes deferred, final" }, \
    { WAY(SENDING, EXPIRED, BY_SENDER, DO_RECORD, TELLS_FINAL), "sending to expired by sender: record, writes final" }, \
    { WAY(SENDING, WAITING, BY_SENDER, DO_RECORD, TELLS_DEFERRED), "sending to waiting by sender: record, writes deferred" }, \
    { WAY(SENDING, WAITING, BY_SENDER, DO_RECORD, 0), "sending to waiting by sender: record, writes nothing" }, \
    { WAY(SENDING, IN_DOUBT, BY_SENDER, DO_RECORD, TELLS_DOUBT), "sending to in doubt by sender: record, writes doubt" }, \
    { WAY(SENDING, IN_DOUBT, BY_DISPATCHER, DO_DOUBT, TELLS_DOUBT), "sending to in doubt by dispatcher: doubt, writes doubt" }, \
    { WAY(IN_DOUBT, WAITING, BY_DISPATCHER, DO_DOUBT, 0), "in doubt to waiting by dispatcher: doubt, writes nothing" }, \
    { WAY(IN_DOUBT, UNKNOWN, BY_DISPATCHER, DO_DOUBT, TELLS_FINAL), "in doubt to unknown by dispatcher: doubt, writes final" }, \
    { WAY(IN_DOUBT, DELIVERED, BY_DISPATCHER, DO_DOUBT, TELLS_FINAL), "in doubt to delivered by dispatcher: doubt, writes final" }, \
    { WAY(IN_DOUBT, CANCELLED, BY_DISPATCHER, DO_DOUBT, TELLS_FINAL), "in doubt to cancelled by dispatcher: doubt, writes final" }, \

