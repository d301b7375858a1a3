//! `demo`: a fleet, a campaign, every mail accounted for. Contacts nothing but loopback.

mod people;
mod readers;
mod report;

use crate::{
    args::{DemoArgs, Global},
    campaign::{self, Cut, Sent},
    exit::Exit,
    fleet::{REPORTS, State, Wanted, start_unless_told_to_end, told_to_end, write_private},
    output::{Output, grouped, millis},
    reach::Reach,
};
use anyhow::Context;
use chrono::{DateTime, Utc};
use client::Client;
use domain::{CampaignId, TenantId};
use proto::v1::{
    Address, CreateApiKeyRequest, CreateDomainRequest, CreateTemplateRequest, CreateTenantRequest, KeyScope, Lane,
    ListApiKeysRequest, Mail, PublishTemplateVersionRequest, RevokeApiKeyRequest, TemplateRef, mail::Content,
    publish_template_version_request::Body,
};
use report::{Copies, Summary, percentile};
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use store::{Engagement, SiteFigures, Store};
use tonic::Code;

/// Names that stay from run to run.
const TENANT: &str = "demo";
const SENDING_DOMAIN: &str = "news.mailfleet.test";
const TEMPLATE: &str = "spring-newsletter";
const KEY_NAME: &str = "demo";
const SUBJECT: &str = "{{ first_name }}, spring has come to {{ city }}";
const MJML: &str = include_str!("demo/newsletter.mjml");
/// How long what came back may take to be in the log.
const BACK_LIMIT: Duration = Duration::from_secs(15);
/// How often the figures are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Up to so many recipients the calls are small, so that there are enough of them to tell how long one takes.
const SMALL_CAMPAIGN: usize = 20_000;

/// Runs the demo.
pub async fn run(args: &DemoArgs, global: &Global, out: Output) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    // Whatever else this shell points at: the demo stays on this machine.
    let global = Global {
        dir: global.dir.clone(),
        json: global.json,
        config: None,
        endpoint: None,
        api_key_file: None,
        tenant: None,
    };
    let stay = out.terminal && !args.exit;
    if let Some(state) = State::running(&global.dir)? {
        out.note("using the local fleet that runs here");
        let shown = tokio::select! {
            shown = show(args, &global, &state, begun, out) => shown?,
            told = told_to_end() => { told?; return Ok(Exit::Finding) }
        };
        return finish(&shown, out);
    }
    let mut fleet = start_unless_told_to_end(&global.dir, Wanted::default(), out).await?;
    let state = fleet.state().clone();
    let shown = tokio::select! {
        shown = show(args, &global, &state, begun, out) => shown.map(Some),
        watched = fleet.watch() => watched.map(|()| None),
        told = told_to_end() => told.map(|()| None),
    };
    if stay && matches!(shown, Ok(Some(_))) {
        out.note("\nThe fleet stays up; Ctrl-C stops it.");
        tokio::select! {
            watched = fleet.watch() => watched?,
            told = told_to_end() => told?,
        }
    }
    out.note("\nstopping ...");
    fleet.stop().await?;
    match shown? {
        Some(summary) => finish(&summary, out),
        None => Ok(Exit::Finding),
    }
}

/// The last line, and what it means for the exit code.
fn finish(summary: &Summary, out: Output) -> anyhow::Result<Exit> {
    out.line(&serde_json::to_string(summary)?);
    Ok(if summary.is_good() { Exit::Ok } else { Exit::Finding })
}

/// The campaign, from its tenant to its figures.
async fn show(args: &DemoArgs, global: &Global, state: &State, begun: Instant, out: Output) -> anyhow::Result<Summary> {
    out.note(&format!("the fleet is ready after {:.1} s: {} (gRPC)", begun.elapsed().as_secs_f64(), state.endpoint));
    let reach = Reach::new(global);
    let store = reach.store().await?;
    let now = service::clock::now();
    let campaign = CampaignId::new(now);
    let folder = global.dir.join("demo");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let (tenant, api) = sender_of_mail(&reach, &store, &folder, out).await?;
    let version = content(&api, out).await?;
    let csv = recipients_file(args, &folder, now)?;
    let recipients = campaign::read_csv(&csv, &serde_json::Map::new(), None)?;
    let count = recipients.len();
    out.note(&format!("campaign: {} recipients out of {}", grouped(count as i128), csv.display()));

    let start_ms = u64::try_from(now.timestamp_millis()).unwrap_or(0);
    let mail = mail(version, campaign);
    let small = Cut { recipients: 50, calls: 4 };
    let cut = if count <= SMALL_CAMPAIGN { small } else { Cut { recipients: 1_000, calls: 4 } };
    let sending = Instant::now();
    let sent = campaign::send(&api, &mail, recipients, &format!("demo/{campaign}"), cut, |answered| {
        out.progress(&format!("  {} of {} accepted", grouped(answered as i128), grouped(count as i128)));
    })
    .await?;
    out.progress_done();
    out.note(&format!(
        "accepted {} ({} refused) in {:.2} s, {} calls",
        grouped(sent.accepted.len() as i128),
        sent.refused.len(),
        sending.elapsed().as_secs_f64(),
        sent.latencies.len()
    ));
    let sites = wait(&store, tenant, campaign, sent.accepted.len(), Duration::from_secs(args.limit), out).await?;
    let copies = count_copies(state, &sent).await?;
    let came_back = come_back(&store, tenant, campaign, state, &copies).await?;
    let summary = summary(&store, &sites, &sent, &copies, &came_back, start_ms, begun).await?;
    out.note(&format!("\n{}", report::table(&sites)));
    out.note(&figures(&summary));
    out.note(&further(state, &sent, &copies, &csv, campaign));
    store.close().await;
    Ok(summary)
}

/// The tenant, and the API as its program sees it: with a key of its own.
async fn sender_of_mail(
    reach: &Reach,
    store: &Store,
    folder: &Path,
    out: Output,
) -> anyhow::Result<(TenantId, Client)> {
    let admin = reach.api().await?;
    let tenant: TenantId = match admin.tenants().create_tenant(CreateTenantRequest { name: TENANT.to_owned() }).await {
        Ok(answer) => answer.into_inner().tenant_id.parse()?,
        Err(status) if status.code() == Code::AlreadyExists => {
            let known = store.tenants().await?.into_iter().find(|known| known.name == TENANT);
            known.map(|known| known.id).context("the tenant of an earlier demo is gone")?
        }
        Err(status) => return Err(status).context("cannot make the tenant"),
    };
    let mut keys = admin.tenants();
    // Only the newest demo's key opens anything.
    let request = ListApiKeysRequest { tenant_id: tenant.to_string() };
    let old = keys.list_api_keys(request).await?.into_inner().api_keys;
    for key in old.into_iter().filter(|key| key.name == KEY_NAME && key.revoked_at.is_none()) {
        keys.revoke_api_key(RevokeApiKeyRequest { api_key_id: key.api_key_id }).await?;
    }
    let scopes = [KeyScope::Send, KeyScope::Read, KeyScope::Templates, KeyScope::Domains, KeyScope::Suppressions];
    let request = CreateApiKeyRequest {
        tenant_id: tenant.to_string(),
        name: KEY_NAME.to_owned(),
        scopes: scopes.map(i32::from).to_vec(),
        expires_at: None,
    };
    let key = keys.create_api_key(request).await.context("cannot make the API key")?.into_inner().api_key;
    let file = folder.join("tenant.key");
    write_private(&file, format!("{key}\n").as_bytes())?;
    out.note(&format!("tenant {TENANT}, API key in {}", file.display()));
    Ok((tenant, admin.with_key(&key, None)?))
}

/// The sending domain with its keys, and the template; returns its version.
async fn content(api: &Client, out: Output) -> anyhow::Result<u32> {
    let request = CreateDomainRequest { domain: SENDING_DOMAIN.to_owned(), ..CreateDomainRequest::default() };
    exists_already(api.domains().create_domain(request).await).context("cannot make the sending domain")?;
    let request = CreateTemplateRequest { name: TEMPLATE.to_owned() };
    exists_already(api.templates().create_template(request).await).context("cannot make the template")?;
    let request = PublishTemplateVersionRequest {
        template: TEMPLATE.to_owned(),
        subject: SUBJECT.to_owned(),
        body: Some(Body::Mjml(MJML.to_owned())),
        ..PublishTemplateVersionRequest::default()
    };
    let published = api.templates().publish_template_version(request).await;
    let version = published.context("cannot publish the template")?.into_inner().version;
    out.note(&format!(
        "sending domain {SENDING_DOMAIN} (DKIM RSA-2048 and Ed25519), template {TEMPLATE} version {version} (MJML)"
    ));
    Ok(version)
}

fn exists_already<T>(result: Result<tonic::Response<T>, tonic::Status>) -> Result<(), tonic::Status> {
    match result {
        Err(status) if status.code() != Code::AlreadyExists => Err(status),
        _ => Ok(()),
    }
}

/// The file that was named, or one that is made up.
fn recipients_file(args: &DemoArgs, folder: &Path, now: DateTime<Utc>) -> anyhow::Result<PathBuf> {
    match &args.csv {
        Some(file) => Ok(file.clone()),
        None => {
            let file = folder.join("recipients.csv");
            people::write_csv(&file, args.recipients, &format!("r{}", now.timestamp()))?;
            Ok(file)
        }
    }
}

fn mail(version: u32, campaign: CampaignId) -> Mail {
    Mail {
        from: Some(Address { email: format!("hello@{SENDING_DOMAIN}"), name: "Harbour Books".to_owned() }),
        content: Some(Content::Template(TemplateRef { template: TEMPLATE.to_owned(), version })),
        lane: Lane::Bulk.into(),
        campaign_id: campaign.to_string(),
        list_id: format!("spring.{SENDING_DOMAIN}"),
        ..Mail::default()
    }
}

/// Waits until every accepted recipient has his final event, and tells how it goes.
async fn wait(
    store: &Store,
    tenant: TenantId,
    campaign: CampaignId,
    accepted: usize,
    limit: Duration,
    out: Output,
) -> anyhow::Result<Vec<SiteFigures>> {
    let accepted = i64::try_from(accepted)?;
    let deadline = Instant::now() + limit;
    loop {
        let sites = store.site_figures(Some(tenant), Some(campaign)).await?;
        let sum = |of: fn(&SiteFigures) -> i64| sites.iter().map(of).sum::<i64>();
        let (delivered, bounced) = (sum(|s| s.delivered), sum(|s| s.bounced));
        let open = accepted - delivered - bounced - sum(|s| s.suppressed) - sum(|s| s.other);
        out.progress(&format!(
            "  {} delivered, {} bounced, {} on their way",
            grouped(delivered),
            grouped(bounced),
            grouped(open)
        ));
        if open <= 0 || Instant::now() > deadline {
            out.progress_done();
            if open > 0 {
                out.note(&format!("gave up waiting after {limit:?}: {} have no final event", grouped(open)));
            }
            return Ok(sites);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What the sink itself says, apart from what the fleet believes.
async fn count_copies(state: &State, sent: &Sent) -> anyhow::Result<Copies> {
    let mailbox = state.mailbox.clone();
    let index = tokio::task::spawn_blocking(move || testkit::sink::read_index(&mailbox)).await?;
    let index = index.with_context(|| format!("cannot read the sink's index in {}", state.mailbox.display()))?;
    Ok(Copies::count(&index, &state.mailbox, sent.accepted.iter().map(|(_, id)| id.as_str())))
}

/// Has some recipients act, and tells what the log has of that.
async fn come_back(
    store: &Store,
    tenant: TenantId,
    campaign: CampaignId,
    state: &State,
    copies: &Copies,
) -> anyhow::Result<Engagement> {
    let Some(inbound) = state.inbound else { return Ok(Engagement::default()) };
    let done = readers::act(&copies.files, inbound, REPORTS).await;
    let deadline = Instant::now() + BACK_LIMIT;
    loop {
        let told = store.engagement(Some(tenant), Some(campaign)).await?;
        let is_all = told.opens >= done.opened
            && told.clicks >= done.clicked
            && told.unsubscribed >= done.unsubscribed
            && told.returned >= done.bounced
            && told.complained >= done.complained;
        if is_all || Instant::now() > deadline {
            return Ok(told);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn summary(
    store: &Store,
    sites: &[SiteFigures],
    sent: &Sent,
    copies: &Copies,
    came_back: &Engagement,
    start_ms: u64,
    begun: Instant,
) -> anyhow::Result<Summary> {
    let sum = |of: fn(&SiteFigures) -> i64| sites.iter().map(of).sum::<i64>();
    let accepted = i64::try_from(sent.accepted.len())?;
    let (delivered, bounced) = (sum(|s| s.delivered), sum(|s| s.bounced));
    let (suppressed, other) = (sum(|s| s.suppressed), sum(|s| s.other));
    let without_end = (accepted - delivered - bounced - suppressed - other).max(0);
    let without_copy = (delivered - copies.messages()).max(0);
    let mut calls: Vec<f64> = sent.latencies.iter().map(|took| took.as_secs_f64() * 1_000.0).collect();
    calls.sort_by(f64::total_cmp);
    let latencies = copies.latencies();
    Ok(Summary {
        accepted,
        delivered,
        bounced,
        deferred_then_delivered: sum(|s| s.deferred_then_delivered),
        suppressed,
        other,
        lost: without_end + without_copy,
        duplicated: copies.duplicated,
        opened: came_back.unique_human_opens,
        clicked: came_back.unique_human_clicks,
        unsubscribed: came_back.unsubscribed,
        returned: came_back.returned,
        complained: came_back.complained,
        audit_clean: store.audit().await?.is_clean(),
        accept_p50_ms: rounded(percentile(&calls, 0.5)),
        accept_p99_ms: rounded(percentile(&calls, 0.99)),
        delivery_p50_ms: rounded(percentile(&latencies, 0.5)),
        delivery_p99_ms: rounded(percentile(&latencies, 0.99)),
        messages_per_s: rounded(copies.rate(start_ms)),
        wall_s: rounded(begun.elapsed().as_secs_f64()),
    })
}

/// To a tenth.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn figures(summary: &Summary) -> String {
    format!(
        "accept        p50 {}, p99 {} a call\n\
         delivery      p50 {}, p99 {} from accept to the receiver's 250\n\
         throughput    {:.0} mails a second until 90 of 100 were delivered\n\
         came back     {} opened, {} followed a link, {} unsubscribed, {} bounced later, {} complained\n\
         accounted     {} lost, {} duplicated by the sink's own index; audit {}",
        millis(summary.accept_p50_ms),
        millis(summary.accept_p99_ms),
        millis(summary.delivery_p50_ms),
        millis(summary.delivery_p99_ms),
        summary.messages_per_s,
        grouped(summary.opened),
        grouped(summary.clicked),
        grouped(summary.unsubscribed),
        grouped(summary.returned),
        grouped(summary.complained),
        summary.lost,
        summary.duplicated,
        if summary.audit_clean { "clean" } else { "found differences: see `mailfleet audit`" },
    )
}

/// Where to look next.
fn further(state: &State, sent: &Sent, copies: &Copies, csv: &Path, campaign: CampaignId) -> String {
    let program = std::env::args().next().unwrap_or_else(|| "mailfleet".to_owned());
    let mut text = String::from("\nlook further\n");
    let mut hint = |command: String, what: &str| text.push_str(&format!("  {command}\n      {what}\n"));
    if let Some(example) = &copies.example {
        hint(format!("less {}", example.display()), "a delivered mail, signed, as the receiver got it");
    }
    hint(format!("less {}", csv.display()), "the recipients");
    let put_off = sent.accepted.iter().find(|(email, _)| email.starts_with("greylist."));
    if let Some((_, id)) = put_off.or(sent.accepted.first()) {
        hint(format!("{program} why {id}"), "the story of a message that was put off first");
    }
    hint(format!("{program} status"), "what runs, who holds what, how much waits");
    hint(format!("{program} queue"), "where mail rests and moves, live");
    hint(format!("{program} pause --campaign {campaign}"), "hold a campaign back; resume lets it go");
    hint(format!("{program} report --campaign {campaign}"), "what came back: some recipients of the demo act");
    hint(format!("{program} inbound list"), "the bounces and complaints that came in by mail");
    hint(format!("{program} audit"), "recount everything");
    text.push_str(&format!(
        "  (while the fleet is up: on a terminal until Ctrl-C, or with `{program} up`; logs are in {})",
        state.processes.first().and_then(|process| process.log.parent()).unwrap_or(Path::new("")).display()
    ));
    text
}
