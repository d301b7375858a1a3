//! What a caller of the API is promised.

use crate::addresses;
use domain::Closing;
use mailfleet_tests::{ALL_SCOPES, Fleet, Kind, Post, fields, mail, reason};
use proto::v1::{
    self, ErrorReason, KeyScope, MessageState, domain_service_client::DomainServiceClient, recipient_result::Outcome,
    stream_messages_response::Outcome as Answer, suppression_service_client::SuppressionServiceClient,
    template_service_client::TemplateServiceClient, tenant_service_client::TenantServiceClient,
};
use std::{num::NonZeroUsize, time::Duration};
use testkit::until;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::StatusExt;

#[tokio::test]
async fn a_repeated_call_gets_the_same_answer_and_sends_nothing_twice() {
    let fleet = Fleet::start().await;
    let post = mail().to("ann@receiver.test").to("bob@receiver.test").key("order-17");
    let first = fleet.mails().send_message(post.clone().message()).await.unwrap().into_inner();
    let ids = fleet.know(&first.message_ids);
    for id in &ids {
        fleet.ended(*id).await;
    }
    // Also when everything is over already.
    let again = fleet.mails().send_message(post.clone().message()).await.unwrap().into_inner();
    assert_eq!((&again.batch_id, &again.message_ids), (&first.batch_id, &first.message_ids));
    assert!(again.replayed && !first.replayed);
    let other = fleet.mails().send_message(post.to("eve@receiver.test").message()).await.unwrap_err();
    assert_eq!((other.code(), reason(&other).as_str()), (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(fleet.assert_sound().await.of(Closing::Delivered), 2);
}

#[tokio::test]
async fn a_hundred_calls_with_one_key_at_the_same_time_are_one() {
    let fleet = Fleet::start().await;
    let calls = (0..100).map(|_| {
        let mut mails = fleet.mails();
        async move { mails.send_message(mail().to("ann@receiver.test").key("once").message()).await }
    });
    let answers = futures_util::future::join_all(calls).await;
    let mut ids: Vec<String> =
        answers.into_iter().map(|answer| answer.unwrap().into_inner().message_ids.remove(0)).collect();
    ids.dedup();
    assert_eq!(ids.len(), 1);
    fleet.know(&ids);
    assert_eq!(fleet.assert_sound().await.of(Closing::Delivered), 1);
}

#[tokio::test]
async fn a_batch_refuses_recipients_one_by_one_while_the_good_ones_go() {
    let fleet = Fleet::start().await;
    let mut post = mail().to("ann@receiver.test").to("not an address").to("bob@receiver.test").to("ANN@receiver.test");
    post.recipients.push(v1::Recipient {
        email: "cem@receiver.test".to_owned(),
        variables_json: "[1]".to_owned(),
        ..v1::Recipient::default()
    });
    let (answer, ids) = fleet.submit_batch(post).await;
    assert_eq!((answer.accepted, answer.refused), (2, 3));
    let refusals: Vec<_> = answer
        .results
        .iter()
        .filter_map(|result| match &result.outcome {
            Some(Outcome::Refused(refusal)) => Some((refusal.reason(), refusal.field.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(
        refusals,
        [
            (ErrorReason::RecipientInvalid, "recipients[1].email"),
            (ErrorReason::RecipientRepeated, "recipients[3].email"),
            (ErrorReason::VariablesInvalid, "recipients[4].variables_json"),
        ]
    );
    for id in ids.into_iter().flatten() {
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered);
    }
    assert_eq!(fleet.assert_sound().await.of(Closing::Delivered), 2);
}

#[tokio::test]
async fn ten_thousand_recipients_are_taken_and_a_hundred_thousand_are_not() {
    let fleet = Fleet::builder().without(Kind::Dispatcher).without(Kind::Renderer).without(Kind::Sender).start().await;
    let many = mail().to_all(addresses(100_000, "r", "receiver.test"));
    let refused = fleet.mails().send_batch(many.batch()).await.unwrap_err();
    assert_eq!((refused.code(), fields(&refused)), (Code::InvalidArgument, vec!["recipients".to_owned()]));
    assert_eq!(fleet.store.audit().await.unwrap().messages, 0);
    let full = mail().to_all(addresses(10_000, "r", "receiver.test"));
    let taken = fleet.mails().send_batch(full.batch()).await.unwrap().into_inner();
    assert_eq!((taken.accepted, taken.refused), (10_000, 0));
    let audit = fleet.store.audit().await.unwrap();
    assert_eq!((audit.messages, audit.open), (10_000, 10_000));
    assert!(audit.is_clean());
}

#[tokio::test]
async fn a_variable_that_is_missing_fails_its_recipient_alone_and_is_named() {
    let fleet = Fleet::start().await;
    let create = v1::CreateTemplateRequest { name: "welcome".to_owned() };
    fleet.templates().create_template(create).await.unwrap();
    let source = v1::PublishTemplateVersionRequest {
        template: "welcome".to_owned(),
        subject: "Welcome {{ name }}".to_owned(),
        body: Some(v1::publish_template_version_request::Body::Mjml(
            "<mjml><mj-body><mj-section><mj-column><mj-text>Hello {{ name }} of {{ city }}, {{ greeting }}</mj-text>\
             </mj-column></mj-section></mj-body></mjml>"
                .to_owned(),
        )),
        defaults_json: r#"{"greeting":"be welcome"}"#.to_owned(),
        ..Default::default()
    };
    fleet.templates().publish_template_version(source).await.unwrap();
    let template = v1::TemplateRef { template: "welcome".to_owned(), version: 1 };
    let post = mail()
        .with(|mail| mail.content = Some(v1::mail::Content::Template(template)))
        .to_with("ann@receiver.test", serde_json::json!({"name": "Ann <b>", "city": "Ulm"}))
        .to_with("bob@receiver.test", serde_json::json!({"name": "Bob"}))
        .to_with("cem@receiver.test", serde_json::json!({"name": "Cem", "city": "Bonn"}));
    let (_, ids) = fleet.submit_batch(post).await;
    let failed = fleet.ended(ids[1].unwrap()).await;
    assert_eq!(failed.state(), MessageState::Failed);
    let why = failed.timeline.last().unwrap();
    assert!(why.text.contains("city"), "{why:?}");
    for index in [0, 2] {
        assert_eq!(fleet.ended(ids[index].unwrap()).await.state(), MessageState::Delivered);
    }
    let copy = String::from_utf8(fleet.sink.mails_to("ann@receiver.test")[0].body.to_vec()).unwrap();
    assert!(copy.contains("be welcome") && copy.contains("Ulm"), "{copy}");
    assert!(copy.contains("Hello Ann &lt;b&gt; of Ulm"), "escaped in the HTML part: {copy}");
    assert!(copy.contains("Hello Ann <b> of Ulm"), "and not in the text part: {copy}");
    let verdict = fleet.assert_sound().await;
    assert_eq!((verdict.of(Closing::Delivered), verdict.of(Closing::Failed)), (2, 1));
}

#[tokio::test]
async fn without_a_good_key_nothing_is_answered_and_a_revoked_one_is_over_within_its_term() {
    let fleet = Fleet::start().await;
    let made = fleet.new_key(&fleet.tenant, &ALL_SCOPES).await;
    let accepted =
        fleet.mails_with(&made.api_key).send_message(mail().to("ann@receiver.test").message()).await.unwrap();
    fleet.know(&accepted.into_inner().message_ids);
    let revoke = v1::RevokeApiKeyRequest { api_key_id: made.api_key_id };
    fleet.tenants().revoke_api_key(revoke).await.unwrap();
    let begun = tokio::time::Instant::now();
    let unread = v1::GetMessageRequest { message_id: "00000000-0000-7000-8000-000000000000".to_owned() };
    until("the revoked key is refused", async || {
        let answer = fleet.mails_with(&made.api_key).get_message(unread.clone()).await;
        answer.unwrap_err().code() == Code::Unauthenticated
    })
    .await;
    assert!(begun.elapsed() < fleet.settings.ingest.key_term + Duration::from_secs(3), "{:?}", begun.elapsed());
    let wrong = format!("{}x", fleet.key);
    let mut answers = Vec::new();
    for key in [made.api_key.as_str(), wrong.as_str(), "", "mf_nothing"] {
        let refused = fleet.mails_with(key).get_message(unread.clone()).await.unwrap_err();
        answers.push((refused.code(), refused.message().to_owned()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    let mut bare = v1::mail_service_client::MailServiceClient::new(fleet.plain());
    assert_eq!(bare.get_message(unread).await.unwrap_err().code(), Code::Unauthenticated);
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say_and_sees_its_own_tenant_alone() {
    let fleet = Fleet::start().await;
    let id =
        fleet.submit(mail().to("ann@receiver.test").key("k").campaign("0190a0b0-0000-7000-8000-000000000001")).await;
    let own = fleet.get(id).await;
    let (_, stranger) = fleet.new_tenant("stranger").await;
    let mut other = fleet.mails_with(&stranger);
    let message_id = id.to_string();
    for refused in [
        other.get_message(v1::GetMessageRequest { message_id: message_id.clone() }).await.map(drop),
        other.cancel_message(v1::CancelMessageRequest { message_id }).await.map(drop),
        other.cancel_batch(v1::CancelBatchRequest { batch_id: own.batch_id.clone() }).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    }
    // Its domain, its templates and its idempotency keys are its own as well.
    let refused = other.send_message(mail().to("bob@receiver.test").key("k").message()).await.unwrap_err();
    assert_eq!(reason(&refused), "SENDING_DOMAIN_UNKNOWN");
    let domain = v1::GetDomainRequest { domain: "example.com".to_owned() };
    assert_eq!(fleet.domains_with(&stranger).get_domain(domain.clone()).await.unwrap_err().code(), Code::NotFound);

    let reads = fleet.new_key(&fleet.tenant, &[KeyScope::Read]).await.api_key;
    assert!(fleet.mails_with(&reads).get_message(v1::GetMessageRequest { message_id: id.to_string() }).await.is_ok());
    let line = fleet.line(&reads);
    let template = v1::CreateTemplateRequest { name: "t".to_owned() };
    let suppression =
        v1::AddSuppressionRequest { emails: vec!["a@b.test".to_owned()], reason: String::new(), ..Default::default() };
    let tenant = v1::CreateTenantRequest { name: "mine".to_owned() };
    for refused in [
        fleet.mails_with(&reads).send_message(mail().to("bob@receiver.test").message()).await.map(drop),
        TemplateServiceClient::new(line.clone()).create_template(template).await.map(drop),
        DomainServiceClient::new(line.clone()).get_domain(domain).await.map(drop),
        SuppressionServiceClient::new(line.clone()).add_suppression(suppression).await.map(drop),
        TenantServiceClient::new(line).create_tenant(tenant).await.map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "SCOPE_MISSING"));
    }
    fleet.assert_sound().await;
}

#[tokio::test]
async fn a_stream_is_answered_in_order_and_holds_its_caller_back() {
    const MAILS: usize = 400;
    const WINDOW: usize = 8;
    let fleet = Fleet::builder()
        .settings(|settings| settings.ingest.server.stream_window = NonZeroUsize::new(WINDOW).unwrap())
        .start()
        .await;
    let (sender, receiver) = mpsc::channel(1);
    let mut feeding = tokio::task::JoinSet::new();
    feeding.spawn(async move {
        for index in 0..MAILS {
            if sender.send(v1::StreamMessagesRequest { message: Some(padded(index).message()) }).await.is_err() {
                return;
            }
        }
    });
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = fleet.mails().stream_messages(requests).await.unwrap().into_inner();
    let mut again = Vec::new();
    for position in 0..MAILS {
        let answer = answers.next().await.unwrap().unwrap();
        assert_eq!(answer.position, position as u64);
        match answer.outcome.unwrap() {
            Answer::Accepted(accepted) => drop(fleet.know(&accepted.message_ids)),
            Answer::Refused(refused) if refused.code == Code::Unavailable as i32 => again.push(position),
            Answer::Refused(refused) => {
                assert_eq!((position, refused.code), (7, Code::InvalidArgument as i32));
                assert_eq!(refused.refusals[0].field, "recipients[0].email");
            }
        }
    }
    assert!(answers.next().await.is_none());
    // Only where calls go wrong on purpose: a client sends these again, under their keys.
    assert!(again.is_empty() || fleet.settings.faults.is_some(), "{again:?}");
    for position in again {
        fleet.submit(padded(position)).await;
    }
    assert_eq!(fleet.assert_sound().await.of(Closing::Delivered), MAILS - 1);
}

/// One mail of a stream, with a body of 16 KB, so that the flow control has something to hold back. The eighth is refused.
fn padded(position: usize) -> Post {
    let email = if position == 7 { "nobody".to_owned() } else { format!("r{position}@receiver.test") };
    mail().to(&email).key(&format!("streamed-{position}")).with(|mail| {
        if let Some(v1::mail::Content::Inline(inline)) = &mut mail.content {
            inline.text = "x".repeat(16 * 1024);
        }
    })
}

fn keyed(index: u64) -> Post {
    mail().to(&format!("r{index}@receiver.test")).key(&format!("k{index}"))
}

#[tokio::test]
async fn a_service_that_stops_answers_what_it_has_taken_in() {
    // Time enough for a machine that has much else to do.
    let drain = Duration::from_secs(40);
    let mut fleet = Fleet::builder().settings(|settings| settings.ingest.server.drain = drain).start().await;
    let (sender, receiver) = mpsc::channel(1);
    let mut feeding = tokio::task::JoinSet::new();
    feeding.spawn(async move {
        for index in 0.. {
            let message = Some(keyed(index).message());
            if sender.send(v1::StreamMessagesRequest { message }).await.is_err() {
                return;
            }
        }
    });
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = fleet.mails().stream_messages(requests).await.unwrap().into_inner();
    let (mut answered, mut refused) = (Vec::new(), Vec::new());
    let mut take = |answer: v1::StreamMessagesResponse| match answer.outcome {
        Some(Answer::Accepted(accepted)) => answered.extend(accepted.message_ids),
        _ => refused.push(answer.position),
    };
    for _ in 0..50 {
        take(answers.next().await.unwrap().unwrap());
    }
    let rest = async {
        loop {
            match answers.next().await {
                Some(Ok(answer)) => take(answer),
                Some(Err(status)) => break status.code(),
                None => panic!("ends as if all had been taken"),
            }
        }
    };
    let (code, ()) = tokio::join!(rest, fleet.stop("ingest"));
    // And no reset in its place, which would have taken answers along. A caller repeats with its keys.
    assert_eq!(code, Code::Unavailable);
    fleet.launch(Kind::Ingest, "ingest").await;
    for position in refused {
        // Told that its fate is unknown: the repeat tells.
        let repeat = fleet.mails().send_message(keyed(position).message()).await.unwrap().into_inner();
        answered.extend(repeat.message_ids);
    }
    // No message is stored that was not answered for.
    fleet.know(&answered);
    let verdict = fleet.assert_sound().await;
    assert_eq!(verdict.of(Closing::Delivered), answered.len());
}

#[tokio::test]
async fn pressure_is_told_with_a_delay_and_what_was_refused_is_not_stored() {
    let fleet = Fleet::builder()
        .settings(|settings| {
            settings.ingest.accept.committers = NonZeroUsize::MIN;
            settings.ingest.accept.max_queued_calls = NonZeroUsize::MIN;
        })
        .start()
        .await;
    let calls = (0..100).map(|index| {
        let mut mails = fleet.mails();
        async move { mails.send_message(mail().to(&format!("r{index}@receiver.test")).message()).await }
    });
    let (mut accepted, mut refused) = (0, 0);
    for answer in futures_util::future::join_all(calls).await {
        match answer {
            Ok(answer) => {
                fleet.know(&answer.into_inner().message_ids);
                accepted += 1;
            }
            Err(status) => {
                assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "OVERLOADED"));
                let delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
                assert!(delay.is_some_and(|delay| !delay.is_zero()));
                refused += 1;
            }
        }
    }
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
    assert_eq!(fleet.assert_sound().await.of(Closing::Delivered), accepted);
}

#[tokio::test]
async fn health_and_reflection_answer_without_a_key() {
    let fleet = Fleet::start().await;
    let health = HealthClient::new(fleet.plain());
    for service in ["", "readiness", "liveness", "mailfleet.v1.MailService", "mailfleet.v1.TenantService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        // A look at a neighbour that fails, as on purpose, is looked at again.
        until(&format!("{service:?} serves"), async || {
            let answer = health.clone().check(request.clone()).await.unwrap().into_inner();
            answer.status() == ServingStatus::Serving
        })
        .await;
    }
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(fleet.plain());
    let mut answers = reflection.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.next().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services")
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for service in ["Mail", "Template", "Domain", "Suppression", "Tenant"] {
        assert!(names.contains(&format!("mailfleet.v1.{service}Service").as_str()), "{names:?}");
    }
}
