-- What a site has said about the pace it is sent to. A row here lowers what is configured: the next owner of the site
-- goes on from it. The nil tenant and campaign: all mail of the route to the site; else the route is '' and the row
-- suspends their mail alone.
create table mailfleet.tempos (
    site text not null,
    route text not null,
    tenant_id uuid not null,
    campaign_id uuid not null,
    rate double precision,
    climbs_at timestamptz,
    connections integer,
    connections_until timestamptz,
    messages_per_connection integer,
    messages_per_connection_until timestamptz,
    suspended_until timestamptz,
    changed_at timestamptz not null,
    primary key (site, route, tenant_id, campaign_id)
);

-- Every change of it with its cause: the rule and the reply, an end by itself ('recovered'), or an operator ('lifted').
create table mailfleet.tempo_changes (
    change_id bigint generated always as identity primary key,
    at timestamptz not null,
    site text not null,
    route text not null,
    tenant_id uuid not null,
    campaign_id uuid not null,
    cause text not null,
    reply text not null,
    message_id uuid,
    rate_before double precision,
    rate_after double precision,
    connections_before integer not null,
    connections_after integer not null,
    messages_per_connection_before integer not null,
    messages_per_connection_after integer not null,
    suspended_before boolean not null,
    suspended_after boolean not null,
    next_at timestamptz
);
create index tempo_changes_by_site on mailfleet.tempo_changes (site, change_id);
create index tempo_changes_by_time on mailfleet.tempo_changes (at);

-- What an operator lifts; senders look here once a second. An empty route: every one.
create table mailfleet.tempo_lifts (
    lift_id bigint generated always as identity primary key,
    at timestamptz not null,
    site text not null,
    route text not null
);
