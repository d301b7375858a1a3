//! `dead-letters`: what ended as failed, and sending it again.

use super::{args::DeadLettersCommand, page, when};
use crate::{
    api,
    exit::Exit,
    output::{Output, Table, grouped, safe},
    reach::Reach,
};
use client::Client;
use proto::v1::{DeadLetter, ListDeadLettersRequest, RequeueDeadLettersRequest, requeue_result::Outcome};
use serde_json::{Value, json};

/// Messages of one call.
const PIECE: usize = 500;
/// Most refused messages that are listed for people.
const MAX_LISTED: usize = 20;

pub async fn run(command: DeadLettersCommand, reach: &Reach, out: Output) -> anyhow::Result<Exit> {
    let api = reach.api_for_tenant().await?;
    match command {
        DeadLettersCommand::List { campaign, limit } => {
            let (found, more) = fetch(&api, campaign, limit).await?;
            let letters: Vec<Value> = found.iter().map(as_json).collect();
            out.answer(&json!({"dead_letters": letters, "more": more}), || told(&found, more))?;
            Ok(Exit::Ok)
        }
        DeadLettersCommand::Requeue { messages, all, campaign } => {
            let messages: Vec<String> = if all {
                let (found, _) = fetch(&api, campaign, usize::MAX).await?;
                found.into_iter().filter(|one| one.requeued_as.is_empty()).map(|one| one.message_id).collect()
            } else {
                messages
            };
            requeue(&api, &messages, out).await
        }
    }
}

/// Up to `limit` of them, and whether there are more.
async fn fetch(api: &Client, campaign: Option<String>, limit: usize) -> anyhow::Result<(Vec<DeadLetter>, bool)> {
    let mut client = api.queues();
    let campaign_id = campaign.unwrap_or_default();
    let mut found = Vec::new();
    let mut page_token = String::new();
    while found.len() < limit {
        let page_size = page(limit - found.len());
        let request = ListDeadLettersRequest { campaign_id: campaign_id.clone(), page_size, page_token };
        let answer = client.list_dead_letters(request).await?.into_inner();
        found.extend(answer.dead_letters);
        page_token = answer.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok((found, !page_token.is_empty()))
}

async fn requeue(api: &Client, messages: &[String], out: Output) -> anyhow::Result<Exit> {
    let mut client = api.queues();
    let (mut requeued, mut refused) = (Vec::new(), Vec::new());
    for piece in messages.chunks(PIECE) {
        let request = RequeueDeadLettersRequest { message_ids: piece.to_vec() };
        for result in client.requeue_dead_letters(request).await?.into_inner().results {
            match result.outcome {
                Some(Outcome::RequeuedAs(new)) => requeued.push((result.message_id, new)),
                Some(Outcome::Refusal(why)) => refused.push((result.message_id, why.description)),
                None => refused.push((result.message_id, String::new())),
            }
        }
        let (done, all) = (requeued.len() + refused.len(), messages.len());
        out.progress(&format!("{} of {}", grouped(done as i128), grouped(all as i128)));
    }
    out.progress_done();
    let pair = |first: &str, second: &str, pairs: &[(String, String)]| -> Vec<Value> {
        pairs.iter().map(|(old, new)| json!({first: old, second: new})).collect()
    };
    let value = json!({
        "requeued": pair("message_id", "requeued_as", &requeued), "refused": pair("message_id", "why", &refused),
    });
    out.answer(&value, || {
        let mut text = String::new();
        for (old, new) in requeued.iter().take(MAX_LISTED) {
            text.push_str(&format!("{old} goes again as {new}\n"));
        }
        for (old, why) in refused.iter().take(MAX_LISTED) {
            text.push_str(&format!("{old}: {}\n", safe(why)));
        }
        let (good, bad) = (grouped(requeued.len() as i128), grouped(refused.len() as i128));
        format!("{text}{good} requeued, {bad} refused")
    })?;
    Ok(if refused.is_empty() { Exit::Ok } else { Exit::Finding })
}

fn told(found: &[DeadLetter], more: bool) -> String {
    let mut table = Table::new(5, &["message", "failed at", "receiver", "requeued as", "why"]);
    for letter in found {
        table.row(vec![
            letter.message_id.clone(),
            when(letter.failed_at.as_ref()),
            safe(&letter.site),
            letter.requeued_as.clone(),
            safe(&letter.text),
        ]);
    }
    let rest = if more { "there are more; --limit shows them\n" } else { "" };
    if table.is_empty() { "no message has failed".to_owned() } else { format!("{}{rest}", table.text()) }
}

fn as_json(letter: &DeadLetter) -> Value {
    json!({
        "message_id": letter.message_id, "recipient": letter.recipient, "campaign_id": letter.campaign_id,
        "lane": letter.lane().as_str_name().trim_start_matches("LANE_").to_ascii_lowercase(), "site": letter.site,
        "failed_at": letter.failed_at.as_ref().map(api::time), "why": letter.text, "requeued_as": letter.requeued_as,
    })
}
