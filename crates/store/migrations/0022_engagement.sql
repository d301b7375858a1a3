-- What answers a mail, for analysts. A message is one recipient, so what is said of messages is unique by recipient.
-- Kinds of the log (domain::fact): 7 returned, 8 complained, 9 returned_soft, 10 returned_block, 11 opened, 12
-- opened_machine, 13 clicked, 14 clicked_machine, 15 unsubscribed, 16 resubscribed, 17 confirmed.
create view mailfleet.message_engagement as
select message_id, (array_agg(tenant_id))[1] as tenant_id, (array_agg(campaign_id))[1] as campaign_id,
       (array_agg(template_id))[1] as template_id, min(lane) as lane, max(site) filter (where kind = 2) as site,
       min(at) filter (where kind = 1) as accepted_at,
       min(at) filter (where kind = 2 and closing = 1) as delivered_at,
       count(*) filter (where kind in (11, 12)) as opens,
       count(*) filter (where kind = 11) as human_opens,
       min(at) filter (where kind = 11) as first_human_open_at,
       count(*) filter (where kind in (13, 14)) as clicks,
       count(*) filter (where kind = 13) as human_clicks,
       min(at) filter (where kind = 13) as first_human_click_at,
       bool_or(kind = 15) as unsubscribed,
       bool_or(kind = 8) as complained,
       bool_or(kind = 7) as returned,
       bool_or(kind = 9) as returned_soft,
       bool_or(kind = 10) as returned_block
from mailfleet.message_events
group by message_id;

create view mailfleet.campaign_engagement as
select tenant_id, campaign_id, count(*) as accepted,
       count(delivered_at) as delivered,
       sum(opens)::bigint as opens,
       count(*) filter (where opens > 0) as unique_opens,
       count(*) filter (where human_opens > 0) as unique_human_opens,
       sum(clicks)::bigint as clicks,
       count(*) filter (where clicks > 0) as unique_clicks,
       count(*) filter (where human_clicks > 0) as unique_human_clicks,
       count(*) filter (where unsubscribed) as unsubscribed,
       count(*) filter (where complained) as complained,
       count(*) filter (where returned) as returned,
       count(*) filter (where returned_soft) as returned_soft,
       count(*) filter (where returned_block) as returned_block
from mailfleet.message_engagement
group by tenant_id, campaign_id;
