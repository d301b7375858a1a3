//! `endpoints`: where a tenant has events posted to.

use super::{PAGE, args::EndpointsCommand, when};
use crate::{
    api,
    exit::{Exit, Failure},
    output::{Output, Table, grouped, safe},
    reach::Reach,
    send::span,
};
use client::Client;
use proto::v1::{
    CreateEndpointRequest, DeleteEndpointRequest, Endpoint, EndpointState, EventKinds, GetEndpointRequest,
    ListEndpointsRequest, RedeliverRequest, RetryEventsRequest, RotateEndpointSecretRequest, SignatureKind,
    TestEndpointRequest, UpdateEndpointRequest,
};
use serde_json::{Value, json};
use std::time::Duration;

/// How long the answer to a test is waited for, and how often is looked.
const TEST_LIMIT: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub async fn run(command: EndpointsCommand, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let api = reach.api_for_tenant().await?;
    let mut client = api.endpoints();
    match command {
        EndpointsCommand::List => list(&api, out).await,
        EndpointsCommand::Create { url, events, description, ed25519, after } => {
            let signature = signature(ed25519).into();
            let request = CreateEndpointRequest { url, events, description, signature, after_seq: after };
            let made = client.create_endpoint(request).await?.into_inner();
            let endpoint = made.endpoint.unwrap_or_default();
            let mut value = as_json(&endpoint);
            value["key"] = json!(made.key);
            out.answer(&value, || {
                format!(
                    "{}\nIts receiver verifies with this key, which is shown this once:\n  {}\n",
                    told(&endpoint),
                    made.key
                )
            })?;
            Ok(Exit::Ok)
        }
        EndpointsCommand::Set { id, url, events, all_events, description } => {
            let events = (all_events || !events.is_empty()).then_some(EventKinds { events });
            update(&api, UpdateEndpointRequest { endpoint_id: id, url, events, description, active: None }, out).await
        }
        EndpointsCommand::Pause { id } => update(&api, switched(id, false), out).await,
        EndpointsCommand::Resume { id } => update(&api, switched(id, true), out).await,
        EndpointsCommand::Rotate { id, ed25519, grace } => {
            let grace = prost_types::Duration::try_from(span(&grace)?).ok();
            let request = RotateEndpointSecretRequest { endpoint_id: id, signature: signature(ed25519).into(), grace };
            let key = client.rotate_endpoint_secret(request).await?.into_inner().key;
            out.answer(&json!({"key": key}), || format!("it signs from now on; shown this once:\n  {key}"))?;
            Ok(Exit::Ok)
        }
        EndpointsCommand::Test { id } => test(&api, id, out).await,
        EndpointsCommand::Redeliver { id, after, until } => {
            let request = RedeliverRequest { endpoint_id: id, after_seq: after, until_seq: until };
            let run = client.redeliver(request).await?.into_inner().endpoint_id;
            out.answer(&json!({"redelivery": run}), || {
                format!("{run} is under way; `mailfleet endpoints list` shows how far")
            })?;
            Ok(Exit::Ok)
        }
        EndpointsCommand::Retry { id } => {
            let retried = client.retry_events(RetryEventsRequest { endpoint_id: id }).await?.into_inner().retried;
            out.answer(&json!({"retried": retried}), || format!("{} events are tried again", grouped(retried)))?;
            Ok(Exit::Ok)
        }
        EndpointsCommand::Delete { id } => {
            client.delete_endpoint(DeleteEndpointRequest { endpoint_id: id.clone() }).await?;
            out.answer(&json!({"deleted": id}), || format!("{id} is removed"))?;
            Ok(Exit::Ok)
        }
    }
}

const fn signature(ed25519: bool) -> SignatureKind {
    if ed25519 { SignatureKind::Ed25519 } else { SignatureKind::Hmac }
}

fn switched(id: String, active: bool) -> UpdateEndpointRequest {
    UpdateEndpointRequest { endpoint_id: id, active: Some(active), ..UpdateEndpointRequest::default() }
}

async fn update(api: &Client, request: UpdateEndpointRequest, out: Output) -> anyhow::Result<Exit> {
    let endpoint = api.endpoints().update_endpoint(request).await?.into_inner().endpoint.unwrap_or_default();
    out.answer(&as_json(&endpoint), || told(&endpoint))?;
    Ok(Exit::Ok)
}

async fn get(api: &Client, id: &str) -> anyhow::Result<Endpoint> {
    let request = GetEndpointRequest { endpoint_id: id.to_owned() };
    Ok(api.endpoints().get_endpoint(request).await?.into_inner().endpoint.unwrap_or_default())
}

async fn test(api: &Client, id: String, out: Output) -> anyhow::Result<Exit> {
    api.endpoints().test_endpoint(TestEndpointRequest { endpoint_id: id.clone() }).await?;
    let looking = async {
        loop {
            let endpoint = get(api, &id).await?;
            if !endpoint.test_result.is_empty() {
                return anyhow::Ok(endpoint.test_result);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let Ok(result) = tokio::time::timeout(TEST_LIMIT, looking).await else {
        return Err(Failure::unavailable("nobody has posted it within 30 s; does feedback run?"));
    };
    let result = result?;
    let is_taken = result.starts_with("taken");
    out.answer(&json!({"taken": is_taken, "result": result}), || safe(&result))?;
    Ok(if is_taken { Exit::Ok } else { Exit::Finding })
}

async fn list(api: &Client, out: Output) -> anyhow::Result<Exit> {
    let mut client = api.endpoints();
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = client.list_endpoints(ListEndpointsRequest { page_size: PAGE, page_token }).await?.into_inner();
        found.extend(page.endpoints);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    out.answer(&found.iter().map(as_json).collect::<Vec<_>>(), || {
        if found.is_empty() {
            return "there is none; `mailfleet endpoints create URL` makes one".to_owned();
        }
        let mut table = Table::new(0, &["endpoint", "where", "state", "behind", "parked", "given up", "last wrong"]);
        for endpoint in &found {
            table.row(vec![
                endpoint.endpoint_id.clone(),
                safe(&endpoint.url),
                state(endpoint),
                grouped(endpoint.behind),
                grouped(endpoint.parked),
                grouped(endpoint.given_up),
                safe(if endpoint.why.is_empty() { &endpoint.last_error } else { &endpoint.why }),
            ]);
        }
        table.text()
    })?;
    Ok(Exit::Ok)
}

fn state(endpoint: &Endpoint) -> String {
    let word = match endpoint.state() {
        EndpointState::Active | EndpointState::Unspecified if endpoint.failures > 0 => "failing",
        EndpointState::Active | EndpointState::Unspecified => "active",
        EndpointState::Paused => "paused",
        EndpointState::Disabled => "disabled",
    };
    if endpoint.redelivery_of.is_empty() { word.to_owned() } else { format!("{word} redelivery") }
}

fn told(endpoint: &Endpoint) -> String {
    let kinds = if endpoint.events.is_empty() { "all events".to_owned() } else { endpoint.events.join(", ") };
    let mut text = format!("{}: {} to {}, {}\n", endpoint.endpoint_id, kinds, safe(&endpoint.url), state(endpoint));
    if endpoint.failures > 0 {
        text.push_str(&format!(
            "it has taken nothing since {}: {}\n",
            when(endpoint.failing_since.as_ref()),
            safe(&endpoint.last_error)
        ));
    }
    if !endpoint.why.is_empty() {
        text.push_str(&format!("{}\n", safe(&endpoint.why)));
    }
    text
}

fn as_json(endpoint: &Endpoint) -> Value {
    let time = |stamp: &Option<prost_types::Timestamp>| stamp.as_ref().map(api::time);
    json!({
        "endpoint_id": endpoint.endpoint_id, "url": endpoint.url, "events": endpoint.events,
        "description": endpoint.description, "state": state(endpoint), "why": endpoint.why, "seq": endpoint.seq,
        "behind": endpoint.behind, "failures": endpoint.failures, "failing_since": time(&endpoint.failing_since),
        "next_at": time(&endpoint.next_at), "succeeded_at": time(&endpoint.succeeded_at),
        "last_error": endpoint.last_error, "parked": endpoint.parked, "given_up": endpoint.given_up,
        "test_result": endpoint.test_result, "redelivery_of": endpoint.redelivery_of, "until_seq": endpoint.until_seq,
        "created_at": time(&endpoint.created_at),
    })
}
