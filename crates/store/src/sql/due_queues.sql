-- Queues that hold something due, with their first due time; $1 and $2 are lower bounds that the caller knows.
select q.queue_id, q.tenant_id, q.campaign_id, q.lane, q.slot, q.site, q.weight, w.due as "first_due!"
from mailfleet.queues q
left join unnest($1::bigint[], $2::timestamptz[]) as known(queue_id, lower) on known.queue_id = q.queue_id
cross join lateral (
    select w.due
    from mailfleet.waiting w
    where w.queue_id = q.queue_id and w.due >= coalesce(known.lower, '-infinity')
      and w.due <= (select mailfleet.clock())
    order by w.due
    limit 1
) as w
where not mailfleet.is_paused(q)
