-- Contents are immutable and named by the hash of what they hold, so they can be cached for ever and shared by
-- all recipients of a call. kind: 1 mail (what a call says), 2 template version, 3 raw MIME.
create table mailfleet.contents (
    content_id uuid primary key,
    tenant_id uuid not null,
    kind smallint not null,
    body bytea not null,
    created_at timestamptz not null
);
alter table mailfleet.contents alter column body set compression lz4;

create table mailfleet.templates (
    template_id uuid primary key,
    tenant_id uuid not null references mailfleet.tenants,
    name text not null,
    created_at timestamptz not null,
    unique (tenant_id, name)
);

create table mailfleet.template_versions (
    template_id uuid not null references mailfleet.templates,
    version integer not null,
    content_id uuid not null references mailfleet.contents,
    created_at timestamptz not null,
    primary key (template_id, version)
);
