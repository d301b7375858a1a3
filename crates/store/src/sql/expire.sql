-- Closes what outlived its time to live while it rested in a queue that releases little or nothing. What is known
-- to be delivered ends as that.
with present as materialized (
    select mailfleet.clock() as now
), found as materialized (
    select w.*, present.now
    from present, unnest($1::bigint[]) as a(queue_id)
    cross join lateral (
        select w.ctid as row, w.message_id, w.release_no, w.queue_id, w.site, w.last_reply
        from mailfleet.waiting w
        where w.queue_id = a.queue_id and w.due <= present.now and w.expires_at <= present.now
        limit $2
        for update skip locked
    ) as w
), gone as (
    delete from mailfleet.waiting where ctid = any (array(select row from found))
), judged as materialized (
    select f.*,
           case when exists (select from mailfleet.marks k where k.subject_id = f.message_id and k.kind = 2) then 1
                else 3 end::smallint as closing
    from found f
)
insert into mailfleet.facts (message_id, kind, ordinal, closing, release_no, queue_id, site, at, detail)
select message_id, 2, 0, closing, release_no, queue_id, site, now,
       case when closing = 3 and last_reply is not null then jsonb_build_object('text', last_reply) else '{}' end
from judged
returning message_id
