-- The one outbox: whoever changes something inserts what happened in the same transaction.
-- kind and closing: codes of domain::fact. ordinal: 0, or the release number for attempts.
create table mailfleet.facts (
    fact_id bigint generated always as identity primary key,
    message_id uuid not null,
    kind smallint not null,
    ordinal integer not null,
    closing smallint,
    release_no integer not null,
    queue_id bigint not null,
    site text not null,
    at timestamptz not null,
    detail jsonb not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_threshold = -1);
create index facts_by_message on mailfleet.facts (message_id);

-- The log: seq has no gaps; the key makes a repeated fact count once.
create table mailfleet.message_events (
    message_id uuid not null,
    kind smallint not null,
    ordinal integer not null,
    seq bigint not null,
    closing smallint,
    release_no integer not null,
    tenant_id uuid not null,
    campaign_id uuid,
    lane smallint not null,
    site text not null,
    route text not null,
    at timestamptz not null,
    detail jsonb not null,
    primary key (message_id, kind, ordinal)
) partition by range (message_id);
create index message_events_by_seq on mailfleet.message_events (seq);

create table mailfleet.log_state (
    only_row boolean primary key default true check (only_row),
    seq bigint not null default 0
);
insert into mailfleet.log_state default values;

-- Written only by the fold. The nil campaign: none. bucket: the minute, hour or day that starts there (UTC).
create table mailfleet.rollup_minute (
    bucket timestamptz not null,
    tenant_id uuid not null,
    campaign_id uuid not null,
    lane smallint not null,
    site text not null,
    route text not null,
    kind smallint not null,
    closing smallint not null,
    events bigint not null,
    primary key (bucket, tenant_id, campaign_id, lane, site, route, kind, closing)
);
create table mailfleet.rollup_hour (like mailfleet.rollup_minute including all);
create table mailfleet.rollup_day (like mailfleet.rollup_minute including all);
