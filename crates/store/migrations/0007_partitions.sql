-- A partition a day for what is named by message id, made ahead of time, and a default one that should stay empty.
create function mailfleet.first_uuid_of(day date) returns uuid language sql immutable as
$$
    select (lpad(to_hex((extract(epoch from day::timestamp at time zone 'UTC') * 1000)::bigint), 12, '0')
            || '00000000000000000000')::uuid
$$;

create function mailfleet.ensure_partitions(first_day date, last_day date) returns integer language plpgsql as
$$
declare
    made integer := 0;
    parent text;
    name text;
begin
    foreach parent in array array['messages', 'message_events'] loop
        for offset_days in 0 .. last_day - first_day loop
            name := parent || '_' || to_char(first_day + offset_days, 'YYYYMMDD');
            if to_regclass('mailfleet.' || name) is null then
                execute format('create table mailfleet.%I partition of mailfleet.%I for values from (%L) to (%L)',
                    name, parent, mailfleet.first_uuid_of(first_day + offset_days),
                    mailfleet.first_uuid_of(first_day + offset_days + 1));
                made := made + 1;
            end if;
        end loop;
    end loop;
    return made;
end
$$;

create table mailfleet.messages_default partition of mailfleet.messages default;
create table mailfleet.message_events_default partition of mailfleet.message_events default;
select mailfleet.ensure_partitions((now() at time zone 'UTC')::date - 1, (now() at time zone 'UTC')::date + 7);
