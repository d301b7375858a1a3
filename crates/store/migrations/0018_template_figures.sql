-- Figures are told apart by template as well. The call says which one its mail is made from (null: none); the fold
-- looks it up once for each fact, so what is on its way carries nothing more. The nil template of a roll-up: none.
alter table mailfleet.batches add column template_id uuid;
alter table mailfleet.message_events add column template_id uuid;

alter table mailfleet.rollup_minute
    add column template_id uuid not null default '00000000-0000-0000-0000-000000000000',
    drop constraint rollup_minute_pkey,
    add primary key (bucket, tenant_id, campaign_id, template_id, lane, site, route, kind, closing);
alter table mailfleet.rollup_hour
    add column template_id uuid not null default '00000000-0000-0000-0000-000000000000',
    drop constraint rollup_hour_pkey,
    add primary key (bucket, tenant_id, campaign_id, template_id, lane, site, route, kind, closing);
alter table mailfleet.rollup_day
    add column template_id uuid not null default '00000000-0000-0000-0000-000000000000',
    drop constraint rollup_day_pkey,
    add primary key (bucket, tenant_id, campaign_id, template_id, lane, site, route, kind, closing);
