-- Claims whose owner's epoch is gone are in doubt: their final dot may have gone out.
with present as materialized (
    select mailfleet.clock() as now
), found as materialized (
    select m.ctid as row, m.*, present.now
    from present, mailfleet.moving m
    where m.state = 2
      and not exists (select from mailfleet.leases l
                      where l.epoch = m.epoch and l.until > present.now - $1 * interval '1 second')
      and m.since < present.now - $1 * interval '1 second'
    limit $2
    for update of m skip locked
), doubted as (
    update mailfleet.moving
    set state = 3, attempt = attempt + 1, since = (select now from present)
    where ctid = any (array(select row from found))
)
insert into mailfleet.facts (message_id, kind, ordinal, release_no, queue_id, site, at, detail)
select message_id, 4, release_no, release_no, queue_id, site, now, '{"text": "the sender went away during the attempt"}'
from found
returning message_id
