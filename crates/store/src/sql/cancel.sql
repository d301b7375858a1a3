-- Marks what is cancelled ($1: messages and batches) and what the messages among it ($2) were sent again as.
with recursive again as (
    select r.new_message_id
    from unnest($2::uuid[]) as a(message_id)
    cross join lateral (select * from mailfleet.requeued r where r.message_id = a.message_id) as r
    union
    select r.new_message_id
    from again
    cross join lateral (select * from mailfleet.requeued r where r.message_id = again.new_message_id) as r
)
insert into mailfleet.marks (subject_id, kind, created_at)
select subject_id, 1, mailfleet.clock()
from (select unnest($1::uuid[]) as subject_id union select new_message_id from again) as s
order by subject_id
on conflict do nothing
