//! `InboundService`: the mails that came in.

use crate::{
    Fault,
    auth::{Caller, Scope},
    cursor::{self, List},
    mail::{caller, one_fault},
    validate::{Faults, Violation, free_text, id},
    wire::timestamp,
};
use chrono::{DateTime, Utc};
use domain::InboundId;
use proto::v1::{
    GetInboundRequest, GetInboundResponse, InboundMail, InboundState, ListInboundRequest, ListInboundResponse,
    ReplayInboundRequest, ReplayInboundResponse, inbound_service_server::InboundService,
};
use store::{InboundEntry, InboundFilter, Store};
use tonic::{Request, Response, Status};

/// Most mails of a page.
pub const MAX_PAGE: u32 = 1_000;
/// Most names of one call.
pub const MAX_NAMED: usize = 1_000;
/// Most mails that one call has read anew.
const MAX_REPLAYED: u64 = 100_000;
/// Longest word for what a mail is.
const MAX_KIND: usize = 32;

/// Shows mails that came in.
pub struct Inbound {
    /// Where they are kept.
    pub store: Store,
}

fn admin<T>(request: &Request<T>) -> Result<Caller, Fault> {
    let caller = caller(request)?;
    caller.require(Scope::Admin)?;
    Ok(caller)
}

fn filter(given: Option<proto::v1::InboundFilter>) -> Result<InboundFilter, Fault> {
    let Some(given) = given else { return Ok(InboundFilter::default()) };
    let mut faults = Faults::default();
    let about = match given.message_id.as_str() {
        "" => None,
        text => faults.take(id("filter.message_id", text)),
    };
    faults.take(free_text("filter.kind", &given.kind, MAX_KIND));
    let state = match given.state() {
        InboundState::Unspecified => None,
        InboundState::Waiting => Some(store::InboundState::Waiting),
        InboundState::Read => Some(store::InboundState::Read),
        InboundState::Dead => Some(store::InboundState::Dead),
    };
    let since = given.since.and_then(|since| {
        let since = u32::try_from(since.nanos).ok().and_then(|nanos| DateTime::from_timestamp(since.seconds, nanos));
        if since.is_none() {
            faults.add("filter.since", "is no time; give one such as 2030-01-31T08:00:00Z");
        }
        since
    });
    let kind = Some(given.kind).filter(|kind| !kind.is_empty());
    faults.finish(Some(InboundFilter { about, kind, state, since }))
}

fn wire(entry: &InboundEntry) -> InboundMail {
    let mail = &entry.mail;
    InboundMail {
        inbound_id: mail.id.to_string(),
        received_at: Some(timestamp(mail.received_at)),
        door: mail.door.as_str().to_owned(),
        message_id: mail.about.map(|about| about.to_string()).unwrap_or_default(),
        sender: mail.sender.clone(),
        recipient: mail.recipient.clone(),
        remote: mail.remote.clone(),
        helo: mail.helo.clone(),
        tls: mail.tls,
        octets: entry.octets,
        state: match entry.state {
            store::InboundState::Waiting => InboundState::Waiting,
            store::InboundState::Read => InboundState::Read,
            store::InboundState::Dead => InboundState::Dead,
        }
        .into(),
        tries: entry.tries.into(),
        kind: entry.kind.clone().unwrap_or_default(),
        outcome: entry.outcome.as_ref().map(ToString::to_string).unwrap_or_default(),
        read_at: entry.read_at.map(timestamp),
    }
}

#[tonic::async_trait]
impl InboundService for Inbound {
    async fn list_inbound(
        &self,
        request: Request<ListInboundRequest>,
    ) -> Result<Response<ListInboundResponse>, Status> {
        admin(&request)?;
        let request = request.into_inner();
        let filters = ListInboundRequest { page_size: 0, page_token: String::new(), ..request.clone() };
        let size = cursor::size(request.page_size, MAX_PAGE).map_err(one_fault)?;
        let list = List::of("inbound", None, &filters);
        let filter = filter(request.filter)?;
        let place = |parts: &[&str]| parts.first()?.parse::<InboundId>().ok();
        let before = list.place(&request.page_token, place).map_err(one_fault)?;
        let mut found = self.store.list_inbound(&filter, before, size + 1).await.map_err(Fault::from)?;
        let next_page_token = list.cut(&mut found, size, |entry| vec![entry.mail.id.to_string()]);
        Ok(Response::new(ListInboundResponse { mails: found.iter().map(wire).collect(), next_page_token }))
    }

    async fn get_inbound(&self, request: Request<GetInboundRequest>) -> Result<Response<GetInboundResponse>, Status> {
        admin(&request)?;
        let id: InboundId = id("inbound_id", &request.get_ref().inbound_id).map_err(one_fault)?;
        let entry = self.store.inbound(id).await.map_err(Fault::from)?;
        let entry = entry.ok_or_else(|| Fault::NotFound { what: "mail that came in" })?;
        let mail = Some(wire(&entry));
        Ok(Response::new(GetInboundResponse { mail, raw: entry.mail.raw.into() }))
    }

    async fn replay_inbound(
        &self,
        request: Request<ReplayInboundRequest>,
    ) -> Result<Response<ReplayInboundResponse>, Status> {
        let caller = admin(&request)?;
        let request = request.into_inner();
        if request.inbound_ids.is_empty() && request.filter.is_none() {
            let fix = "is missing, and no filter is given; name mails, or say which";
            return Err(one_fault(Violation::new("inbound_ids", fix)).into());
        }
        if request.inbound_ids.len() > MAX_NAMED {
            let fix = format!("has more than {MAX_NAMED}; give them in several calls, or a filter");
            return Err(one_fault(Violation::new("inbound_ids", fix)).into());
        }
        let mut faults = Faults::default();
        let named = request.inbound_ids.iter().enumerate();
        let ids: Vec<InboundId> =
            named.filter_map(|(at, text)| faults.take(id(&format!("inbound_ids[{at}]"), text))).collect();
        let ids = faults.finish(Some(ids))?;
        let filter = filter(request.filter)?;
        let store = caller.acting(&self.store, "InboundService.ReplayInbound");
        let begun: DateTime<Utc> = store.now().await.map_err(Fault::from)?;
        let mut replayed = 0;
        while replayed < MAX_REPLAYED {
            match store.replay_inbound(&filter, &ids, begun).await.map_err(Fault::from)? {
                0 => break,
                some => replayed += some,
            }
        }
        tracing::info!(mails = replayed, "mails are read anew");
        Ok(Response::new(ReplayInboundResponse { replayed }))
    }
}
