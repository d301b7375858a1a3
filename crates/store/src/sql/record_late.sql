-- Outcomes that matched no claim: what the log knows already is their own repeat; the others are kept as late facts,
-- and a late 250 marks its message as known delivered. kind and closing: of the fact that the outcome would have been.
with late as materialized (
    select a.*
    from unnest($1::uuid[], $2::integer[], $3::smallint[], $4::smallint[], $5::bigint[], $6::text[], $7::text[])
        as a(message_id, release_no, kind, closing, queue_id, site, detail)
    -- The end of this release may be another one than this outcome, such as `unknown`; or `delivered`, since that it
    -- was known to be.
    where not exists (
        select from mailfleet.facts f
        where f.message_id = a.message_id and f.release_no = a.release_no
          and (f.kind = 6 or f.kind = a.kind and coalesce(f.closing, 1) in (a.closing, 1)))
      and not exists (
        select from mailfleet.message_events e
        where e.message_id = a.message_id and e.release_no = a.release_no
          and (e.kind = 6 or e.kind = a.kind and coalesce(e.closing, 1) in (a.closing, 1)))
), marked as (
    insert into mailfleet.marks (subject_id, kind, created_at)
    select distinct message_id, 2, mailfleet.clock() from late where closing = 1 order by message_id
    on conflict do nothing
)
insert into mailfleet.facts (message_id, kind, ordinal, closing, release_no, queue_id, site, at, detail)
select message_id, 6, release_no, closing, release_no, queue_id, site, mailfleet.clock(), detail::jsonb from late
returning message_id, release_no
