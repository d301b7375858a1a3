//! `domain`: sending domains, their records and their keys.

use super::{PAGE, args::DomainCommand, when};
use crate::{
    api,
    exit::Exit,
    output::{Output, Table},
    reach::Reach,
};
use proto::v1::{
    ActivateDomainKeysRequest, CreateDomainRequest, DnsCheck, DnsCheckState, DomainKey, DomainKeyState,
    GetDomainRequest, ListDomainsRequest, RotateDomainKeysRequest, SendingDomain, VerifyDomainRequest,
};
use serde_json::{Value, json};

pub async fn run(command: DomainCommand, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let mut domains = reach.api_for_tenant().await?.domains();
    let (domain, advice) = match command {
        DomainCommand::List => return list(reach, out).await,
        DomainCommand::Verify { domain } => return verify(&domain, reach, out).await,
        DomainCommand::Get { domain } => {
            (domains.get_domain(GetDomainRequest { domain }).await?.into_inner().domain, String::new())
        }
        DomainCommand::Create { domain, return_path, unsigned } => {
            let return_path_domain = return_path.unwrap_or_default();
            let request = CreateDomainRequest { domain, return_path_domain, unsigned };
            (domains.create_domain(request).await?.into_inner().domain, String::new())
        }
        DomainCommand::Rotate { domain } => {
            let request = RotateDomainKeysRequest { domain: domain.clone() };
            let rotated = domains.rotate_domain_keys(request).await?.into_inner().domain;
            let keys = rotated.iter().flat_map(|domain| &domain.keys);
            let pending: Vec<&str> =
                keys.filter(|key| key.state() == DomainKeyState::Pending).map(|key| key.selector.as_str()).collect();
            let advice = format!(
                "\nPublish the records of the pending keys. When they can be seen everywhere:\n  \
                 mailfleet domain activate {domain} {}\n",
                pending.join(" ")
            );
            (rotated, advice)
        }
        DomainCommand::Activate { domain, selectors } => {
            let advice =
                "\nThe records of the retired keys stay until the time above: their mail is still under way.\n";
            let request = ActivateDomainKeysRequest { domain, selectors };
            (domains.activate_domain_keys(request).await?.into_inner().domain, advice.to_owned())
        }
    };
    let domain = domain.unwrap_or_default();
    out.answer(&as_json(&domain), || format!("{}{advice}", told(&domain)))?;
    Ok(Exit::Ok)
}

async fn list(reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let mut client = reach.api_for_tenant().await?.domains();
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = client.list_domains(ListDomainsRequest { page_size: PAGE, page_token }).await?.into_inner();
        found.extend(page.domains);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    out.answer(&json!({"domains": found.iter().map(as_json).collect::<Vec<_>>()}), || {
        let mut table = Table::new(5, &["domain", "return path", "signs with", "pending", "made"]);
        for domain in &found {
            let with = |state| {
                let keys = domain.keys.iter().filter(|key| key.state() == state);
                keys.map(|key| key.selector.as_str()).collect::<Vec<_>>().join(", ")
            };
            table.row(vec![
                domain.domain.clone(),
                domain.return_path_domain.clone(),
                if domain.unsigned { "unsigned".to_owned() } else { with(DomainKeyState::Active) },
                with(DomainKeyState::Pending),
                when(domain.created_at.as_ref()),
            ]);
        }
        if table.is_empty() { "there is no sending domain".to_owned() } else { table.text() }
    })?;
    Ok(Exit::Ok)
}

async fn verify(domain: &str, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let request = VerifyDomainRequest { domain: domain.to_owned() };
    let answer = reach.api_for_tenant().await?.domains().verify_domain(request).await?.into_inner();
    let domain = answer.domain.unwrap_or_default();
    let checks: Vec<Value> = answer.checks.iter().map(check_as_json).collect();
    let verified_at = domain.verified_at.as_ref().map(api::time);
    let shown = json!({"domain": domain.domain, "verified_at": verified_at, "checks": checks, "notes": domain.notes});
    out.answer(&shown, || {
        let mut text = String::new();
        for check in &answer.checks {
            let record = check.record.clone().unwrap_or_default();
            let weight = if check.required { "" } else { ", not required" };
            text += &format!("{:<10} {} {} ({}{weight})\n", word(check), record.name, record.r#type, record.purpose);
            if check.state() != DnsCheckState::Ok {
                text += &format!("           wanted: {}\n", record.value);
                for found in &check.found {
                    text += &format!("           found:  {found}\n");
                }
                text += &format!("           {}\n", check.explanation);
            }
        }
        for note in &domain.notes {
            text += &format!("{:<10} {note}\n", "note");
        }
        text += &match domain.verified_at.as_ref() {
            Some(at) => format!("\n{} is verified since {}\n", domain.domain, when(Some(at))),
            None => format!("\n{} is not verified: no mail is taken for it until it is\n", domain.domain),
        };
        text
    })?;
    Ok(if domain.verified_at.is_some() { Exit::Ok } else { Exit::Finding })
}

fn word(check: &DnsCheck) -> &'static str {
    match check.state() {
        DnsCheckState::Ok => "ok",
        DnsCheckState::Missing => "missing",
        DnsCheckState::Different => "different",
        DnsCheckState::Unanswered => "no answer",
        DnsCheckState::Unspecified => "",
    }
}

fn check_as_json(check: &DnsCheck) -> Value {
    let record = check.record.clone().unwrap_or_default();
    json!({
        "type": record.r#type, "name": record.name, "purpose": record.purpose, "wanted": record.value,
        "state": word(check), "required": check.required, "found": check.found, "explanation": check.explanation,
    })
}

fn state(key: &DomainKey) -> &'static str {
    match key.state() {
        DomainKeyState::Pending => "pending",
        DomainKeyState::Active => "active",
        DomainKeyState::Retired => "retired",
        DomainKeyState::Unspecified => "",
    }
}

fn told(domain: &SendingDomain) -> String {
    let mut text = format!("{}, return path {}\n", domain.domain, domain.return_path_domain);
    if domain.unsigned {
        text.push_str("unsigned: a relay is to sign its mail\n");
    }
    if !domain.keys.is_empty() {
        let mut table = Table::new(5, &["key", "algorithm", "state", "made", "record needed until"]);
        for key in &domain.keys {
            table.row(vec![
                key.selector.clone(),
                key.algorithm.clone(),
                state(key).to_owned(),
                when(key.created_at.as_ref()),
                when(key.keep_until.as_ref()),
            ]);
        }
        text.push_str(&format!("\n{}", table.text()));
    }
    text.push_str(&match domain.verified_at.as_ref() {
        Some(at) => format!("verified since {}\n", when(Some(at))),
        None => "not verified yet: publish what stands below, then `mailfleet domain verify`\n".to_owned(),
    });
    text.push_str("\nTo publish in DNS:\n");
    for record in &domain.dns_records {
        text.push_str(&format!("  {} {} ({})\n      {}\n", record.name, record.r#type, record.purpose, record.value));
    }
    for note in &domain.notes {
        text.push_str(&format!("  {note}\n"));
    }
    text
}

fn as_json(domain: &SendingDomain) -> Value {
    let keys: Vec<Value> = domain
        .keys
        .iter()
        .map(|key| {
            json!({
                "selector": key.selector, "algorithm": key.algorithm, "state": state(key),
                "created_at": key.created_at.as_ref().map(api::time),
                "activated_at": key.activated_at.as_ref().map(api::time),
                "retired_at": key.retired_at.as_ref().map(api::time),
                "keep_until": key.keep_until.as_ref().map(api::time),
            })
        })
        .collect();
    let records: Vec<Value> = domain
        .dns_records
        .iter()
        .map(|record| {
            json!({"type": record.r#type, "name": record.name, "value": record.value, "purpose": record.purpose})
        })
        .collect();
    json!({
        "domain": domain.domain, "domain_id": domain.domain_id, "return_path_domain": domain.return_path_domain,
        "unsigned": domain.unsigned, "created_at": domain.created_at.as_ref().map(api::time), "keys": keys,
        "verified_at": domain.verified_at.as_ref().map(api::time),
        "dns_records": records, "notes": domain.notes,
    })
}
