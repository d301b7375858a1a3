-- Release: what is due leaves `waiting` for `moving` under the next release number. Cancelled, expired and
-- known-delivered rows met on the way are closed instead, so that they never sit at a queue's head.
-- The lower bound of a queue keeps index entries of rows long released out of the scan.
with present as materialized (
    select mailfleet.clock() as now, epoch as bus_epoch from mailfleet.bus_state
), quota as materialized (
    select a.queue_id, a.quota, a.lower, q.tenant_id, q.campaign_id, q.lane, q.slot
    from unnest($1::bigint[], $2::bigint[], $3::timestamptz[]) as a(queue_id, quota, lower)
    cross join lateral (select * from mailfleet.queues q where q.queue_id = a.queue_id) as q
    where not mailfleet.is_paused(q::mailfleet.queues)
), picked as materialized (
    select w.*, quota.tenant_id, quota.campaign_id, quota.lane, quota.slot, present.now, present.bus_epoch
    from present, quota
    cross join lateral (
        select w.ctid as row, w.*
        from mailfleet.waiting w
        where w.queue_id = quota.queue_id and w.due >= quota.lower and w.due <= (select now from present)
        order by w.due, w.message_id
        limit quota.quota
        for update skip locked
    ) as w
), judged as materialized (
    select p.*,
           case
               when exists (select from mailfleet.marks k where k.subject_id = p.message_id and k.kind = 2) then 1
               when exists (select from mailfleet.marks k
                            where k.subject_id = any (array[p.message_id, p.batch_id]) and k.kind = 1) then 4
               when p.expires_at <= p.now then 3
           end::smallint as closing
    from picked p
), taken as (
    delete from mailfleet.waiting where ctid = any (array(select row from picked))
), moved as (
    insert into mailfleet.moving
        (message_id, queue_id, tenant_id, batch_id, address_hash, expires_at, lane, slot, state, release_no, attempt,
         losses, bus_epoch, since, site)
    select message_id, queue_id, tenant_id, batch_id, address_hash, expires_at, lane, slot, 1, release_no + 1, attempt,
           losses, bus_epoch, now, site
    from judged
    where closing is null
    order by message_id
), closed as (
    insert into mailfleet.facts (message_id, kind, ordinal, closing, release_no, queue_id, site, at, detail)
    select message_id, 2, 0, closing, release_no, queue_id, site, now,
           case when closing = 3 and last_reply is not null then jsonb_build_object('text', last_reply) else '{}' end
    from judged
    where closing is not null
)
select j.message_id as "message_id!", j.release_no + 1 as "release_no!", j.attempt as "attempt!", j.losses as "losses!",
       j.queue_id as "queue_id!", j.tenant_id as "tenant_id!", j.batch_id as "batch_id!", j.lane as "lane!",
       j.slot as "slot!", j.site as "site!", j.expires_at as "expires_at!", j.due as "due!", j.bus_epoch as "bus_epoch!",
       j.closing, m.campaign_id, m.content_id as "content_id!", m.recipient as "recipient!",
       m.variables::text as "variables!", m.overrides::text as overrides, m.trace
from judged j
cross join lateral (select * from mailfleet.messages m where m.message_id = j.message_id) as m
