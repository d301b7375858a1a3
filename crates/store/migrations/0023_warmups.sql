-- Routes that are warmed up. site: one that has a plan of its own, or '' for all others of the route together.
-- rung: the place on the ladder, from 0; at its end the plan is over and caps nothing.
create table mailfleet.warmups (
    warmup_id bigint generated always as identity primary key,
    route text not null,
    site text not null,
    ladder integer[] not null,
    rung smallint not null check (rung >= 0),
    overflow text not null check (overflow in ('routes', 'wait')),
    spread_seconds double precision not null check (spread_seconds >= 60),
    held boolean not null default false,
    created_at timestamptz not null,
    unique (route, site)
);

-- The ledger: what each day (UTC) allows, what of it has been given out to senders, and why the rung is what it is.
-- arrival: when the next one may go by the plain rate, so that the cap spreads over the day.
create table mailfleet.warmup_days (
    warmup_id bigint not null references mailfleet.warmups on delete cascade,
    day date not null,
    rung smallint not null,
    cap integer not null,
    taken integer not null default 0 check (taken <= cap),
    arrival timestamptz not null,
    step text not null,
    why text not null,
    primary key (warmup_id, day)
);
