-- Mails that came in, as they came: committed before they are answered for, read afterwards, and read anew when better
-- rules are there. door: 1 return path, 2 address to unsubscribe at, 3 mailbox of reports. about: the message of ours
-- that the address they came to names. state: 0 waits, 1 read, 2 dead: nothing could be made of it.
create table mailfleet.inbound (
    inbound_id uuid primary key,
    received_at timestamptz not null,
    door smallint not null check (door in (1, 2, 3)),
    about uuid,
    sender text not null,
    recipient text not null,
    remote text not null,
    helo text not null,
    tls boolean not null,
    octets integer not null,
    raw bytea not null,
    state smallint not null default 0 check (state in (0, 1, 2)),
    due_at timestamptz not null,
    tries smallint not null default 0,
    kind text,
    outcome jsonb,
    read_at timestamptz
);
-- Kept beside the row, whole and as it is, so that a row stays small for whoever looks for what is due.
alter table mailfleet.inbound alter column raw set storage external;

create index inbound_due on mailfleet.inbound (due_at, inbound_id) where state = 0;
create index inbound_dead on mailfleet.inbound (inbound_id) where state = 2;
create index inbound_about on mailfleet.inbound (about, inbound_id) where about is not null;
create index inbound_by_kind on mailfleet.inbound (kind, inbound_id);
