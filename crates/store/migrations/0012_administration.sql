-- What operators do to tenants, keys and domains, and who did it.

-- Every administrative change writes its row in its own transaction. No address, no secret; kept for ever, since
-- changes are few. tenant_id null: the fleet's. api_key_id null: an operator's command at the database itself.
create table mailfleet.audit_events (
    audit_id bigint generated always as identity primary key,
    tenant_id uuid,
    api_key_id uuid,
    call text not null,
    resource text not null,
    at timestamptz not null
);
create index audit_events_by_tenant on mailfleet.audit_events (tenant_id, audit_id);

-- A key's secrets before its rotations, each good until its own grace ends.
alter table mailfleet.api_keys
    add column previous_sha256 bytea[] not null default '{}',
    add column previous_until timestamptz[] not null default '{}',
    add column rotated_at timestamptz,
    add check (cardinality(previous_sha256) = cardinality(previous_until));

-- What a tenant may send; null: no limit.
alter table mailfleet.tenants
    add column recipients_per_hour bigint check (recipients_per_hour > 0),
    add column recipients_per_day bigint check (recipients_per_day > 0),
    add column max_backlog bigint check (max_backlog > 0);

-- How much of a quota has been lent to the instances of ingest in the hour (period 1) or day (period 2) that begins
-- at bucket. A row is written when an instance borrows, not when it accepts.
create table mailfleet.quota_loans (
    tenant_id uuid not null,
    period smallint not null check (period in (1, 2)),
    bucket timestamptz not null,
    lent bigint not null,
    primary key (tenant_id, period)
);

-- A key that is neither active nor retired is pending: published first, it signs nothing yet.
alter table mailfleet.dkim_keys
    add column activated_at timestamptz,
    add column retired_at timestamptz,
    add check (not (active and retired_at is not null));
update mailfleet.dkim_keys set activated_at = created_at where active;
update mailfleet.dkim_keys set activated_at = created_at, retired_at = now() where not active;
