-- Fold: facts become log entries with the next sequence numbers, are counted, and are gone: all or nothing. The
-- caller holds the row of log_state, so no other fold inserts between the look and the numbering.
with taken as materialized (
    delete from mailfleet.facts
    where fact_id = any (array(
        select fact_id from mailfleet.facts where fact_id >= $1 order by fact_id limit $2))
    returning *
), fresh as materialized (
    select distinct on (t.message_id, t.kind, t.ordinal) t.*
    from taken t
    where not exists (select from mailfleet.message_events e
                      where e.message_id = t.message_id and e.kind = t.kind and e.ordinal = t.ordinal)
    order by t.message_id, t.kind, t.ordinal, t.fact_id
), numbered as materialized (
    select f.*, $3::bigint + row_number() over (order by f.fact_id) as seq, q.tenant_id,
           nullif(q.campaign_id, '00000000-0000-0000-0000-000000000000') as campaign_id, q.lane,
           coalesce(f.detail ->> 'route', '') as route, b.template_id
    from fresh f
    -- A queue that is not there would make tenant_id null and stop the fold loudly: better than to lose a fact.
    left join lateral (select * from mailfleet.queues q where q.queue_id = f.queue_id) as q on true
    left join lateral (select * from mailfleet.messages m where m.message_id = f.message_id) as m on true
    left join lateral (select * from mailfleet.batches b where b.batch_id = m.batch_id) as b on true
), logged as (
    insert into mailfleet.message_events
        (message_id, kind, ordinal, seq, closing, release_no, tenant_id, campaign_id, template_id, lane, site, route,
         at, detail)
    select message_id, kind, ordinal, seq, closing, release_no, tenant_id, campaign_id, template_id, lane, site, route,
           at, detail
    from numbered
    order by message_id, kind, ordinal
), counted as (
    insert into mailfleet.rollup_minute as r
        (bucket, tenant_id, campaign_id, template_id, lane, site, route, kind, closing, events)
    select date_trunc('minute', at, 'UTC'), tenant_id,
           coalesce(campaign_id, '00000000-0000-0000-0000-000000000000'),
           coalesce(template_id, '00000000-0000-0000-0000-000000000000'), lane, site, route, kind,
           coalesce(closing, 0), count(*)
    from numbered
    group by 1, 2, 3, 4, 5, 6, 7, 8, 9
    order by 1, 2, 3, 4, 5, 6, 7, 8, 9
    on conflict (bucket, tenant_id, campaign_id, template_id, lane, site, route, kind, closing)
    do update set events = r.events + excluded.events
), advanced as (
    update mailfleet.log_state set seq = $3::bigint + (select count(*) from numbered)
    where exists (select from numbered)
)
select count(*) as "taken!", (select count(*) from numbered) as "logged!", min(fact_id) as lowest, max(fact_id) as highest
from taken
