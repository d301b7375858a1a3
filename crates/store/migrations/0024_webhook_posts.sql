-- Posts of providers that have been taken in, so that one that comes again is known; forgotten once no provider repeats it.
create table mailfleet.webhook_posts (
    key text primary key,
    expires_at timestamptz not null
);
create index webhook_posts_by_expiry on mailfleet.webhook_posts (expires_at);
