-- Since when DNS is known to have what a sending domain needs. Domains from before are as good as they were.
alter table mailfleet.sending_domains add column verified_at timestamptz;
update mailfleet.sending_domains set verified_at = created_at;
