//! Lists of suppressions: in pages, in and out.

use super::*;
use proto::v1::{SuppressionCause, SuppressionScope};
use tokio_stream::StreamExt;

fn entry(email: &str, cause: SuppressionCause, scope: SuppressionScope) -> v1::ImportedSuppression {
    v1::ImportedSuppression { email: email.to_owned(), cause: cause.into(), scope: scope.into(), reason: String::new() }
}

impl House {
    fn suppressions(&self) -> SuppressionServiceClient<Line> {
        SuppressionServiceClient::new(self.line(&self.key))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_takes_good_entries_and_tells_the_bad_ones_by_position() {
    let house = House::start().await;
    let sent = house.mail().send_message(send("r1200@example.org", "")).await.unwrap().into_inner();
    let entries: Vec<v1::ImportedSuppression> = (0..2_500)
        .map(|n| match n {
            7 => entry("nobody", SuppressionCause::Manual, SuppressionScope::All),
            1_700 => v1::ImportedSuppression {
                cause: 99,
                ..entry("x@example.org", SuppressionCause::Manual, SuppressionScope::All)
            },
            _ => entry(&format!("r{n}@example.org"), SuppressionCause::HardBounce, SuppressionScope::All),
        })
        .collect();
    let pieces: Vec<_> =
        entries.chunks(1_000).map(|piece| v1::ImportSuppressionsRequest { entries: piece.to_vec() }).collect();
    let answer =
        house.suppressions().import_suppressions(tokio_stream::iter(pieces.clone())).await.unwrap().into_inner();
    assert_eq!((answer.read, answer.added, answer.refused, answer.messages_closed), (2_500, 2_498, 2, 1));
    let refused: Vec<_> = answer.refusals.iter().map(|one| (one.position, one.field.as_str())).collect();
    assert_eq!(refused, [(7, "email"), (1_700, "cause")]);
    assert!(answer.refusals.iter().all(|one| !one.description.contains("nobody")), "the value is repeated");
    let seen =
        house.mail().get_message(v1::GetMessageRequest { message_id: sent.message_ids[0].clone() }).await.unwrap();
    assert_eq!(seen.into_inner().state(), MessageState::Suppressed);
    // Repeating it adds nothing; a piece that is too large ends it, and what came before is there.
    let again = house.suppressions().import_suppressions(tokio_stream::iter(pieces)).await.unwrap().into_inner();
    assert_eq!((again.read, again.added), (2_500, 0));
    let small = vec![entry("last@example.org", SuppressionCause::Manual, SuppressionScope::All)];
    let pieces = [small, entries].map(|entries| v1::ImportSuppressionsRequest { entries });
    let ended = house.suppressions().import_suppressions(tokio_stream::iter(pieces)).await.unwrap_err();
    assert_eq!(fields(&ended), ["entries"]);
    let check = v1::CheckSuppressionRequest { email: "last@example.org".to_owned() };
    assert!(house.suppressions().check_suppression(check).await.unwrap().into_inner().suppressed);

    let mut exported = Vec::new();
    let mut pieces =
        house.suppressions().export_suppressions(v1::ExportSuppressionsRequest::default()).await.unwrap().into_inner();
    while let Some(piece) = pieces.message().await.unwrap() {
        assert!(piece.suppressions.len() <= 1_000);
        exported.extend(piece.suppressions.into_iter().map(|one| one.email));
    }
    assert_eq!(exported.len(), 2_499);
    exported.sort();
    exported.dedup();
    assert_eq!(exported.len(), 2_499);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_nobody_reads_gives_its_place_back() {
    let house = House::start_with(|config| {
        config.transfers.max_per_tenant = 1;
        config.transfers.idle = Duration::from_millis(300);
    })
    .await;
    // More than the connection's buffers take.
    let pieces: Vec<_> = (0..30)
        .map(|piece| {
            let entries = (0..1_000)
                .map(|n| v1::ImportedSuppression {
                    reason: "x".repeat(200),
                    ..entry(&format!("r{piece}-{n}@example.org"), SuppressionCause::Manual, SuppressionScope::All)
                })
                .collect();
            v1::ImportSuppressionsRequest { entries }
        })
        .collect();
    house.suppressions().import_suppressions(tokio_stream::iter(pieces)).await.unwrap();
    let export = async |key: &str| {
        let mut client = SuppressionServiceClient::new(house.line(key));
        client.export_suppressions(v1::ExportSuppressionsRequest::default()).await
    };
    let mut unread = export(&house.key).await.unwrap().into_inner();
    assert_eq!(reason(&export(&house.key).await.unwrap_err()), "OVERLOADED");
    let (_, other) = house.tenant_with_key("another").await;
    export(&other).await.unwrap();
    testkit::until("the place is free", async || export(&house.key).await.is_ok()).await;
    let end = loop {
        match unread.message().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert_eq!(end.unwrap_err().code(), Code::DeadlineExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_says_nothing_more_ends_and_what_it_said_stays() {
    let house = House::start_with(|config| config.transfers.idle = Duration::from_millis(300)).await;
    let piece = v1::ImportSuppressionsRequest {
        entries: vec![entry("ann@example.org", SuppressionCause::Manual, SuppressionScope::All)],
    };
    let silent = tokio_stream::iter([piece]).chain(tokio_stream::pending());
    let ended = tokio::time::timeout(testkit::LIMIT, house.suppressions().import_suppressions(silent)).await;
    assert_eq!(ended.expect("ends in time").unwrap_err().code(), Code::DeadlineExceeded);
    let kept = house.suppressions().list_suppressions(v1::ListSuppressionsRequest::default()).await.unwrap();
    assert_eq!(kept.into_inner().suppressions.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_filtered_by_cause_scope_and_time() {
    let house = House::start().await;
    let mut suppressions = house.suppressions();
    let add = |email: &str, cause: SuppressionCause, scope: SuppressionScope| v1::AddSuppressionRequest {
        emails: vec![email.to_owned()],
        reason: String::new(),
        cause: cause.into(),
        scope: scope.into(),
    };
    let first = add("a@example.org", SuppressionCause::Unsubscribe, SuppressionScope::Bulk);
    suppressions.add_suppression(first).await.unwrap();
    house.store.advance_clock(Duration::from_secs(60)).await.unwrap();
    let now = house.store.now().await.unwrap();
    let second = add("b@example.org", SuppressionCause::Complaint, SuppressionScope::Unspecified);
    suppressions.add_suppression(second).await.unwrap();
    let listed = async |filter: v1::SuppressionFilter| {
        let request = v1::ListSuppressionsRequest { filter: Some(filter), ..Default::default() };
        let found = house.suppressions().list_suppressions(request).await.unwrap().into_inner().suppressions;
        found.into_iter().map(|one| one.email).collect::<Vec<_>>()
    };
    let any = v1::SuppressionFilter::default();
    assert_eq!(listed(any).await, ["b@example.org", "a@example.org"]);
    let bulk = v1::SuppressionFilter { scope: SuppressionScope::Bulk.into(), ..any };
    assert_eq!(listed(bulk).await, ["a@example.org"]);
    let complaints = v1::SuppressionFilter { cause: SuppressionCause::Complaint.into(), ..any };
    assert_eq!(listed(complaints).await, ["b@example.org"]);
    let since = prost_types::Timestamp { seconds: now.timestamp(), nanos: 0 };
    assert_eq!(listed(v1::SuppressionFilter { since: Some(since), ..any }).await, ["b@example.org"]);
    let page = v1::ListSuppressionsRequest { page_size: 1, ..Default::default() };
    let first = suppressions.list_suppressions(page.clone()).await.unwrap().into_inner();
    let next = v1::ListSuppressionsRequest { page_token: first.next_page_token, ..page };
    let second = suppressions.list_suppressions(next).await.unwrap().into_inner();
    assert_eq!((second.suppressions[0].email.as_str(), second.next_page_token.as_str()), ("a@example.org", ""));
    assert_eq!(second.suppressions[0].reason, "unsubscribe");
    let check = v1::CheckSuppressionRequest { email: "a@example.org".to_owned() };
    let found = suppressions.check_suppression(check).await.unwrap().into_inner();
    assert_eq!((found.cause(), found.scope()), (SuppressionCause::Unsubscribe, SuppressionScope::Bulk));
}
