-- What came back about mails becomes facts, each once: where the message is kept, and neither the outbox nor the log
-- has the same from the same source. Tenant, campaign and lane are those of the queue: a message that is in the log is
-- found by its first or last entry there, one that is not yet by its facts. Site and route are those of its end.
with given as materialized (
    select * from unnest($1::uuid[], $2::smallint[], $3::integer[], $4::timestamptz[], $5::jsonb[])
        as g(message_id, kind, ordinal, at, detail)
), known as materialized (
    select g.*, m.tenant_id, m.recipient, coalesce(open.queue_id, fresh.queue_id, closed.queue_id, logged.queue_id) as queue_id,
           coalesce(closed.site, logged.site, fresh.site, open.site, '') as site,
           coalesce(closed.route, logged.route, '') as route
    from given g
    join lateral (select tenant_id, recipient from mailfleet.messages m where m.message_id = g.message_id) as m on true
    left join lateral (
        select queue_id, site from mailfleet.moving v where v.message_id = g.message_id
    ) as open on true
    left join lateral (
        select queue_id, site from mailfleet.facts f where f.message_id = g.message_id and f.kind = 1 limit 1
    ) as fresh on true
    left join lateral (
        select queue_id, site, detail ->> 'route' as route from mailfleet.facts f
        where f.message_id = g.message_id and f.kind = 2 limit 1
    ) as closed on true
    left join lateral (
        select q.queue_id, e.site, e.route
        from mailfleet.message_events e
        left join lateral (
            select queue_id from mailfleet.queues q
            where q.tenant_id = e.tenant_id and q.lane = e.lane
              and q.campaign_id = coalesce(e.campaign_id, '00000000-0000-0000-0000-000000000000')
            order by queue_id limit 1
        ) as q on true
        where e.message_id = g.message_id and e.kind in (1, 2)
        order by e.kind desc limit 1
    ) as logged on true
), written as (
    insert into mailfleet.facts (message_id, kind, ordinal, closing, release_no, queue_id, site, at, detail)
    select k.message_id, k.kind, k.ordinal, null, 0, k.queue_id, k.site, k.at,
           case when k.route = '' then k.detail else k.detail || jsonb_build_object('route', k.route) end
    from known k
    where k.queue_id is not null
      and not exists (select from mailfleet.message_events e
                      where e.message_id = k.message_id and e.kind = k.kind and e.ordinal = k.ordinal)
      and not exists (select from mailfleet.facts f
                      where f.message_id = k.message_id and f.kind = k.kind and f.ordinal = k.ordinal)
    order by k.message_id, k.kind, k.ordinal
    returning message_id, kind, ordinal
)
select k.message_id as "message_id!", k.kind as "kind!", k.ordinal as "ordinal!", k.tenant_id as "tenant_id!",
       k.recipient as "recipient!",
       exists (select from written w where w.message_id = k.message_id and w.kind = k.kind and w.ordinal = k.ordinal)
           as "fresh!"
from known k
