-- Listed: those of these messages that are there, to this recipient, and where each is. Every look-up is by key.
with asked as materialized (
    select * from unnest($1::uuid[]) with ordinality as a(message_id, place)
), seen as (
    select asked.place, m.message_id, m.recipient, m.overrides, over.at as closed_at,
           case when over.closing is not null then 10 + over.closing
                when w.message_id is not null then 0
                else coalesce(v.state, 1) end as state
    from asked
    cross join lateral (
        select * from mailfleet.messages m
        where m.message_id = asked.message_id and ($2::text is null or lower(m.recipient) = $2 or m.recipient = $3)
    ) as m
    left join lateral (
        select e.closing, e.at from mailfleet.message_events e
        where e.message_id = m.message_id and e.kind = 2 and e.ordinal = 0
        union all
        select f.closing, f.at from mailfleet.facts f where f.message_id = m.message_id and f.kind = 2
        limit 1
    ) as over on true
    left join lateral (select w.message_id from mailfleet.waiting w where w.message_id = m.message_id) as w on true
    left join lateral (select v.state from mailfleet.moving v where v.message_id = m.message_id) as v on true
)
select place as "place!", message_id as "message_id!", recipient as "recipient!", overrides::text as overrides,
       state as "state!", closed_at as "closed_at?"
from seen
where $4::integer is null or state = $4
order by place
