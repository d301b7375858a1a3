/*
 * The claim protocol, for one message and two senders of its shard: accept, release, claim, send, record, park,
 * repair, doubt, marks, leases, the journal. What is left out, and how to run and read it, stands in README.md.
 *
 * One `atomic` is one statement on Postgres, or one step of a process that nobody can look into. A statement that
 * looks at one thing and then waits for the lock of a row is two: what it saw when it began, and what it does.
 *
 * Checked on every interleaving, where:
 *   copies <= 1 + doubts: `dot`
 *   every run ends, and then one closing fact has closed the message: `End`, and no cycle (pan -l)
 *   no claim succeeds that began after a cancel, a suppression or a known delivery had committed: `take_claim`
 *   what is known to be delivered ends as delivered: `close`
 *   every change of place, with the facts that it writes, is a way of the shared table: `go`
 *   no fact is written twice, and a late outcome only after a doubt, as domain::history demands: `tell`, `late_fact`
 *   no dot goes out under a lease that its sender could see to be over: `dot`
 *
 * What may happen for ever in life (a crash, a lapse, a lost message, a 4xx, a park) is drawn from a budget, so it
 * stops. Order costs nothing: whatever can come late or early does.
 */

#ifndef FAULTS
#define FAULTS 2
#endif
#ifndef POISON
#define POISON 2                        /* losses in a row that close a message as failed */
#endif
#define MOST (2 * FAULTS + 1)           /* releases: each after the first has its cause, a wiped broker two */

#include "transitions.pml"

#define HAS(set, i) (((set) >> (i)) & 1)
#define ADD(set, i) set = (set) | (1 << (i))
#define DEL(set, i) set = (set) & ~(1 << (i))
#define FAULT atomic { faults > 0 -> faults-- }

/* ---- Postgres: two tables, the facts, marks, suppression, time to live, the shard's lease, the bus epoch ---- */
typedef Waiting { bit here; byte release; byte losses };
typedef Moving { byte state; byte release; byte losses; byte epoch; byte bus };    /* state 0: no row */
Waiting waiting;
Moving moving;
byte ended, ended_at;                   /* the closing fact: the place it tells of, and its release number; 0: none */
byte deferred, doubted, lost, late;     /* the other facts, by release number */
bit accepted;
bit cancelled, cancel_open;             /* the mark, and that it is not settled yet */
bit known, known_open;
bit suppressed, expired;
byte lease, epochs;                     /* the epoch of the shard's lease, and the last one given out */
bit lease_live;
byte bus_epoch = 1;

/* ---- the broker: what is on it is slow, out of order, and comes again until it is acknowledged ---- */
byte bus;                               /* jobs, by release number */
bit bus_is_new;                         /* its streams are other ones than Postgres knows */

/* ---- the processes ---- */
byte launching, publishing, carried, hand[2];   /* jobs in the hands of ingest, dispatcher, a porter, the senders */
byte holds[2];                          /* the epoch that a sender believes to hold; 0: none */
bit looked[2], overtaken[2];            /* between its look at the lease and the dot; the lease ended in between */
byte limbo[2], limbo_epoch[2];          /* a claim statement whose client no longer waits for it */
byte began[2];                          /* what a claim saw when it began */
byte journal[2], line[2], says[2];      /* epochs; the last line's release number, and what it says */

/* ---- what only the model sees ---- */
byte faults = FAULTS;
byte copies, doubts;
byte covered;                           /* the release that a suppression met as released */
bit learned;                            /* a sender learnt of a 250 too late, and has done what there is to do */
byte r_, l_;                            /* scratch */
int way_;
bit declared_;

/* What an attempt came to, and what a journal's line says. */
#define DOT 1
#define OK 2
#define PERMANENT 3
#define TEMPORARY 4
#define UNANSWERED 5
#define NOT_SENT 6

/* What a statement saw when it began. */
#define SAW_ROW 1
#define SAW_LEASE 2
#define SAW_CANCEL 4
#define SAW_KNOWN 8
#define SAW_SUPPRESSION 16
#define SAW_EXPIRED 32
#define SAW_LEARNED 64
#define SIGHT(row) \
    ((row -> SAW_ROW : 0) | (cancelled -> SAW_CANCEL : 0) | (known -> SAW_KNOWN : 0) \
     | (suppressed -> SAW_SUPPRESSION : 0) | (expired -> SAW_EXPIRED : 0) | (learned -> SAW_LEARNED : 0))

#define PLACE (ended -> ended : (waiting.here -> WAITING : (moving.state -> moving.state : NOWHERE)))
#define TRAVELS(r) (moving.state == RELEASED && moving.release == (r))
#define CLAIMED(r, e) (moving.state == SENDING && moving.release == (r) && moving.epoch == (e))
#define IS_LIVE(e) (lease_live && lease == (e))
#define IS_HELD (holds[0] == lease || holds[1] == lease)
#define IN_HAND(r) (launching == (r) || publishing == (r) || carried == (r) || hand[0] == (r) || hand[1] == (r))
#define IS_OVERDUE (moving.bus < bus_epoch || !HAS(bus, moving.release) && !IN_HAND(moving.release))

/*
 * ---- The rules. Each can be taken out; the model then fails. The table in README.md says what each one stands for.
 */
#ifdef WITHOUT_CLAIM_CAS                /* claim: on the release number, and in `released` */
#define CLAIMABLE(r) (moving.state == RELEASED || moving.state == SENDING)
#else
#define CLAIMABLE(r) TRAVELS(r)
#endif
#ifdef WITHOUT_CLAIM_LEASE              /* claim: under a live lease, looked at in the statement */
#define MAY_CLAIM(saw) (saw & SAW_ROW)
#else
#define MAY_CLAIM(saw) ((saw & SAW_ROW) && (saw & SAW_LEASE))
#endif
#ifdef WITHOUT_CLAIM_CANCEL             /* claim looks at cancels */
#define AS_CANCELLED(saw) false
#else
#define AS_CANCELLED(saw) (saw & SAW_CANCEL)
#endif
#ifdef WITHOUT_CLAIM_SUPPRESSION        /* claim looks at suppressions */
#define AS_SUPPRESSED(saw) false
#else
#define AS_SUPPRESSED(saw) (saw & SAW_SUPPRESSION)
#endif
#ifdef WITHOUT_CLAIM_KNOWN              /* claim looks at known deliveries */
#define AS_DELIVERED(saw) false
#else
#define AS_DELIVERED(saw) (saw & SAW_KNOWN)
#endif
#ifdef WITHOUT_RECORD_CAS               /* record: on release number, epoch and `sending` */
#define RECORDABLE(r, e) (waiting.here || moving.state)
#else
#define RECORDABLE(r, e) CLAIMED(r, e)
#endif
#ifdef WITHOUT_RECORD_KNOWN             /* what is known to be delivered ends so, whatever the attempt came to */
#define ENDS_KNOWN(saw) false
#else
#define ENDS_KNOWN(saw) (saw & SAW_KNOWN)
#endif
#ifdef WITHOUT_DOUBT_KNOWN
#define DOUBT_KNOWN false
#else
#define DOUBT_KNOWN known
#endif
#ifdef WITHOUT_RELEASE_KNOWN
#define RELEASE_KNOWN false
#else
#define RELEASE_KNOWN known
#endif
#ifdef WITHOUT_EXPIRE_KNOWN
#define EXPIRE_KNOWN false
#else
#define EXPIRE_KNOWN known
#endif
#ifdef WITHOUT_SUPPRESS_KNOWN
#define SUPPRESS_KNOWN(saw) false
#else
#define SUPPRESS_KNOWN(saw) (saw & SAW_KNOWN)
#endif
#ifdef WITHOUT_REFUSE_KNOWN
#define REFUSE_KNOWN(saw) false
#else
#define REFUSE_KNOWN(saw) (saw & SAW_KNOWN)
#endif
#ifdef WITHOUT_POISON_KNOWN
#define TOO_MANY_LOSSES(more) (more >= POISON)
#else
#define TOO_MANY_LOSSES(more) (more >= POISON && !known)
#endif
#ifdef WITHOUT_NO_ANSWER                /* no reply after the dot: doubt, never a deferral */
#define WHEN_UNANSWERED TEMPORARY
#else
#define WHEN_UNANSWERED UNANSWERED
#endif
#ifdef WITHOUT_OWN_FACT                 /* a record that matches nothing looks for its own fact first */
#define IS_RECORDED(r, what) false
#else
#define IS_RECORDED(r, what) (HAS(late, r) \
    || what == OK && ended == DELIVERED && ended_at == r \
    || what == PERMANENT && (ended == BOUNCED || ended == DELIVERED) && ended_at == r \
    || what == TEMPORARY && HAS(deferred, r) || what == UNANSWERED && HAS(doubted, r) || what == NOT_SENT)
#endif

/* The shared table, and which of its ways a search took: the search prints them at its end. */
c_decl {
    static const struct { int way; const char *name; } table[WAYS] = { WAY_TABLE };
    static unsigned char taken[WAYS];
    static int is_declared(int way)
    {
        for (int i = 0; i < WAYS; i++)
            if (table[i].way == way)
                return taken[i] = 1;
        return 0;
    }
    __attribute__((destructor)) static void report(void)
    {
        for (int i = 0; i < WAYS; i++)
            printf("way %s: %s\n", taken[i] ? "taken" : "not taken", table[i].name);
    }
}

/* ---- What statements have in common. ---- */

#ifdef NO_HISTORY                       /* with a rule taken out, as NO_TABLE below: the promises alone must notice */
#define HISTORY(holds) skip
#else
#define HISTORY(holds) assert(holds)
#endif
inline tell(facts, r) {
    HISTORY(!HAS(deferred | doubted | lost, r));
    if :: (facts) & TELLS_DEFERRED -> ADD(deferred, r) :: else fi;
    if :: (facts) & TELLS_DOUBT -> ADD(doubted, r); doubts++ :: else fi;
    if :: (facts) & TELLS_LOST -> ADD(lost, r) :: else fi
}
inline go(to, by, statement, facts) {   /* every change of place passes here */
#ifndef NO_TABLE
    way_ = WAY(PLACE, to, by, statement, (facts));
    c_code { now.declared_ = is_declared(now.way_); };
    assert(declared_);
    way_ = 0; declared_ = 0
#else
    skip
#endif
}
inline take_out() {
    waiting.here = 0; waiting.release = 0; waiting.losses = 0;
    moving.state = 0; moving.release = 0; moving.losses = 0; moving.epoch = 0; moving.bus = 0
}
inline come_to_rest() {                 /* under l_ losses in a row */
    r_ = moving.release;
    take_out();
    waiting.here = 1; waiting.losses = l_;
#ifndef WITHOUT_RELEASE_NUMBER          /* it never goes down in a message's life: what rests keeps it */
    waiting.release = r_;
#endif
    r_ = 0; l_ = 0
}
inline rest(by, statement) { go(WAITING, by, statement, 0); come_to_rest() }
inline rest_telling(by, statement, facts) {
    go(WAITING, by, statement, (facts));
    r_ = moving.release; tell(facts, r_);
    come_to_rest()
}
inline come_to_end(to, began_learned) {
    assert(!ended);
    assert(to == DELIVERED || !(began_learned));
    ended = to; ended_at = (waiting.here -> waiting.release : moving.release);
    take_out();
    lost = 0; covered = 0               /* nobody looks at them any more */
}
inline close(to, by, statement, began_learned) { go(to, by, statement, TELLS_FINAL); come_to_end(to, began_learned) }
inline close_telling(to, by, statement, facts, began_learned) {
    go(to, by, statement, (TELLS_FINAL + facts));
    r_ = moving.release; tell(facts, r_); r_ = 0;
    come_to_end(to, began_learned)
}
inline park(r, by) {                    /* park.sql: whoever has a job in his hands, however old it is */
    if
#ifdef WITHOUT_PARK_CAS
    :: moving.state -> rest(by, DO_PARK)
    :: !moving.state
#else
    :: TRAVELS(r) -> rest(by, DO_PARK)
    :: !TRAVELS(r)
#endif
    fi
}
inline pick(set, r) {                   /* any member of a set that is not empty */
    r = 1;
    do
    :: !HAS(set, r) -> r++
    :: HAS(set, r) && ((set) >> (r + 1)) != 0 -> r++
    :: HAS(set, r) -> break
    od
}

/* ---- Ingest: accept.sql; transactional mail is released at once and published beside everything else. ---- */
proctype Ingest() {
    atomic {
        if
        :: go(WAITING, BY_INGEST, DO_ACCEPT, TELLS_ACCEPTED); waiting.here = 1
        :: go(RELEASED, BY_INGEST, DO_ACCEPT, TELLS_ACCEPTED);
           moving.state = RELEASED; moving.release = 1; moving.bus = bus_epoch; launching = 1
        fi;
        accepted = 1
    };
    if
    :: !launching
    :: atomic { launching -> ADD(bus, 1); launching = 0 }
    :: atomic { launching && faults > 0 -> faults--; launching = 0 }                      /* killed; or nobody knows */
    :: atomic { launching && faults > 0 -> faults--; park(1, BY_INGEST); launching = 0 }  /* refused */
    fi;
#ifdef WITHOUT_ACCEPT_ONCE              /* a repeated message id inserts nothing */
    atomic {
        if
        :: true
        :: FAULT; if :: !waiting.here && !moving.state -> waiting.here = 1; ended = 0 :: else fi
        fi }
#endif
    skip
}

/* ---- Dispatcher: release.sql, and the publish after its commit. ---- */
proctype Release() {
end:
    do
    :: atomic { waiting.here && !publishing ->
           if
           :: RELEASE_KNOWN -> close(DELIVERED, BY_DISPATCHER, DO_RELEASE, learned)
           :: !RELEASE_KNOWN && cancelled -> close(CANCELLED, BY_DISPATCHER, DO_RELEASE, learned)
           :: !RELEASE_KNOWN && !cancelled && expired -> close(EXPIRED, BY_DISPATCHER, DO_RELEASE, learned)
           :: else ->
              go(RELEASED, BY_DISPATCHER, DO_RELEASE, 0);
              r_ = waiting.release + 1; l_ = waiting.losses;
              assert(r_ <= MOST);       /* nothing is released over and over */
              take_out();
              moving.state = RELEASED; moving.release = r_; moving.losses = l_; moving.bus = bus_epoch;
              publishing = r_; r_ = 0; l_ = 0
           fi }
    :: atomic { publishing -> ADD(bus, publishing); publishing = 0 }
    :: atomic { publishing && faults > 0 -> faults--; publishing = 0 }
    :: atomic { publishing && faults > 0 -> faults--; park(publishing, BY_DISPATCHER); publishing = 0 }
    od
}

/* ---- Dispatcher: repair.sql, doubt_open.sql, doubt_close.sql, expire.sql, the watch of the bus. ---- */
proctype Upkeep() {
    bit more;
end:
    do
#ifndef WITHOUT_REPAIR
    :: atomic {                         /* released too long ago, rightly or (a fault) only slow; or on an older bus */
           moving.state == RELEASED && (IS_OVERDUE || faults > 0) ->
           if :: IS_OVERDUE :: else -> faults-- fi;
           more = (moving.bus == bus_epoch) };
#ifdef WITHOUT_REPAIR_CAS               /* repair: only what still is released */
       atomic { if :: moving.state :: else -> goto repaired fi;
#else
       atomic { if :: moving.state == RELEASED :: else -> goto repaired fi;
#endif
           if
           :: TOO_MANY_LOSSES(moving.losses + more) ->
              close_telling(FAILED, BY_DISPATCHER, DO_REPAIR, TELLS_LOST, learned)
           :: else ->
              l_ = (moving.losses + more < POISON -> moving.losses + more : POISON);
              rest_telling(BY_DISPATCHER, DO_REPAIR, TELLS_LOST)
           fi };
repaired:
       more = 0
#endif
    :: atomic {                         /* the owner's epoch is gone */
           moving.state == SENDING && !IS_LIVE(moving.epoch) ->
#ifdef WITHOUT_DOUBT                    /* what was claimed may have gone out */
           rest(BY_DISPATCHER, DO_DOUBT) }
#else
           go(IN_DOUBT, BY_DISPATCHER, DO_DOUBT, TELLS_DOUBT);
           r_ = moving.release; tell(TELLS_DOUBT, r_); r_ = 0;
           moving.state = IN_DOUBT }
#endif
    :: atomic { moving.state == IN_DOUBT ->
           if
           :: DOUBT_KNOWN -> close(DELIVERED, BY_DISPATCHER, DO_DOUBT, learned)
           :: !DOUBT_KNOWN && cancelled -> close(CANCELLED, BY_DISPATCHER, DO_DOUBT, learned)
           :: !DOUBT_KNOWN && !cancelled -> close(UNKNOWN, BY_DISPATCHER, DO_DOUBT, learned)
           :: !DOUBT_KNOWN && !cancelled -> rest(BY_DISPATCHER, DO_DOUBT)     /* by the lane's policy */
           fi }
    :: atomic { waiting.here && expired ->
           if
           :: EXPIRE_KNOWN -> close(DELIVERED, BY_DISPATCHER, DO_EXPIRE, learned)
           :: !EXPIRE_KNOWN -> close(EXPIRED, BY_DISPATCHER, DO_EXPIRE, learned)
           fi }
    :: atomic { bus_is_new -> bus_is_new = 0; bus_epoch++ }
#ifdef WITHOUT_FLUSH                    /* a claim is on disk before its dot: else Postgres, killed, forgets it */
    :: atomic { moving.state == SENDING && faults > 0 -> faults--; moving.state = RELEASED; moving.epoch = 0 }
#endif
    od
}

/* ---- What looks for a message in two tables: it sees it in one; with the lock, it may be in the other. ---- */
#define WHERE (waiting.here -> WAITING : (moving.state == RELEASED -> RELEASED : 0))
#define WHICH (waiting.here -> waiting.release : moving.release)
#define IS_STILL(place, r) \
    (place == WAITING && waiting.here && waiting.release == r || place == RELEASED && TRAVELS(r))

/* Dispatcher: the settling of marks, by refuse.sql. */
proctype Marks() {
    byte saw, place, r;
    bit delivered;
end:
    do
    :: atomic { known_open || cancel_open ->
           delivered = known_open;
           saw = SIGHT(false); place = WHERE; r = WHICH };
       atomic {
           if
           :: IS_STILL(place, r) ->
              if
              :: delivered || REFUSE_KNOWN(saw) ->
                 close(DELIVERED, BY_DISPATCHER, DO_REFUSE, saw & SAW_LEARNED)
              :: else -> close(CANCELLED, BY_DISPATCHER, DO_REFUSE, saw & SAW_LEARNED)
              fi
           :: else
           fi;
           if :: delivered -> known_open = 0 :: else -> cancel_open = 0 fi;
           delivered = 0; saw = 0; place = 0; r = 0 }
    od
}

/* One thing from outside, at any moment or never: a cancel, the end of its time, a suppression. */
proctype Caller() {
    byte saw, place, r;
    if
    :: true
    :: atomic { accepted && !ended -> cancelled = 1; cancel_open = 1 }
#ifndef ONLY_CANCEL
    :: atomic { accepted && !ended -> expired = 1 }
    :: atomic { accepted && !ended -> saw = SIGHT(false); place = WHERE; r = WHICH };
       atomic {                         /* one transaction: the entry, and by suppress.sql what it saw */
           suppressed = 1;
           if
           :: IS_STILL(place, r) ->
              if :: place == RELEASED -> covered = r :: else fi;
#ifndef WITHOUT_SUPPRESSION_CLOSING     /* the claim's own look is a snapshot: it may be older */
              if
              :: SUPPRESS_KNOWN(saw) -> close(DELIVERED, BY_SUPPRESSION, DO_REFUSE, 0)
              :: else -> close(SUPPRESSED, BY_SUPPRESSION, DO_REFUSE, saw & SAW_LEARNED)
              fi
#endif
           :: else
           fi;
           saw = 0; place = 0; r = 0 }
#endif
    fi
}

/* ---- Whoever else has a job in his hands, however old: puts it back, or cannot render it (fail.sql). ---- */
proctype Porter() {
end:
    do
    :: atomic { bus && !ended && faults > 0 -> faults--; pick(bus, carried) };
       atomic {
           if
           :: park(carried, BY_RENDERER)
           :: park(carried, BY_SENDER)
           :: TRAVELS(carried) && !known -> close(FAILED, BY_RENDERER, DO_CLOSE, learned)
           :: TRAVELS(carried) && !known -> close(FAILED, BY_SENDER, DO_CLOSE, learned)
           :: TRAVELS(carried) && !known -> close(FAILED, BY_DISPATCHER, DO_CLOSE, learned)
           fi;
           DEL(bus, carried); carried = 0 }
    od
}

/* What comes when the message has ended and nobody is at work on it changes nothing: it is left out. */
#define IS_IDLE (!hand[0] && !hand[1] && !limbo[0] && !limbo[1])

/* ---- The broker wiped; the lease over: for nothing when nobody holds it, else because its holder is too slow. ---- */
inline lease_over() {
    lease_live = 0;
    if :: holds[0] == lease && looked[0] -> overtaken[0] = 1 :: else fi;
    if :: holds[1] == lease && looked[1] -> overtaken[1] = 1 :: else fi
}
proctype Trouble() {
end:
    do
    :: atomic { bus && !ended && faults > 0 -> faults--; bus = 0; bus_is_new = 1 }
    :: atomic { lease_live && !(ended && IS_IDLE) && (!IS_HELD || faults > 0) ->
           if :: IS_HELD -> faults-- :: else fi;
           lease_over() }
    od
}

#ifdef WITHOUT_LOCK                     /* the journal is read under its exclusive lock: its writer is gone then */
proctype Twin() {                       /* a second process of that name, while the first is only stopped */
end:
    atomic { moving.state == SENDING && HAS(journal[0], moving.epoch) && line[0] != moving.release && faults > 0 ->
        faults--;
        rest(BY_SENDER, DO_RECORD);
        if :: HAS(journal[0], lease) -> lease_over() :: else fi }
}
#endif

/* ---- Sender ---- */

/* claim.sql, once it has the row: what it knows of marks and of the lease is what it saw when it began. */
#ifdef WITHOUT_REFUSAL                  /* a refusal is a write in the same statement */
#define refuse(to, saw) skip
#else
#define refuse(to, saw) close(to, BY_SENDER, DO_CLAIM, saw & SAW_LEARNED)
#endif
inline take_claim(r, e, saw, mine) {
    if
    :: MAY_CLAIM(saw) && CLAIMABLE(r) ->
       if
       :: AS_DELIVERED(saw) -> refuse(DELIVERED, saw)
       :: !AS_DELIVERED(saw) && AS_CANCELLED(saw) -> refuse(CANCELLED, saw)
       :: !AS_DELIVERED(saw) && !AS_CANCELLED(saw) && AS_SUPPRESSED(saw) -> refuse(SUPPRESSED, saw)
       :: !AS_DELIVERED(saw) && !AS_CANCELLED(saw) && !AS_SUPPRESSED(saw) && (saw & SAW_EXPIRED) ->
          refuse(EXPIRED, saw)
       :: !AS_DELIVERED(saw) && !AS_CANCELLED(saw) && !AS_SUPPRESSED(saw) && !(saw & SAW_EXPIRED) ->
          go(SENDING, BY_SENDER, DO_CLAIM, 0);
          assert(saw & SAW_LEASE);
          assert(!(saw & (SAW_CANCEL | SAW_SUPPRESSION | SAW_LEARNED)));
          assert(!covered || covered != r);
          moving.state = SENDING; moving.epoch = e; mine = 1
       :: !AS_DELIVERED(saw) && !AS_CANCELLED(saw) && !AS_SUPPRESSED(saw) && !(saw & SAW_EXPIRED) && faults > 0 ->
          faults--; rest(BY_SENDER, DO_CLAIM)                            /* paused */
       fi
    :: else                             /* stale */
    fi;
    saw = 0
}

/* The server may go on with a claim that its client no longer waits for. */
proctype Backend(byte me) {
    bit mine;
end:
    do
    :: atomic { limbo[me] ->
           take_claim(limbo[me], limbo_epoch[me], began[me], mine);
           limbo[me] = 0; limbo_epoch[me] = 0; mine = 0 }
    :: atomic { limbo[me] -> began[me] = 0; limbo[me] = 0; limbo_epoch[me] = 0 }
    od
}

#define CRASH atomic { faults > 0 -> faults--; goto crashed }

/* record.sql, and what follows when it matched nothing. */
#define IS_FOR_ATTEMPT 0
#define IS_FOR_UNDO 1
#define IS_FOR_ORPHAN 2
#define IS_FOR_LINE 3

inline record(r, e, what, saw) {
    if
    :: what == OK -> close(DELIVERED, BY_SENDER, DO_RECORD, 0)
    :: what != OK && ENDS_KNOWN(saw) ->
       close_telling(DELIVERED, BY_SENDER, DO_RECORD,
                     (what == TEMPORARY -> TELLS_DEFERRED : (what == UNANSWERED -> TELLS_DOUBT : 0)), 0)
    :: what == PERMANENT && !ENDS_KNOWN(saw) ->
       close(BOUNCED, BY_SENDER, DO_RECORD, saw & SAW_LEARNED)
    :: what == UNANSWERED && !ENDS_KNOWN(saw) ->
       go(IN_DOUBT, BY_SENDER, DO_RECORD, TELLS_DOUBT);
       tell(TELLS_DOUBT, r);
       moving.state = IN_DOUBT
    :: (what == TEMPORARY || what == NOT_SENT) && !ENDS_KNOWN(saw) && (saw & SAW_CANCEL) ->
       close_telling(CANCELLED, BY_SENDER, DO_RECORD, (what == TEMPORARY -> TELLS_DEFERRED : 0), saw & SAW_LEARNED)
    :: (what == TEMPORARY || what == NOT_SENT) && !ENDS_KNOWN(saw) && !(saw & SAW_CANCEL) && (saw & SAW_EXPIRED) ->
       close_telling(EXPIRED, BY_SENDER, DO_RECORD, (what == TEMPORARY -> TELLS_DEFERRED : 0), saw & SAW_LEARNED)
    :: (what == TEMPORARY || what == NOT_SENT) && !ENDS_KNOWN(saw) && !(saw & SAW_CANCEL) && !(saw & SAW_EXPIRED) ->
       rest_telling(BY_SENDER, DO_RECORD, (what == TEMPORARY -> TELLS_DEFERRED : 0))
    fi
}

inline late_fact(r) {
    HISTORY(HAS(doubted, r));           /* nothing else takes a claim out of its sender's hands */
    if :: !HAS(late, r) -> ADD(late, r) :: else fi
}

proctype Sender(byte me) {
    byte r, e, what, saw, task;
    bit mine, late_now;
end:
    do
    :: atomic { !holds[me] && !lease_live ->    /* takes the lease, and notes it in the journal before any claim */
           epochs++; lease = epochs; lease_live = 1; holds[me] = lease; ADD(journal[me], lease) }
    :: atomic { holds[me] && !IS_LIVE(holds[me]) -> holds[me] = 0 }            /* a renewal tells that it is lost */
    :: atomic { holds[me] && IS_LIVE(holds[me]) && !ended && faults > 0 ->     /* hands it over: nothing is claimed */
           faults--; lease_live = 0; holds[me] = 0 }
    :: atomic { holds[me] && !ended && faults > 0 -> faults--; goto crashed }
    :: atomic { holds[me] && bus && !limbo[me] ->                              /* a claim begins */
           pick(bus, hand[me]); r = hand[me]; e = holds[me];
           began[me] = SIGHT(CLAIMABLE(r)) | (IS_LIVE(e) -> SAW_LEASE : 0) };
       if
       :: CRASH
       :: atomic { faults > 0 -> faults--; limbo[me] = r; limbo_epoch[me] = e; goto undo }
       :: atomic { take_claim(r, e, began[me], mine);
              if
              :: true
              :: faults > 0 -> faults--; goto undo      /* done, and the answer is lost */
              fi;
              if :: DEL(bus, hand[me]) :: faults > 0 -> faults-- fi;     /* acknowledged, or it comes again */
              if :: !mine -> goto done :: else fi }
       fi;
       if
       :: CRASH
       :: atomic { faults > 0 -> faults--; what = NOT_SENT; goto recording }   /* no connection in time, a pause */
#ifndef WITHOUT_LOOK                    /* before each dot: is the lease over, by this machine's monotonic clock? */
       :: atomic { !IS_LIVE(e) -> what = NOT_SENT; goto recording }
       :: atomic { IS_LIVE(e) -> looked[me] = 1;
#ifdef WITHOUT_LOCK                     /* the process may be stopped here, too */
          };
          atomic {
#endif
#else
       :: atomic {
#endif
#ifndef WITHOUT_LINE_FIRST              /* the line is in the journal before the dot is on the wire */
              line[me] = r; says[me] = DOT
#else
              skip
#endif
          }
       fi;
       if
       :: CRASH
       :: atomic {                      /* the dot */
              assert(IS_LIVE(e) || overtaken[me]);
              looked[me] = 0; overtaken[me] = 0;
              if
              :: copies++; what = OK
              :: what = PERMANENT
              :: faults > 0 -> faults--; what = TEMPORARY
              :: faults > 0 -> faults--; what = WHEN_UNANSWERED; copies++
              :: faults > 0 -> faults--; what = WHEN_UNANSWERED
              fi;
              assert(copies <= 1 + doubts) }
       fi;
       if
       :: CRASH
       :: atomic { line[me] = r; says[me] = what; saw = SIGHT(RECORDABLE(r, e)); goto record_begun }
       fi;

recording:
       atomic { saw = SIGHT(RECORDABLE(r, e)) };
record_begun:
       if
       :: CRASH
       :: atomic {
              if
              :: (saw & SAW_ROW) && RECORDABLE(r, e) -> record(r, e, what, saw)
              :: else -> late_now = (what != NOT_SENT)
              fi;
              saw = 0;
              if
              :: true
              :: faults > 0 -> faults--; late_now = 0; goto recording          /* the answer is lost: once more */
              fi }
       fi;
       if
       :: CRASH
       :: atomic { !late_now || IS_RECORDED(r, what) -> goto recorded }
#ifndef WITHOUT_LATE                    /* a late outcome is used: a 250 is marked as known, before its fact */
       :: atomic { late_now && !IS_RECORDED(r, what) ->
              if :: what == OK -> known = 1; known_open = !ended :: else fi }
       fi;
       if
       :: CRASH
       :: atomic { late_fact(r);
#else
       :: atomic { late_now && !IS_RECORDED(r, what) ->
#endif
              if :: what == OK && !ended -> learned = 1 :: else fi }
       fi;
recorded:
       if
       :: atomic { task != IS_FOR_UNDO -> late_now = 0;
              if :: task == IS_FOR_ATTEMPT -> goto done :: else -> goto resolved fi }
       :: atomic { task == IS_FOR_UNDO -> park(r, BY_SENDER) }
       fi;
       atomic {
           if
#ifndef WITHOUT_UNDO_LOOK               /* an undo looks whether anything is claimed under its lease */
           :: CLAIMED(r, e) && IS_LIVE(e) -> goto recording
           :: !CLAIMED(r, e) && IS_LIVE(e) -> DEL(bus, hand[me]); goto done
           :: !IS_LIVE(e) -> goto done
#else
           :: DEL(bus, hand[me]); goto done
#endif
           fi };

undo:  atomic {
#ifndef WITHOUT_UNDO                    /* a claim whose answer is lost is undone */
           task = IS_FOR_UNDO; what = NOT_SENT; mine = 0; goto recording
#else
           DEL(bus, hand[me]); goto done
#endif
       };

crashed:
       atomic { holds[me] = 0; hand[me] = 0; looked[me] = 0; overtaken[me] = 0;
           if :: !limbo[me] -> began[me] = 0 :: else fi;
           r = 0; e = 0; what = 0; saw = 0; task = 0; mine = 0; late_now = 0;
           if
           :: true
           :: line[me] = 0; says[me] = 0;        /* the machine lost its power: what was not synced is gone */
#ifndef WITHOUT_BOOT_ID                 /* after another boot the journal proves nothing */
              journal[me] = 0
#endif
           fi };
       atomic {                         /* a start: what the process before left behind */
           if
           :: moving.state == SENDING && HAS(journal[me], moving.epoch) ->
              r = moving.release; e = moving.epoch; task = IS_FOR_ORPHAN;
              what = (line[me] == r -> (says[me] == DOT -> UNANSWERED : says[me]) : NOT_SENT)
           :: else ->
              if
              :: says[me] == OK && !ended -> r = line[me]; task = IS_FOR_LINE; what = OK
              :: else -> goto resolved
              fi
           fi };
       goto recording;
resolved:
       atomic {
           if :: lease && HAS(journal[me], lease) -> lease_live = 0 :: else fi;
           journal[me] = 0 };
done:  atomic { hand[me] = 0; line[me] = 0; says[me] = 0; looked[me] = 0; overtaken[me] = 0;
           r = 0; e = 0; what = 0; task = 0; mine = 0 }
    od
}

/* ---- When nothing can move any more, everything is over. ---- */
proctype End() {
    timeout;
    assert(ended && !waiting.here && !moving.state);
    assert(!cancel_open && !known_open)
}

init {
    atomic {
        epochs = 1; lease = 1; lease_live = 1; holds[0] = 1; ADD(journal[0], 1);    /* one of two that are alike */
        run Ingest(); run Release(); run Upkeep(); run Marks(); run Porter(); run Trouble();
#ifndef NO_CALLER
        run Caller();
#endif
#ifdef WITHOUT_LOCK
        run Twin();
#endif
        run Sender(0); run Sender(1);
        run Backend(0); run Backend(1);
        run End()
    }
}
