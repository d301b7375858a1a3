-- Messages that ended as failed, for whoever looks at them; the log's other entries are not in this index.
create index message_events_failed on mailfleet.message_events (tenant_id, seq) where kind = 2 and closing = 6;

-- Which message a dead letter was sent again as: once, since the old one is the key.
create table mailfleet.requeued (
    message_id uuid primary key,
    new_message_id uuid not null,
    at timestamptz not null
);
