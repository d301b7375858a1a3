-- What the fleet's statements do to messages, written down by the database itself in the same transactions. Each row
-- is one change of place of one message; `txid` brings together what one transaction did.
-- what: 1 begins to rest, 2 rests no longer, 3 begins to move, 4 moves no longer, 5 changes its state, 6 is closed.
create schema chaos;
create table chaos.trace (
    n bigint generated always as identity primary key,
    txid bigint not null default pg_current_xact_id()::text::bigint,
    -- When the statement reached the server: before it looked at anything.
    begun timestamptz not null default statement_timestamp(),
    message_id uuid not null,
    what smallint not null,
    release_no integer not null,
    old_state smallint,
    new_state smallint
);

create function chaos.rests() returns trigger language plpgsql as $$
begin
    insert into chaos.trace (message_id, what, release_no) select message_id, 1, release_no from fresh;
    return null;
end $$;
create trigger chaos_rests after insert on mailfleet.waiting referencing new table as fresh
    for each statement execute function chaos.rests();

create function chaos.rests_no_longer() returns trigger language plpgsql as $$
begin
    insert into chaos.trace (message_id, what, release_no) select message_id, 2, release_no from gone;
    return null;
end $$;
create trigger chaos_rests_no_longer after delete on mailfleet.waiting referencing old table as gone
    for each statement execute function chaos.rests_no_longer();

create function chaos.moves() returns trigger language plpgsql as $$
begin
    insert into chaos.trace (message_id, what, release_no, new_state)
    select message_id, 3, release_no, state from fresh;
    return null;
end $$;
create trigger chaos_moves after insert on mailfleet.moving referencing new table as fresh
    for each statement execute function chaos.moves();

create function chaos.moves_no_longer() returns trigger language plpgsql as $$
begin
    insert into chaos.trace (message_id, what, release_no, old_state)
    select message_id, 4, release_no, state from gone;
    return null;
end $$;
create trigger chaos_moves_no_longer after delete on mailfleet.moving referencing old table as gone
    for each statement execute function chaos.moves_no_longer();

create function chaos.changes() returns trigger language plpgsql as $$
begin
    insert into chaos.trace (message_id, what, release_no, old_state, new_state)
    select message_id, 5, fresh.release_no, gone.state, fresh.state from fresh join gone using (message_id);
    return null;
end $$;
create trigger chaos_changes after update on mailfleet.moving referencing old table as gone new table as fresh
    for each statement execute function chaos.changes();

-- The kind 2 is the closing fact.
create function chaos.closes() returns trigger language plpgsql as $$
begin
    insert into chaos.trace (message_id, what, release_no, new_state)
    select message_id, 6, release_no, closing from fresh where kind = 2;
    return null;
end $$;
create trigger chaos_closes after insert on mailfleet.facts referencing new table as fresh
    for each statement execute function chaos.closes();
