-- Record: what became of claims, by compare-and-set on (id, release number, epoch). outcome: 1 delivered,
-- 2 bounced, 10 deferred, 11 in doubt, 12 given back (no dot went out, no attempt counted).
-- A known-delivered message ends as delivered whatever this attempt came to; a cancelled one rests no more.
with present as materialized (
    select mailfleet.clock() as now
), found as materialized (
    select m.*, a.outcome, present.now + a.wait * interval '1 second' as due, a.detail, present.now
    from present, unnest($1::uuid[], $2::integer[], $3::bigint[], $4::smallint[], $5::double precision[], $6::text[])
        as a(message_id, release_no, epoch, outcome, wait, detail)
    cross join lateral (
        select m.ctid as row, m.*
        from mailfleet.moving m
        where m.message_id = a.message_id and m.release_no = a.release_no and m.epoch = a.epoch and m.state = 2
        for update
    ) as m
), judged as materialized (
    select f.*,
           case
               when f.outcome = 1 then 1
               when exists (select from mailfleet.marks k where k.subject_id = f.message_id and k.kind = 2) then 1
               when f.outcome in (2, 11) then nullif(f.outcome, 11)
               when exists (select from mailfleet.marks k
                            where k.subject_id = any (array[f.message_id, f.batch_id]) and k.kind = 1) then 4
               when f.expires_at <= greatest(f.now, case when f.outcome = 10 then f.due end) then 3
           end::smallint as closing
    from found f
), gone as (
    delete from mailfleet.moving
    where ctid = any (array(select row from judged where closing is not null or outcome <> 11))
), doubted as (
    update mailfleet.moving
    set state = 3, attempt = attempt + 1, since = (select now from present)
    where ctid = any (array(select row from judged where closing is null and outcome = 11))
), rested as (
    insert into mailfleet.waiting
        (queue_id, due, message_id, batch_id, address_hash, expires_at, release_no, attempt, losses, site, last_reply)
    select queue_id, coalesce(due, now), message_id, batch_id, address_hash, expires_at, release_no,
           attempt + (outcome = 10)::integer, 0, site, left(detail::jsonb ->> 'text', 500)
    from judged
    where closing is null and outcome <> 11
    order by queue_id, message_id
), facts as (
    insert into mailfleet.facts (message_id, kind, ordinal, closing, release_no, queue_id, site, at, detail)
    -- The attempt before the end that it met: the log keeps this order.
    select message_id, case outcome when 10 then 3 else 4 end, release_no, null::smallint, release_no, queue_id, site,
           now, detail::jsonb
    from judged
    where outcome in (10, 11)
    union all
    select message_id, 2, 0, closing, release_no, queue_id, site, now, detail::jsonb
    from judged
    where closing is not null
)
select message_id as "message_id!", release_no as "release_no!", closing from judged
