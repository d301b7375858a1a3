-- Lists walk over the calls of a tenant, newest first; the ids of a call's messages derive from its own. So the list
-- costs one entry a call, however many recipients it has (130 octets of log and 1 to 6 µs), and the messages themselves
-- need no index beside their key.
create index batches_by_tenant on mailfleet.batches (tenant_id, batch_id);
-- Calls without a campaign, as most transactional ones are, do not pay for it.
create index batches_by_campaign on mailfleet.batches (campaign_id, batch_id) where campaign_id is not null;
