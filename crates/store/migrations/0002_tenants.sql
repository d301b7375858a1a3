-- Who may send, and as whom.
create table mailfleet.tenants (
    tenant_id uuid primary key,
    name text not null unique,
    created_at timestamptz not null
);

-- Keys are shown once; only the SHA-256 of the secret stays. A key without a tenant administers the fleet.
create table mailfleet.api_keys (
    api_key_id uuid primary key,
    tenant_id uuid references mailfleet.tenants,
    name text not null,
    secret_sha256 bytea not null,
    scopes text[] not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    revoked_at timestamptz
);
create index api_keys_by_tenant on mailfleet.api_keys (tenant_id);

create table mailfleet.sending_domains (
    sending_domain_id uuid primary key,
    tenant_id uuid not null references mailfleet.tenants,
    domain text not null,
    return_path_domain text not null,
    created_at timestamptz not null,
    unique (tenant_id, domain)
);

-- Private keys are sealed with the fleet's master key before they come here.
create table mailfleet.dkim_keys (
    dkim_key_id uuid primary key,
    sending_domain_id uuid not null references mailfleet.sending_domains,
    selector text not null,
    algorithm text not null check (algorithm in ('rsa', 'ed25519')),
    sealed_private_key bytea not null,
    dns_txt text not null,
    active boolean not null default true,
    created_at timestamptz not null,
    unique (sending_domain_id, selector)
);

-- The nil tenant stands for everyone.
create table mailfleet.suppressions (
    address_hash uuid not null,
    tenant_id uuid not null,
    address text not null,
    reason text not null,
    created_at timestamptz not null,
    primary key (address_hash, tenant_id)
);
