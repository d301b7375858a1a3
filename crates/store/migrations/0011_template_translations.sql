-- The parts of a version in other languages, each a content of its own: which of them a message gets is settled when
-- it is accepted, so that rendering knows nothing of languages.
create table mailfleet.template_translations (
    template_id uuid not null,
    version integer not null,
    language text not null,
    content_id uuid not null references mailfleet.contents,
    primary key (template_id, version, language),
    foreign key (template_id, version) references mailfleet.template_versions
);
