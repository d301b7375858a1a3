-- Where a message's trace began (domain::TraceContext, 25 octets); null: nobody traces it.
alter table mailfleet.messages add column trace bytea check (length(trace) = 25);
