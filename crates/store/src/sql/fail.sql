-- Fail: released rows that cannot be rendered are closed. One that is known to be delivered is left to the
-- dispatcher, which closes it as that.
with present as materialized (
    select mailfleet.clock() as now
), found as materialized (
    select m.*, a.detail, present.now
    from present, unnest($1::uuid[], $2::integer[], $3::text[]) as a(message_id, release_no, detail)
    cross join lateral (
        select m.ctid as row, m.*
        from mailfleet.moving m
        where m.message_id = a.message_id and m.release_no = a.release_no and m.state = 1
          and not exists (select from mailfleet.marks k where k.subject_id = m.message_id and k.kind = 2)
        for update
    ) as m
), gone as (
    delete from mailfleet.moving where ctid = any (array(select row from found))
)
insert into mailfleet.facts (message_id, kind, ordinal, closing, release_no, queue_id, site, at, detail)
select message_id, 2, 0, 6, release_no, queue_id, site, now, detail::jsonb
from found
order by message_id
returning message_id
