//! `tenants`: who may send, and how much; `audit-log`: who changed what.

use super::{
    PAGE,
    args::{TenantArgs, TenantsCommand},
    page, when,
};
use crate::{
    api,
    exit::Exit,
    output::{Output, Table, grouped, safe},
    reach::Reach,
};
use proto::v1::{
    AuditEvent, CreateTenantRequest, GetTenantRequest, ListAuditEventsRequest, ListTenantsRequest, Tenant,
    TenantQuotas, TenantUsage, UpdateTenantRequest,
};
use serde_json::{Value, json};

pub async fn run(command: TenantsCommand, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let mut tenants = reach.api().await?.tenants();
    match command {
        TenantsCommand::List => list(reach, out).await,
        TenantsCommand::Create { name } => {
            let tenant_id = tenants.create_tenant(CreateTenantRequest { name }).await?.into_inner().tenant_id;
            out.answer(&json!({"tenant_id": tenant_id}), || format!("made tenant {tenant_id}"))?;
            Ok(Exit::Ok)
        }
        TenantsCommand::Get { named } => {
            let answer = tenants.get_tenant(GetTenantRequest { tenant: named }).await?.into_inner();
            let (tenant, usage) = (answer.tenant.unwrap_or_default(), answer.usage.unwrap_or_default());
            let mut value = as_json(&tenant);
            value["usage"] = json!({
                "recipients_this_hour": usage.recipients_this_hour, "recipients_today": usage.recipients_today,
                "backlog": usage.backlog,
            });
            out.answer(&value, || told(&tenant, &usage))?;
            Ok(Exit::Ok)
        }
        TenantsCommand::Set { named, what } => set(named, what, reach, out).await,
    }
}

async fn list(reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let mut client = reach.api().await?.tenants();
    let mut found: Vec<Tenant> = Vec::new();
    let mut page_token = String::new();
    loop {
        let answer = client.list_tenants(ListTenantsRequest { page_size: PAGE, page_token }).await?.into_inner();
        found.extend(answer.tenants);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    out.answer(&json!({"tenants": found.iter().map(as_json).collect::<Vec<_>>()}), || {
        let mut table = Table::new(3, &["tenant", "id", "made", "an hour", "a day", "backlog"]);
        for tenant in &found {
            let quotas = tenant.quotas.unwrap_or_default();
            let limit = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), grouped);
            table.row(vec![
                tenant.name.clone(),
                tenant.tenant_id.clone(),
                when(tenant.created_at.as_ref()),
                limit(quotas.recipients_per_hour),
                limit(quotas.recipients_per_day),
                limit(quotas.backlog),
            ]);
        }
        if table.is_empty() { "there is no tenant".to_owned() } else { table.text() }
    })?;
    Ok(Exit::Ok)
}

/// Changes what was given.
async fn set(tenant: String, what: TenantArgs, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let mut client = reach.api().await?.tenants();
    let known = client.get_tenant(GetTenantRequest { tenant }).await?.into_inner().tenant.unwrap_or_default();
    let quotas =
        TenantQuotas { recipients_per_hour: what.per_hour, recipients_per_day: what.per_day, backlog: what.backlog };
    let request =
        UpdateTenantRequest { tenant_id: known.tenant_id, name: what.name.unwrap_or_default(), quotas: Some(quotas) };
    let tenant = client.update_tenant(request).await?.into_inner().tenant.unwrap_or_default();
    out.answer(&as_json(&tenant), || {
        let quotas = tenant.quotas.unwrap_or_default();
        format!("{}: {}", tenant.name, limits(&quotas).join(", "))
    })?;
    Ok(Exit::Ok)
}

fn limits(quotas: &TenantQuotas) -> Vec<String> {
    let limit = |what: &str, limit: Option<u64>| match limit {
        Some(limit) => format!("{} {what}", grouped(limit)),
        None => format!("any number of {what}"),
    };
    vec![
        limit("recipients an hour", quotas.recipients_per_hour),
        limit("recipients a day", quotas.recipients_per_day),
        limit("messages at rest", quotas.backlog),
    ]
}

fn told(tenant: &Tenant, usage: &TenantUsage) -> String {
    let mut text = format!("{}, {}, made {}\n", tenant.name, tenant.tenant_id, when(tenant.created_at.as_ref()));
    let used = [usage.recipients_this_hour, usage.recipients_today, usage.backlog];
    for (limit, used) in limits(&tenant.quotas.unwrap_or_default()).into_iter().zip(used) {
        text.push_str(&format!("  {limit}; {} now\n", grouped(used)));
    }
    text
}

fn as_json(tenant: &Tenant) -> Value {
    let quotas = tenant.quotas.unwrap_or_default();
    json!({
        "tenant_id": tenant.tenant_id, "name": tenant.name, "created_at": tenant.created_at.as_ref().map(api::time),
        "quotas": {
            "recipients_per_hour": quotas.recipients_per_hour, "recipients_per_day": quotas.recipients_per_day,
            "backlog": quotas.backlog,
        },
    })
}

/// Shows who changed what.
pub async fn audit_log(key: Option<String>, limit: usize, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let mut client = reach.api().await?.tenants();
    let tenant_id = reach.named_tenant().await?.map_or_else(String::new, |id| id.to_string());
    let api_key_id = key.unwrap_or_default();
    let mut found: Vec<AuditEvent> = Vec::new();
    let mut page_token = String::new();
    while found.len() < limit {
        let page_size = page(limit - found.len());
        let (tenant_id, api_key_id) = (tenant_id.clone(), api_key_id.clone());
        let request = ListAuditEventsRequest { tenant_id, api_key_id, page_size, page_token };
        let answer = client.list_audit_events(request).await?.into_inner();
        found.extend(answer.events);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let events: Vec<Value> = found
        .iter()
        .map(|event| {
            json!({
                "at": event.at.as_ref().map(api::time), "api_key_id": event.api_key_id, "call": event.call,
                "tenant_id": event.tenant_id, "resource": event.resource,
            })
        })
        .collect();
    out.answer(&json!({"events": events, "more": !page_token.is_empty()}), || {
        let mut table = Table::new(4, &["at", "by the key", "call", "what"]);
        for event in &found {
            let by = if event.api_key_id.is_empty() { "an operator's command" } else { event.api_key_id.as_str() };
            table.row(vec![when(event.at.as_ref()), by.to_owned(), event.call.clone(), safe(&event.resource)]);
        }
        if table.is_empty() { "nothing was changed".to_owned() } else { table.text() }
    })?;
    Ok(Exit::Ok)
}
