-- A suppression may keep bulk mail alone from a recipient: who wants no newsletter still resets his password. One
-- row per address and tenant, with the widest scope that was asked for: the claim looks at the row it has found.
-- cause: 1 hard bounce, 2 complaint, 3 unsubscribe, 4 manual.
alter table mailfleet.suppressions
    add column bulk_only boolean not null default false,
    add column cause smallint not null default 4 check (cause between 1 and 4);
update mailfleet.suppressions
set cause = case reason when 'hard_bounce' then 1 when 'complaint' then 2 else 3 end
where reason in ('hard_bounce', 'complaint', 'unsubscribe');

-- For lists and exports of one tenant.
create index suppressions_by_tenant on mailfleet.suppressions (tenant_id, created_at, address_hash);
