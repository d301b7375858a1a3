-- Where work rests and moves. A message is in exactly one of `waiting` and `moving`, or closed.
create table mailfleet.queues (
    queue_id bigint generated always as identity primary key,
    tenant_id uuid not null,
    -- nil: no campaign
    campaign_id uuid not null default '00000000-0000-0000-0000-000000000000',
    lane smallint not null,
    slot smallint not null,
    -- '' but for a site that has been given queues of its own
    site text not null default '',
    weight integer not null default 100 check (weight between 1 and 10000),
    unique (tenant_id, campaign_id, lane, slot, site)
);

-- A row pauses every queue that matches all its columns that are not null; release and claim look at it.
create table mailfleet.pauses (
    pause_id bigint generated always as identity primary key,
    tenant_id uuid,
    campaign_id uuid,
    queue_id bigint,
    slot smallint,
    site text,
    reason text not null,
    created_at timestamptz not null,
    unique nulls not distinct (tenant_id, campaign_id, queue_id, slot, site),
    check (num_nonnulls(tenant_id, campaign_id, queue_id, slot, site) > 0)
);

-- One row per message that rests. Inserted at accept or park, deleted by release: never updated.
create table mailfleet.waiting (
    queue_id bigint not null,
    due timestamptz not null,
    message_id uuid not null,
    batch_id uuid not null,
    address_hash uuid not null,
    expires_at timestamptz not null,
    -- never goes down in a message's life
    release_no integer not null,
    attempt smallint not null,
    -- releases lost in a row
    losses smallint not null,
    site text not null,
    last_reply text,
    primary key (queue_id, due, message_id)
);
create unique index waiting_by_message on mailfleet.waiting (message_id);
create index waiting_by_address on mailfleet.waiting (address_hash);
alter table mailfleet.waiting set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.1);

-- One row per message between release and record. No index may name a column that a transition changes: every
-- update is then heap-only, on a page that the fill factor leaves room on.
-- state: 1 released, 2 sending, 3 in doubt.
create table mailfleet.moving (
    message_id uuid primary key,
    queue_id bigint not null,
    tenant_id uuid not null,
    batch_id uuid not null,
    address_hash uuid not null,
    expires_at timestamptz not null,
    lane smallint not null,
    slot smallint not null,
    state smallint not null check (state between 1 and 3),
    release_no integer not null,
    attempt smallint not null,
    losses smallint not null,
    -- the owner's lease epoch, from the claim on
    epoch bigint,
    bus_epoch bigint not null,
    since timestamptz not null,
    site text not null
) with (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1);
create index moving_by_address on mailfleet.moving (address_hash);

-- What must be known whatever table a message is in: kind 1 cancel (message or batch), 2 known delivered.
-- Committed first; release, claim and every way from sending back to waiting look at it.
create table mailfleet.marks (
    subject_id uuid not null,
    kind smallint not null check (kind in (1, 2)),
    created_at timestamptz not null,
    settled boolean not null default false,
    primary key (subject_id, kind)
);
create index marks_to_settle on mailfleet.marks (created_at) where not settled;

create sequence mailfleet.lease_epochs;
create table mailfleet.leases (
    name text primary key,
    owner text not null,
    epoch bigint not null unique,
    until timestamptz not null
);

-- What the dispatcher knows of the broker: raised whenever its streams are other ones than before.
create table mailfleet.bus_state (
    only_row boolean primary key default true check (only_row),
    epoch bigint not null default 1,
    identity text not null default ''
);
insert into mailfleet.bus_state default values;

-- The destination site behind a recipient domain, as its MX hosts told.
create table mailfleet.sites (
    domain text primary key,
    site text not null,
    expires_at timestamptz not null
);
