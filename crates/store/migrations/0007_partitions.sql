-- A partition a day for what is named by message id, made ahead of time, and a default one that should stay empty.
create function mailfleet.first_uuid_of(day date) returns uuid language sql immutable as
$$
    select (lpad(to_hex((extract(epoch from day::timestamp at time zone 'UTC') * 1000)::bigint), 12, '0')
            || '00000000000000000000')::uuid
$$;

-- The partitions that are missing between two days.
create function mailfleet.missing_partitions(first_day date, last_day date)
returns table (parent text, day date) language sql stable as
$$
    select parent, first_day + n
    from unnest(array['messages', 'message_events']) as parent, generate_series(0, last_day - first_day) as n
    where to_regclass('mailfleet.' || parent || '_' || to_char(first_day + n, 'YYYYMMDD')) is null
    order by 2, 1
$$;

-- Makes one. Made apart and then attached, it locks the parent against nobody who reads or writes; only the default
-- partition is held for the moment of its check. One a transaction: two would take their locks in an order that
-- readers do not keep to.
create function mailfleet.make_partition(parent text, day date) returns void language plpgsql as
$$
declare
    name text := parent || '_' || to_char(day, 'YYYYMMDD');
begin
    execute format('create table mailfleet.%I (like mailfleet.%I including all)', name, parent);
    execute format('alter table mailfleet.%I attach partition mailfleet.%I for values from (%L) to (%L)',
        parent, name, mailfleet.first_uuid_of(day), mailfleet.first_uuid_of(day + 1));
end
$$;

create table mailfleet.messages_default partition of mailfleet.messages default;
create table mailfleet.message_events_default partition of mailfleet.message_events default;
select mailfleet.make_partition(parent, day)
from mailfleet.missing_partitions((now() at time zone 'UTC')::date - 1, (now() at time zone 'UTC')::date + 7);
