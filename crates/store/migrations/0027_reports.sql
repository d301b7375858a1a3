-- What receivers report about domains as a whole. A report that comes twice is kept once.
create table mailfleet.dmarc_reports (
    org text not null,
    report_id text not null,
    domain text not null,
    begins timestamptz not null,
    ends timestamptz not null,
    policy text not null,
    subdomain_policy text not null,
    left_out integer not null,
    inbound_id uuid not null,
    primary key (org, report_id, domain)
);
create index dmarc_reports_by_time on mailfleet.dmarc_reports (domain, begins);

create table mailfleet.dmarc_rows (
    org text not null,
    report_id text not null,
    domain text not null,
    ordinal integer not null,
    source inet,
    count bigint not null,
    disposition text not null,
    dkim boolean not null,
    spf boolean not null,
    header_from text not null,
    envelope_from text not null,
    details jsonb not null,
    primary key (org, report_id, domain, ordinal),
    foreign key (org, report_id, domain) references mailfleet.dmarc_reports on delete cascade
);

create table mailfleet.tls_reports (
    org text not null,
    report_id text not null,
    domain text not null,
    policy text not null,
    begins timestamptz not null,
    ends timestamptz not null,
    successes bigint not null,
    failures bigint not null,
    reasons text[] not null,
    inbound_id uuid not null,
    primary key (org, report_id, domain, policy)
);
create index tls_reports_by_time on mailfleet.tls_reports (domain, begins);

-- For analysts: mail in the name of a domain by day and source, and whether it was aligned.
create view mailfleet.dmarc_sources as
select r.domain, (r.begins at time zone 'UTC')::date as day, w.source, r.org, w.header_from,
       sum(w.count)::bigint as mails,
       (sum(w.count) filter (where w.dkim or w.spf))::bigint as aligned,
       (sum(w.count) filter (where w.dkim))::bigint as aligned_dkim,
       (sum(w.count) filter (where w.spf))::bigint as aligned_spf,
       (sum(w.count) filter (where w.disposition in ('quarantine', 'reject')))::bigint as acted_on
from mailfleet.dmarc_reports r
join mailfleet.dmarc_rows w using (org, report_id, domain)
group by 1, 2, 3, 4, 5;

-- For analysts: sessions to a domain by day, and how many went without the TLS that its policy asks for.
create view mailfleet.tls_sessions as
select domain, (begins at time zone 'UTC')::date as day, org, policy, sum(successes)::bigint as successes,
       sum(failures)::bigint as failures
from mailfleet.tls_reports
group by 1, 2, 3, 4;
