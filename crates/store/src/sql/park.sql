-- Park: released rows that nobody can send now rest again. No attempt is counted, nothing was lost.
-- A queue or site of null keeps the row's own.
with present as materialized (
    select mailfleet.clock() as now
), found as materialized (
    select m.*, a.delay, a.new_queue_id, a.new_site, present.now
    from present, unnest($1::uuid[], $2::integer[], $3::double precision[], $4::bigint[], $5::text[])
        as a(message_id, release_no, delay, new_queue_id, new_site)
    cross join lateral (
        select m.ctid as row, m.*
        from mailfleet.moving m
        where m.message_id = a.message_id and m.release_no = a.release_no and m.state = 1
        for update
    ) as m
), gone as (
    delete from mailfleet.moving where ctid = any (array(select row from found))
)
insert into mailfleet.waiting
    (queue_id, due, message_id, batch_id, address_hash, expires_at, release_no, attempt, losses, site)
select coalesce(new_queue_id, queue_id), least(now + delay * interval '1 second', expires_at), message_id, batch_id,
       address_hash, expires_at, release_no, attempt, 0, coalesce(new_site, site)
from found
order by 1, message_id
returning message_id
