//! `MailService`.

use crate::{
    Fault,
    auth::{Caller, KeyRing, Scope},
    gate::CallTrace,
    intake::{Intake, Kind, Taken},
    list, message,
    status::reason_name,
    validate::id,
    watch::Watchers,
    wire::duration,
};
use domain::{BatchId, MessageId};
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use prost::Message;
use proto::v1::{
    CancelBatchRequest, CancelBatchResponse, CancelMessageRequest, CancelMessageResponse, GetMessageRequest,
    GetMessageResponse, ListMessagesRequest, ListMessagesResponse, RecipientResult, SendBatchRequest,
    SendBatchResponse, SendMessageRequest, SendMessageResponse, StreamMessagesRequest, StreamMessagesResponse,
    StreamRefusal, WatchEventsRequest, WatchEventsResponse, mail_service_server::MailService,
    recipient_result::Outcome, stream_messages_response,
};
use service::Lifecycle;
use std::sync::Arc;
use store::Store;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

/// The unit in which the octets of a stream are counted.
const KIB: usize = 1024;

/// Takes mail in, tells what became of it, calls it back.
#[derive(Clone)]
pub struct Mail {
    /// Takes it in.
    pub intake: Arc<Intake>,
    /// Knows the rest.
    pub store: Store,
    /// Looks at the keys of streams again.
    pub keys: Arc<KeyRing>,
    /// Ends streams.
    pub life: Lifecycle,
    /// Mails of one stream that are taken in ahead of their answers.
    pub stream_window: usize,
    /// Octets of one stream, likewise.
    pub stream_bytes: usize,
    /// Those who watch events.
    pub watchers: Arc<Watchers>,
}

/// The caller that the gate found.
///
/// # Errors
/// When there was no gate: nobody is let in by mistake.
pub fn caller<T>(request: &Request<T>) -> Result<Caller, Fault> {
    request.extensions().get::<Caller>().copied().ok_or(Fault::Unauthenticated)
}

impl Mail {
    async fn send_one(
        &self,
        caller: &Caller,
        trace: CallTrace,
        request: SendMessageRequest,
    ) -> Result<SendMessageResponse, Fault> {
        let tenant = caller.tenant(Scope::Send)?;
        let SendMessageRequest { mail, recipients, idempotency_key } = request;
        let request = SendBatchRequest { mail, recipients, idempotency_key };
        let taken = self.intake.take(tenant, trace, Kind::MESSAGE, request).await?;
        Ok(SendMessageResponse {
            batch_id: taken.batch.to_string(),
            message_ids: (0..taken.size).map(|at| MessageId::of_batch(taken.batch, at).to_string()).collect(),
            replayed: taken.replayed,
        })
    }

    /// One mail of a stream: a refusal is an answer, an invalid key ends the stream.
    async fn stream_one(
        self,
        caller: Caller,
        trace: CallTrace,
        position: u64,
        request: StreamMessagesRequest,
    ) -> Result<StreamMessagesResponse, Status> {
        self.keys.still(&caller).await?;
        let sent = self.send_one(&caller, trace, request.message.unwrap_or_default()).await;
        let outcome = match sent {
            Ok(accepted) => stream_messages_response::Outcome::Accepted(accepted),
            Err(fault) => {
                let refusals = fault.refusals();
                let retry_after = fault.retry_after().map(duration);
                // The stream as a whole succeeds, so the gate does not see this refusal.
                self.intake.metrics.count_refusal(reason_name(fault.reason()));
                let status = Status::from(fault);
                stream_messages_response::Outcome::Refused(StreamRefusal {
                    code: status.code().into(),
                    refusals,
                    retry_after,
                })
            }
        };
        Ok(StreamMessagesResponse { position, outcome: Some(outcome) })
    }

    fn answers(
        &self,
        caller: Caller,
        trace: CallTrace,
        requests: impl Stream<Item = Result<StreamMessagesRequest, Status>> + Send + 'static,
    ) -> BoxStream<'static, Result<StreamMessagesResponse, Status>> {
        let room = Arc::new(Semaphore::new(self.stream_bytes / KIB));
        let most = self.stream_bytes / KIB;
        let service = self.clone();
        let life = self.life.clone();
        let stopped = async move { life.shutdown_requested().await };
        let life = self.life.clone();
        requests
            .take_until(stopped)
            .enumerate()
            .then(move |(position, request)| {
                // Holds the caller back by not reading on: the window of HTTP/2 closes.
                let room = room.clone();
                async move {
                    let request = request?;
                    let units = u32::try_from((request.encoded_len() / KIB + 1).min(most)).unwrap_or(u32::MAX);
                    let place = room.acquire_many_owned(units).await.map_err(|_| Fault::Stopping)?;
                    Ok::<_, Status>((position, request, place))
                }
            })
            .map(move |taken| {
                let service = service.clone();
                async move {
                    let (position, request, place) = taken?;
                    let answer = service.stream_one(caller, trace, u64::try_from(position).unwrap_or(0), request).await;
                    drop(place);
                    answer
                }
            })
            .buffered(self.stream_window)
            .chain(
                stream::once(async move { life.is_shutting_down() })
                    .filter_map(|stopping| async move { stopping.then(|| Err(Status::from(Fault::Stopping))) }),
            )
            .boxed()
    }
}

fn batch_response(taken: Taken) -> SendBatchResponse {
    let refused_number = u32::try_from(taken.refused.len()).unwrap_or(u32::MAX);
    let mut refused = taken.refused.into_iter().peekable();
    let results = (0..taken.size)
        .map(|at| {
            let outcome = match refused.next_if(|(position, _)| *position == at) {
                Some((_, violation)) => Outcome::Refused(violation.to_refusal()),
                None => Outcome::MessageId(MessageId::of_batch(taken.batch, at).to_string()),
            };
            RecipientResult { outcome: Some(outcome) }
        })
        .collect();
    SendBatchResponse {
        batch_id: taken.batch.to_string(),
        results,
        accepted: taken.size.saturating_sub(refused_number),
        refused: refused_number,
        replayed: taken.replayed,
    }
}

#[tonic::async_trait]
impl MailService for Mail {
    type StreamMessagesStream = BoxStream<'static, Result<StreamMessagesResponse, Status>>;
    type WatchEventsStream = BoxStream<'static, Result<WatchEventsResponse, Status>>;

    async fn send_message(
        &self,
        request: Request<SendMessageRequest>,
    ) -> Result<Response<SendMessageResponse>, Status> {
        let caller = caller(&request)?;
        let trace = trace_of(&request);
        Ok(Response::new(self.send_one(&caller, trace, request.into_inner()).await?))
    }

    async fn send_batch(&self, request: Request<SendBatchRequest>) -> Result<Response<SendBatchResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Send)?;
        let trace = trace_of(&request);
        let taken = self.intake.take(tenant, trace, Kind::BATCH, request.into_inner()).await?;
        Ok(Response::new(batch_response(taken)))
    }

    async fn stream_messages(
        &self,
        request: Request<Streaming<StreamMessagesRequest>>,
    ) -> Result<Response<Self::StreamMessagesStream>, Status> {
        let caller = caller(&request)?;
        caller.tenant(Scope::Send)?;
        let trace = trace_of(&request);
        Ok(Response::new(self.answers(caller, trace, request.into_inner())))
    }

    async fn list_messages(
        &self,
        request: Request<ListMessagesRequest>,
    ) -> Result<Response<ListMessagesResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Read)?;
        Ok(Response::new(list::page(&self.store, tenant, request.get_ref()).await?))
    }

    async fn watch_events(
        &self,
        request: Request<WatchEventsRequest>,
    ) -> Result<Response<Self::WatchEventsStream>, Status> {
        let caller = caller(&request)?;
        Ok(Response::new(self.watchers.watch(caller, request.into_inner(), self.life.clone()).await?))
    }

    async fn get_message(&self, request: Request<GetMessageRequest>) -> Result<Response<GetMessageResponse>, Status> {
        let tenant = caller(&request)?.tenant_or_all(Scope::Read)?;
        let id: MessageId = id("message_id", &request.get_ref().message_id).map_err(one_fault)?;
        let view = self.store.message(tenant, id).await.map_err(Fault::from)?;
        let view = view.ok_or(Fault::NotFound { what: "message" })?;
        Ok(Response::new(message::answer(view)))
    }

    async fn cancel_message(
        &self,
        request: Request<CancelMessageRequest>,
    ) -> Result<Response<CancelMessageResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Send)?;
        let id: MessageId = id("message_id", &request.get_ref().message_id).map_err(one_fault)?;
        if !self.store.cancel_message(tenant, id).await.map_err(Fault::from)? {
            return Err(Fault::NotFound { what: "message" }.into());
        }
        let view = self.store.message(Some(tenant), id).await.map_err(Fault::from)?;
        let view = view.ok_or(Fault::NotFound { what: "message" })?;
        tracing::info!(tenant.id = %tenant, message.id = %id, "cancelled a message");
        Ok(Response::new(CancelMessageResponse { state: message::state(&view.whereabouts).into() }))
    }

    async fn cancel_batch(
        &self,
        request: Request<CancelBatchRequest>,
    ) -> Result<Response<CancelBatchResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Send)?;
        let id: BatchId = id("batch_id", &request.get_ref().batch_id).map_err(one_fault)?;
        if !self.store.cancel_batch(tenant, id).await.map_err(Fault::from)? {
            return Err(Fault::NotFound { what: "batch" }.into());
        }
        tracing::info!(tenant.id = %tenant, batch.id = %id, "cancelled a batch");
        Ok(Response::new(CancelBatchResponse {}))
    }
}

fn trace_of<T>(request: &Request<T>) -> CallTrace {
    request.extensions().get().copied().unwrap_or_default()
}

/// A request with a single fault.
pub fn one_fault(violation: crate::validate::Violation) -> Fault {
    Fault::Invalid(vec![violation])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::Violation;
    use proto::v1::ErrorReason;

    #[test]
    fn each_recipient_of_a_batch_has_its_result() {
        let batch = BatchId::new(chrono::DateTime::UNIX_EPOCH);
        let violation = Violation::of(ErrorReason::RecipientInvalid, "recipients[1].email", "is empty");
        let response = batch_response(Taken { batch, size: 3, refused: vec![(1, violation)], replayed: false });
        assert_eq!((response.accepted, response.refused), (2, 1));
        let ids: Vec<_> = response
            .results
            .iter()
            .map(|result| match &result.outcome {
                Some(Outcome::MessageId(id)) => Some(id.clone()),
                _ => None,
            })
            .collect();
        let of = |at| Some(MessageId::of_batch(batch, at).to_string());
        assert_eq!(ids, [of(0), None, of(2)]);
    }
}
