-- Closes messages that rest or travel; what is being sent is left to its record, which looks at the same marks.
-- What is known to be delivered ends as that, whatever it is closed for.
with present as materialized (
    select mailfleet.clock() as now
), rest as materialized (
    select w.*
    from unnest($1::uuid[]) as a(message_id)
    cross join lateral (select w.ctid as row, w.message_id, w.release_no, w.queue_id, w.site
                        from mailfleet.waiting w where w.message_id = a.message_id for update) as w
), travel as materialized (
    select m.*
    from unnest($1::uuid[]) as a(message_id)
    cross join lateral (select m.ctid as row, m.message_id, m.release_no, m.queue_id, m.site
                        from mailfleet.moving m where m.message_id = a.message_id and m.state = 1 for update) as m
), gone_rest as (
    delete from mailfleet.waiting where ctid = any (array(select row from rest)) returning message_id
), gone_travel as (
    delete from mailfleet.moving where ctid = any (array(select row from travel)) returning message_id
)
insert into mailfleet.facts (message_id, kind, ordinal, closing, release_no, queue_id, site, at, detail)
select f.message_id, 2, 0,
       case when exists (select from mailfleet.marks k where k.subject_id = f.message_id and k.kind = 2) then 1
            else $2::smallint end::smallint,
       f.release_no, f.queue_id, f.site, present.now, $3::text::jsonb
from present, (select * from rest union all select * from travel) as f
where f.message_id in (select message_id from gone_rest union all select message_id from gone_travel)
returning message_id
