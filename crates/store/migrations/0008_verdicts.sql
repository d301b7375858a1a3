-- The questions that release, claim and record all ask, written once.
-- Whether a queue is paused: some pause matches it in all the columns that it names.
create function mailfleet.is_paused(q mailfleet.queues) returns boolean language sql stable as
$$
    select exists (
        select from mailfleet.pauses p
        where (p.tenant_id is null or p.tenant_id = q.tenant_id)
          and (p.campaign_id is null or p.campaign_id = q.campaign_id)
          and (p.queue_id is null or p.queue_id = q.queue_id)
          and (p.slot is null or p.slot = q.slot)
          and (p.site is null or p.site = q.site)
    )
$$;
