-- Where tenants have events posted to. cursor: everything in the log up to there has been posted, or is kept below.
-- until_seq: a run over an old stretch of the log ends there; such a run has a row of its own, and main names whose it is.
-- One process at a time posts to an endpoint: it holds it, by a random name, until held_until. next_at: not before then.
create table mailfleet.endpoints (
    endpoint_id uuid primary key,
    tenant_id uuid not null references mailfleet.tenants,
    main uuid references mailfleet.endpoints on delete cascade,
    url text not null,
    events text[] not null,
    description text not null,
    state text not null check (state in ('active', 'paused', 'disabled')),
    why text not null default '',
    cursor bigint not null,
    until_seq bigint,
    next_at timestamptz not null,
    failures integer not null default 0,
    failing_since timestamptz,
    succeeded_at timestamptz,
    last_error text not null default '',
    test_wanted boolean not null default false,
    test_result text not null default '',
    tested_at timestamptz,
    holder uuid,
    held_until timestamptz not null,
    created_at timestamptz not null
);
create index endpoints_by_tenant on mailfleet.endpoints (tenant_id, endpoint_id);
create index endpoints_due on mailfleet.endpoints (next_at) where state = 'active';

-- What signs the posts, sealed. One that was rotated out signs along until it expires.
create table mailfleet.endpoint_secrets (
    endpoint_id uuid not null references mailfleet.endpoints on delete cascade,
    number integer not null,
    sealed bytea not null,
    expires_at timestamptz,
    primary key (endpoint_id, number)
);

-- Events that an endpoint refused while it took others: each is tried again by itself, and behind it every later event
-- of its message, so that these stay in order. dead: given up.
create table mailfleet.endpoint_events (
    endpoint_id uuid not null references mailfleet.endpoints on delete cascade,
    seq bigint not null,
    message_id uuid not null,
    tries integer not null,
    next_at timestamptz not null,
    error text not null,
    dead boolean not null default false,
    primary key (endpoint_id, seq)
);
create index endpoint_events_due on mailfleet.endpoint_events (endpoint_id, next_at, seq) where not dead;
