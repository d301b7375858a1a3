//! `inbound`: the mails that came in.

use crate::{
    api,
    args::{InboundArgs, InboundCommand},
    exit::Exit,
    messages::moment,
    output::{Output, Table, grouped, safe},
    reach::Reach,
};
use proto::v1::{
    GetInboundRequest, InboundFilter, InboundMail, InboundState, ListInboundRequest, ReplayInboundRequest,
};
use serde_json::{Value, json};
use std::io::Write;

/// Mails of a page.
const PAGE: usize = 500;

/// Carries a command out.
pub async fn run(command: InboundCommand, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    match command {
        InboundCommand::List { which, limit } => list(&which, limit, reach, out).await,
        InboundCommand::Show { mail, raw } => show(mail, raw, reach, out).await,
        InboundCommand::Replay { mails, which } => {
            let filter = if mails.is_empty() { Some(filter(&which)?) } else { None };
            let request = ReplayInboundRequest { inbound_ids: mails, filter };
            let replayed = reach.api().await?.inbound().replay_inbound(request).await?.into_inner().replayed;
            out.answer(&json!({"replayed": replayed}), || {
                format!(
                    "{} mails are read anew; `mailfleet inbound list` shows what is made of them",
                    grouped(replayed)
                )
            })?;
            Ok(if replayed == 0 { Exit::Finding } else { Exit::Ok })
        }
    }
}

fn filter(which: &InboundArgs) -> anyhow::Result<InboundFilter> {
    let since = match &which.since {
        Some(text) => Some(api::stamp(moment(text, service::clock::now())?)),
        None => None,
    };
    let state = match which.state.as_deref() {
        Some("waiting") => InboundState::Waiting,
        Some("read") => InboundState::Read,
        Some(_) => InboundState::Dead,
        None => InboundState::Unspecified,
    };
    Ok(InboundFilter {
        message_id: which.message.clone().unwrap_or_default(),
        kind: which.kind.clone().unwrap_or_default(),
        state: state.into(),
        since,
    })
}

async fn list(which: &InboundArgs, limit: usize, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let filter = filter(which)?;
    let mut client = reach.api().await?.inbound();
    let (mut found, mut page_token) = (Vec::new(), String::new());
    while found.len() < limit {
        let page_size = u32::try_from((limit - found.len()).min(PAGE)).unwrap_or(1);
        let request = ListInboundRequest { filter: Some(filter.clone()), page_size, page_token };
        let answer = client.list_inbound(request).await?.into_inner();
        found.extend(answer.mails);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let more = !page_token.is_empty();
    let mails: Vec<Value> = found.iter().map(as_json).collect();
    out.answer(&json!({"mails": mails, "more": more}), || {
        if found.is_empty() {
            return "no such mail came in".to_owned();
        }
        let mut table = Table::new(0, &["received", "mail", "what", "message", "says"]);
        for mail in &found {
            let what = if mail.kind.is_empty() { word(mail.state()) } else { &mail.kind };
            table.row(vec![
                mail.received_at.as_ref().map(|at| api::time(at).format("%F %T").to_string()).unwrap_or_default(),
                mail.inbound_id.clone(),
                safe(what),
                mail.message_id.clone(),
                safe(&summary(mail)),
            ]);
        }
        if more { format!("{}there are more; --limit N shows them", table.text()) } else { table.text() }
    })?;
    Ok(Exit::Ok)
}

async fn show(inbound_id: String, raw: bool, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let request = GetInboundRequest { inbound_id };
    let answer = reach.api().await?.inbound().get_inbound(request).await?.into_inner();
    if raw {
        std::io::stdout().lock().write_all(&answer.raw)?;
        return Ok(Exit::Ok);
    }
    let mail = answer.mail.unwrap_or_default();
    out.answer(&as_json(&mail), || {
        let outcome: Value = serde_json::from_str(&mail.outcome).unwrap_or_default();
        let said = serde_json::to_string_pretty(&outcome).unwrap_or_default();
        let sender = if mail.sender.is_empty() { "<>".to_owned() } else { safe(&mail.sender) };
        let tls = if mail.tls { ", under TLS" } else { "" };
        format!(
            "{} octets from {sender} to {}, brought by {} [{}]{tls}\n{}\n{}",
            grouped(mail.octets),
            safe(&mail.recipient),
            safe(&mail.helo),
            mail.remote,
            if mail.kind.is_empty() { word(mail.state()) } else { &mail.kind },
            if mail.outcome.is_empty() { String::new() } else { said },
        )
    })?;
    Ok(Exit::Ok)
}

const fn word(state: InboundState) -> &'static str {
    match state {
        InboundState::Waiting => "waiting",
        InboundState::Dead => "dead",
        InboundState::Read | InboundState::Unspecified => "read",
    }
}

/// What a mail says, in a line.
fn summary(mail: &InboundMail) -> String {
    let outcome: Value = serde_json::from_str(&mail.outcome).unwrap_or_default();
    if let Some(error) = outcome["error"].as_str() {
        return error.to_owned();
    }
    let of = |finding: &Value| -> Vec<String> {
        ["recipient", "class", "status", "diagnostic"]
            .iter()
            .filter_map(|key| Some(finding[*key].as_str()?.to_owned()))
            .collect()
    };
    outcome["findings"].as_array().and_then(|all| Some(of(all.first()?).join(" "))).unwrap_or_default()
}

fn as_json(mail: &InboundMail) -> Value {
    json!({
        "inbound_id": mail.inbound_id, "received_at": mail.received_at.as_ref().map(api::time), "door": mail.door,
        "message_id": Some(&mail.message_id).filter(|id| !id.is_empty()), "sender": mail.sender,
        "recipient": mail.recipient, "remote": mail.remote, "helo": mail.helo, "tls": mail.tls, "octets": mail.octets,
        "state": word(mail.state()), "tries": mail.tries, "kind": mail.kind,
        "outcome": serde_json::from_str::<Value>(&mail.outcome).unwrap_or_default(),
        "read_at": mail.read_at.as_ref().map(api::time),
    })
}
