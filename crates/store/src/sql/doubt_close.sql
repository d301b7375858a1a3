-- The doubt rule: send again or stop and say unknown, by lane; what is known delivered closes as that.
with present as materialized (
    select mailfleet.clock() as now
), found as materialized (
    select m.ctid as row, m.*, present.now
    from present, mailfleet.moving m
    where m.state = 3
    limit $2
    for update of m skip locked
), judged as materialized (
    select f.*,
           case
               when exists (select from mailfleet.marks k where k.subject_id = f.message_id and k.kind = 2) then 1
               when exists (select from mailfleet.marks k
                            where k.subject_id = any (array[f.message_id, f.batch_id]) and k.kind = 1) then 4
               when not f.lane = any ($1::smallint[]) then 7
           end::smallint as closing
    from found f
), gone as (
    delete from mailfleet.moving where ctid = any (array(select row from found))
), rested as (
    insert into mailfleet.waiting
        (queue_id, due, message_id, batch_id, address_hash, expires_at, release_no, attempt, losses, site, last_reply)
    -- The first doubt is mostly a sender's crash and goes again at once. A receiver that takes each copy and never
    -- answers would get one after the other: the more attempts there were, the longer the rest.
    select queue_id,
           case when attempt <= 1 then now
                else least(now + interval '5 minutes' * power(2, least(attempt, 8) - 2), expires_at) end,
           message_id, batch_id, address_hash, expires_at, release_no, attempt, 0, site,
           'no reply after the final dot'
    from judged
    where closing is null
    order by 1, message_id
), facts as (
    insert into mailfleet.facts (message_id, kind, ordinal, closing, release_no, queue_id, site, at, detail)
    select message_id, 2, 0, closing, release_no, queue_id, site, now, '{}'
    from judged
    where closing is not null
)
select message_id as "message_id!", closing from judged
