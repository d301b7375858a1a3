-- Insert-only. Partitioned by message id: a UUIDv7, so by day, and one look-up touches one partition.
create table mailfleet.messages (
    message_id uuid not null primary key,
    tenant_id uuid not null,
    campaign_id uuid,
    batch_id uuid not null,
    content_id uuid not null,
    recipient text not null,
    -- json, not jsonb: the text goes to the renderer as it came, and nothing is parsed twice.
    variables json not null,
    expires_at timestamptz not null
) partition by range (message_id);

-- One accepted call. The ids of its messages derive from the batch id and their position below `size`.
create table mailfleet.batches (
    batch_id uuid primary key,
    tenant_id uuid not null,
    campaign_id uuid,
    size integer not null,
    created_at timestamptz not null
);

-- The stored answer of a call: enough to give it again, not ten thousand ids.
create table mailfleet.idempotency (
    tenant_id uuid not null,
    key text not null,
    digest bytea not null,
    batch_id uuid not null,
    size integer not null,
    refused jsonb not null,
    expires_at timestamptz not null,
    primary key (tenant_id, key)
);
create index idempotency_by_expiry on mailfleet.idempotency (expires_at);
