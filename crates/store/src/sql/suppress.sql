-- The transaction that suppresses recipients also closes what is waiting or released for them in these lanes. What is
-- known to be delivered ends as that.
with present as materialized (
    select mailfleet.clock() as now
), rest as materialized (
    select w.ctid as row, w.message_id, w.release_no, w.queue_id, w.site
    from mailfleet.waiting w
    where w.address_hash = any ($1::uuid[])
      and exists (select from mailfleet.queues q
                  where q.queue_id = w.queue_id and q.lane = any ($3::smallint[])
                    and ($2 = '00000000-0000-0000-0000-000000000000'::uuid or q.tenant_id = $2))
    order by w.message_id
    for update of w
), travel as materialized (
    select m.ctid as row, m.message_id, m.release_no, m.queue_id, m.site
    from mailfleet.moving m
    where m.address_hash = any ($1::uuid[]) and m.state = 1 and m.lane = any ($3::smallint[])
      and ($2 = '00000000-0000-0000-0000-000000000000'::uuid or m.tenant_id = $2)
    order by m.message_id
    for update
), gone_rest as (
    delete from mailfleet.waiting where ctid = any (array(select row from rest)) returning message_id
), gone_travel as (
    delete from mailfleet.moving where ctid = any (array(select row from travel)) returning message_id
)
insert into mailfleet.facts (message_id, kind, ordinal, closing, release_no, queue_id, site, at, detail)
select f.message_id, 2, 0,
       case when exists (select from mailfleet.marks k where k.subject_id = f.message_id and k.kind = 2) then 1
            else 5 end::smallint,
       f.release_no, f.queue_id, f.site, present.now, '{}'
from present, (select * from rest union all select * from travel) as f
where f.message_id in (select message_id from gone_rest union all select message_id from gone_travel)
returning message_id
