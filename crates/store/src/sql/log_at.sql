-- Log: these entries of a tenant, with the messages that they happened to.
select e.seq as "seq!", e.kind as "kind!", e.closing as "closing?", e.ordinal as "ordinal!", e.at as "at!",
       e.detail as "detail!", e.tenant_id as "tenant_id!", e.campaign_id as "campaign_id?", e.lane as "lane!",
       e.site as "site!", e.message_id as "message_id!", m.batch_id as "batch_id!", m.recipient as "recipient!", m.overrides::text as overrides, b.labels as "labels?"
from mailfleet.message_events e
cross join lateral (
    select m.batch_id, m.recipient, m.overrides from mailfleet.messages m where m.message_id = e.message_id
) as m
left join mailfleet.batches b on b.batch_id = m.batch_id
where e.seq = any ($1) and e.tenant_id = $2
order by e.seq
