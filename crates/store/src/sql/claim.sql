-- Claim: released rows of a live shard lease become sending. The same statement refuses what must not go: it
-- closes known-delivered, cancelled, suppressed and expired rows and puts paused ones back.
-- Rows that do not come back were stale: another release or claim has them.
with present as materialized (
    select mailfleet.clock() as now
    from mailfleet.leases l
    where l.name = $1 and l.epoch = $2 and l.until > mailfleet.clock()
), candidate as materialized (
    select m.*, present.now
    from present, unnest($3::uuid[], $4::integer[]) as a(message_id, release_no)
    cross join lateral (
        select m.ctid as row, m.*
        from mailfleet.moving m
        where m.message_id = a.message_id and m.release_no = a.release_no and m.state = 1
        for update
    ) as m
), judged as materialized (
    select c.*,
           case
               when exists (select from mailfleet.marks k where k.subject_id = c.message_id and k.kind = 2) then 1
               when exists (select from mailfleet.marks k
                            where k.subject_id = any (array[c.message_id, c.batch_id]) and k.kind = 1) then 4
               when exists (select from mailfleet.suppressions s
                            where s.address_hash = c.address_hash and (not s.bulk_only or c.lane = 1)
                              and s.tenant_id = any (array[c.tenant_id, '00000000-0000-0000-0000-000000000000'::uuid]))
                   then 5
               when c.expires_at <= c.now then 3
               when exists (select from mailfleet.pauses)
                   and mailfleet.is_paused((select q from mailfleet.queues q where q.queue_id = c.queue_id))
                   then 100
               when exists (select from mailfleet.pauses p where p.site = c.site) then 101
               else 0
           end::smallint as verdict
    from candidate c
), claimed as (
    update mailfleet.moving
    set state = 2, epoch = $2, since = (select now from present)
    where ctid = any (array(select row from judged where verdict = 0))
), gone as (
    delete from mailfleet.moving where ctid = any (array(select row from judged where verdict <> 0))
), rested as (
    insert into mailfleet.waiting
        (queue_id, due, message_id, batch_id, address_hash, expires_at, release_no, attempt, losses, site)
    -- Releases of a paused queue stop by themselves. A paused site may share its queue with others: look again later.
    select queue_id, case verdict when 100 then now else least(now + interval '30 seconds', expires_at) end, message_id,
           batch_id, address_hash, expires_at, release_no, attempt, 0, site
    from judged
    where verdict >= 100
    order by queue_id, message_id
), closed as (
    insert into mailfleet.facts (message_id, kind, ordinal, closing, release_no, queue_id, site, at, detail)
    select message_id, 2, 0, verdict, release_no, queue_id, site, now, '{}'
    from judged
    where verdict between 1 and 7
)
select message_id as "message_id!", release_no as "release_no!", verdict as "verdict!" from judged
