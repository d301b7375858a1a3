-- Repair: what was released too long ago, or under an older bus epoch, went missing on the way. It rests again,
-- by compare-and-set on its state; a copy of the job that turns up later finds another release number and loses.
-- Only losses that the broker's absence does not explain count towards poison. What is known to be delivered rests,
-- however often it was lost: the next release closes it as that.
with present as materialized (
    select mailfleet.clock() as now, epoch as bus_epoch from mailfleet.bus_state
), found as materialized (
    select m.ctid as row, m.*, present.now, (m.bus_epoch = present.bus_epoch)::integer as counted,
           m.losses + (m.bus_epoch = present.bus_epoch)::integer >= $3
               and not exists (select from mailfleet.marks k where k.subject_id = m.message_id and k.kind = 2) as poison
    from present, mailfleet.moving m
    where m.state = 1
      and (m.bus_epoch < present.bus_epoch or m.since < present.now - $1 * interval '1 second')
    limit $2
    for update of m skip locked
), gone as (
    delete from mailfleet.moving where ctid = any (array(select row from found))
), rested as (
    insert into mailfleet.waiting
        (queue_id, due, message_id, batch_id, address_hash, expires_at, release_no, attempt, losses, site)
    select queue_id, now, message_id, batch_id, address_hash, expires_at, release_no, attempt, losses + counted, site
    from found
    where not poison
    order by queue_id, message_id
), facts as (
    insert into mailfleet.facts (message_id, kind, ordinal, closing, release_no, queue_id, site, at, detail)
    select message_id, 5, release_no, null, release_no, queue_id, site, now, '{}'::jsonb from found
    union all
    select message_id, 2, 0, 6, release_no, queue_id, site, now, '{"text": "lost too often between release and claim"}'
    from found
    where poison
)
select lane as "lane!", counted = 1 as "counted!", poison as "poison!" from found
