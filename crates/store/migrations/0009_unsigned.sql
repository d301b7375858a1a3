-- A relay that signs itself makes ours one signature too many. Said here, since a domain without keys by mistake
-- must not send.
alter table mailfleet.sending_domains add column unsigned boolean not null default false;
