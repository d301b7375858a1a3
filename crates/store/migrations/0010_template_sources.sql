-- What a version was published from, beside what was compiled from it: for people, and for other templates that take
-- it in. source and report are the content crate's JSON; rules is what accepting a mail checks, in the row it reads
-- anyhow, null when there is nothing to check. Versions from before have none of them: the compiled content stands
-- in for their source. A layout or a piece for other templates alone has no compiled content.
alter table mailfleet.template_versions
    add column source bytea,
    add column report bytea,
    add column rules bytea,
    alter column content_id drop not null,
    alter column source set compression lz4,
    alter column report set compression lz4;
