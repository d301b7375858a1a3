-- Accept: message, its first place (waiting, or released when it has no due time) and its first fact, in one
-- statement. A repeated message id inserts nothing, so nothing that was closed comes back.
with given as (
    select *
    from unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::timestamptz[],
                $9::bigint[], $10::timestamptz[], $11::uuid[], $12::smallint[], $13::smallint[], $14::text[],
                $16::text[], $17::bytea[])
        as g(message_id, tenant_id, campaign_id, batch_id, content_id, recipient, variables, expires_at,
             queue_id, due, address_hash, lane, slot, site, overrides, trace)
), stored as (
    insert into mailfleet.messages
        (message_id, tenant_id, campaign_id, batch_id, content_id, recipient, variables, expires_at, overrides,
         trace)
    select message_id, tenant_id, campaign_id, batch_id, content_id, recipient, variables::json, expires_at,
           overrides::json, trace
    from given
    order by message_id
    on conflict do nothing
    returning message_id
), fresh as materialized (
    select g.* from given g join stored using (message_id)
), rested as (
    insert into mailfleet.waiting
        (queue_id, due, message_id, batch_id, address_hash, expires_at, release_no, attempt, losses, site)
    select queue_id, due, message_id, batch_id, address_hash, expires_at, 0, 0, 0, site
    from fresh
    where due is not null
    order by queue_id, due, message_id
), released as (
    insert into mailfleet.moving
        (message_id, queue_id, tenant_id, batch_id, address_hash, expires_at, lane, slot, state, release_no, attempt,
         losses, bus_epoch, since, site)
    select message_id, queue_id, tenant_id, batch_id, address_hash, expires_at, lane, slot, 1, 1, 0,
           0, (select epoch from mailfleet.bus_state), mailfleet.clock(), site
    from fresh
    where due is null
    order by message_id
)
insert into mailfleet.facts (message_id, kind, ordinal, release_no, queue_id, site, at, detail)
select message_id, 1, 0, 0, queue_id, site, $15, '{}'
from fresh
order by message_id
