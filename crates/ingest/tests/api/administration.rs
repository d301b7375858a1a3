//! What operators and tenants administer: keys, domains, quotas, the audit log; and that none of it reaches another
//! tenant.

use super::*;
use proto::v1::{
    DomainKeyState, MetricBucket, MetricDimension, analytics_service_client::AnalyticsServiceClient,
    requeue_result::Outcome as Requeued,
};

impl House {
    pub(super) fn tenants(&self) -> TenantServiceClient<Line> {
        TenantServiceClient::new(self.line(&self.admin))
    }

    pub(super) fn domains(&self, key: &str) -> DomainServiceClient<Line> {
        DomainServiceClient::new(self.line(key))
    }

    pub(super) fn queues(&self, key: &str) -> QueueServiceClient<Line> {
        QueueServiceClient::new(self.line(key))
    }

    pub(super) fn analytics(&self, key: &str) -> AnalyticsServiceClient<Line> {
        AnalyticsServiceClient::new(self.line(key))
    }

    /// A message of the tenant that ended as failed, with its end in the log.
    pub(super) async fn dead_letter(&self, recipient: &str) -> String {
        let sent = self.mail().send_message(send(recipient, "")).await.unwrap().into_inner().message_ids.remove(0);
        let due = self.store.due_queues(&[]).await.unwrap();
        let quota = |queue: &store::DueQueue| store::Quota {
            queue: queue.id,
            count: 1_000,
            lower: chrono::DateTime::UNIX_EPOCH,
        };
        let released = self.store.release(&due.iter().map(quota).collect::<Vec<_>>()).await.unwrap();
        let one = released.iter().find(|one| one.message.to_string() == sent).unwrap();
        let reason = domain::fact::FactDetail { text: Some("no such variable".to_owned()), ..Default::default() };
        assert!(self.store.fail(one.message, one.release, &reason).await.unwrap());
        self.store.fold(0, 1_000).await.unwrap();
        sent
    }
}

fn by_state(domain: &v1::SendingDomain, state: DomainKeyState) -> Vec<&str> {
    domain.keys.iter().filter(|key| key.state() == state).map(|key| key.selector.as_str()).collect()
}

fn named(domain: &str) -> v1::GetDomainRequest {
    v1::GetDomainRequest { domain: domain.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_shows_what_to_publish_before_during_and_after_a_rotation() {
    let house = House::start_with(|config| {
        config.dns.spf = "v=spf1 ip4:192.0.2.1 -all".to_owned();
        config.dns.bounce_hosts = vec!["mx.fleet.example".parse().unwrap()];
    })
    .await;
    let mut domains = house.domains(&house.key);
    let activate = |selectors: &[String]| v1::ActivateDomainKeysRequest {
        domain: "example.com".to_owned(),
        selectors: selectors.to_vec(),
    };
    let nameless = domains.activate_domain_keys(activate(&[])).await.unwrap_err();
    assert_eq!(fields(&nameless), ["selectors"]);
    let early = domains.activate_domain_keys(activate(&["none".to_owned()])).await.unwrap_err();
    assert_eq!((early.code(), reason(&early).as_str()), (Code::FailedPrecondition, "NO_PENDING_KEYS"));
    let before = domains.get_domain(named("example.com")).await.unwrap().into_inner().domain.unwrap();
    let old: Vec<String> = by_state(&before, DomainKeyState::Active).into_iter().map(str::to_owned).collect();
    assert_eq!(old.len(), 2);

    let rotate = v1::RotateDomainKeysRequest { domain: "example.com".to_owned() };
    let during = domains.rotate_domain_keys(rotate.clone()).await.unwrap().into_inner().domain.unwrap();
    let new: Vec<String> = by_state(&during, DomainKeyState::Pending).into_iter().map(str::to_owned).collect();
    assert!(new.len() == 2 && new.iter().all(|selector| !old.contains(selector)), "{new:?} {old:?}");
    assert_eq!(by_state(&during, DomainKeyState::Active), old);
    assert_eq!(during.dns_records.iter().filter(|record| record.purpose.starts_with("dkim-")).count(), 4);
    let again = domains.rotate_domain_keys(rotate.clone()).await.unwrap().into_inner().domain.unwrap();
    assert_eq!(by_state(&again, DomainKeyState::Pending), new);

    let half = domains.activate_domain_keys(activate(&new[..1])).await.unwrap_err();
    assert_eq!(reason(&half), "NO_PENDING_KEYS");
    let after = domains.activate_domain_keys(activate(&new)).await.unwrap().into_inner().domain.unwrap();
    assert_eq!(domains.activate_domain_keys(activate(&new)).await.unwrap().into_inner().domain.unwrap(), after);
    assert_eq!(by_state(&after, DomainKeyState::Active), new);
    assert_eq!(by_state(&after, DomainKeyState::Retired), old);
    assert!(after.keys.iter().all(|key| key.keep_until.is_some() == (key.state() == DomainKeyState::Retired)));
    let purposes: Vec<&str> = after.dns_records.iter().map(|record| record.purpose.as_str()).collect();
    assert_eq!(purposes[4..], ["spf", "bounces", "dmarc"]);
    assert!(after.notes.is_empty());

    let unsigned = v1::CreateDomainRequest { domain: "relay.org".to_owned(), unsigned: true, ..Default::default() };
    domains.create_domain(unsigned).await.unwrap();
    let refused = domains.rotate_domain_keys(v1::RotateDomainKeysRequest { domain: "relay.org".to_owned() }).await;
    assert_eq!(reason(&refused.unwrap_err()), "DOMAIN_UNSIGNED");
    let first = v1::ListDomainsRequest { page_size: 1, ..Default::default() };
    let page = domains.list_domains(first).await.unwrap().into_inner();
    assert_eq!(page.domains[0].domain, "example.com");
    let next = v1::ListDomainsRequest { page_size: 1, page_token: page.next_page_token };
    let page = domains.list_domains(next).await.unwrap().into_inner();
    assert_eq!((page.domains[0].domain.as_str(), page.next_page_token.as_str()), ("relay.org", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_key_is_good_in_both_forms_until_its_grace_ends() {
    let house = House::start().await;
    let made = house.key_with(&house.tenant, &[KeyScope::Send]).await;
    let works = async |key: &str| {
        MailServiceClient::new(house.line(key)).send_message(send("a@example.org", "")).await.map(drop)
    };
    works(&made.api_key).await.unwrap();
    let rotate = |grace: i64| v1::RotateApiKeyRequest {
        api_key_id: made.api_key_id.clone(),
        grace: Some(prost_types::Duration { seconds: grace, nanos: 0 }),
    };
    let second = house.tenants().rotate_api_key(rotate(3_600)).await.unwrap().into_inner();
    works(&made.api_key).await.unwrap();
    works(&second.api_key).await.unwrap();
    // A repeat, such as of a call whose answer was lost, does not end the secret in use.
    let third = house.tenants().rotate_api_key(rotate(3_600)).await.unwrap().into_inner();
    works(&made.api_key).await.unwrap();
    works(&second.api_key).await.unwrap();
    house.store.advance_clock(Duration::from_secs(3_601)).await.unwrap();
    testkit::until("the grace has ended", async || works(&second.api_key).await.is_err()).await;
    assert_eq!(works(&made.api_key).await.unwrap_err().code(), Code::Unauthenticated);
    works(&third.api_key).await.unwrap();
    for _ in 0..store::MAX_PREVIOUS_SECRETS {
        house.tenants().rotate_api_key(rotate(60)).await.unwrap();
    }
    let full = house.tenants().rotate_api_key(rotate(60)).await.unwrap_err();
    assert_eq!((full.code(), reason(&full).as_str()), (Code::FailedPrecondition, "SECRETS_EXHAUSTED"));
    works(&third.api_key).await.unwrap();
    let last = house.tenants().rotate_api_key(rotate(0)).await.unwrap().into_inner();
    testkit::until("a grace of 0 ends them all", async || works(&third.api_key).await.is_err()).await;
    works(&last.api_key).await.unwrap();
    let keys = v1::ListApiKeysRequest { tenant_id: house.tenant.clone() };
    let keys = house.tenants().list_api_keys(keys).await.unwrap().into_inner().api_keys;
    let shown = keys.iter().find(|key| key.api_key_id == made.api_key_id).unwrap();
    assert!(shown.rotated_at.is_some() && shown.previous_secret_until.is_none());
    let late = rotate(31 * 86_400);
    assert_eq!(fields(&house.tenants().rotate_api_key(late).await.unwrap_err()), ["grace"]);
    let revoke = v1::RevokeApiKeyRequest { api_key_id: made.api_key_id.clone() };
    house.tenants().revoke_api_key(revoke).await.unwrap();
    assert_eq!(house.tenants().rotate_api_key(rotate(0)).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_administrative_change_is_in_the_audit_log_without_an_address() {
    let house = House::start().await;
    let fleet_key = keys_id(&house.admin);
    let own_key = keys_id(&house.key);
    let mut tenants = house.tenants();
    let made = house.key_with(&house.tenant, &[KeyScope::Send]).await;
    let grace = None;
    let rotate = v1::RotateApiKeyRequest { api_key_id: made.api_key_id.clone(), grace };
    tenants.rotate_api_key(rotate).await.unwrap();
    tenants.revoke_api_key(v1::RevokeApiKeyRequest { api_key_id: made.api_key_id }).await.unwrap();
    tenants.update_tenant(set(&house.tenant, None, None, Some(1_000))).await.unwrap();
    let mut domains = house.domains(&house.key);
    let domain = "example.com".to_owned();
    let rotate = v1::RotateDomainKeysRequest { domain: domain.clone() };
    let rotated = domains.rotate_domain_keys(rotate).await.unwrap().into_inner().domain.unwrap();
    let selectors = by_state(&rotated, DomainKeyState::Pending).into_iter().map(str::to_owned).collect();
    domains.activate_domain_keys(v1::ActivateDomainKeysRequest { domain, selectors }).await.unwrap();
    let mut templates = TemplateServiceClient::new(house.line(&house.key));
    templates.create_template(v1::CreateTemplateRequest { name: "welcome".to_owned() }).await.unwrap();
    for _ in 0..2 {
        let publish = v1::PublishTemplateVersionRequest {
            template: "welcome".to_owned(),
            subject: "Hello".to_owned(),
            text: "Hello".to_owned(),
            ..Default::default()
        };
        // The second time nothing changes.
        templates.publish_template_version(publish).await.unwrap();
    }
    let mut suppressions = SuppressionServiceClient::new(house.line(&house.key));
    let add = v1::AddSuppressionRequest { emails: vec!["ada@example.org".to_owned()], ..Default::default() };
    suppressions.add_suppression(add).await.unwrap();
    let remove = v1::RemoveSuppressionRequest { email: "ada@example.org".to_owned() };
    suppressions.remove_suppression(remove).await.unwrap();
    let selector = Some(v1::QueueSelector { tenant_id: Some(house.tenant.clone()), ..Default::default() });
    let mut queues = house.queues(&house.key);
    queues.pause_queue(v1::PauseQueueRequest { selector: selector.clone(), reason: String::new() }).await.unwrap();
    queues.resume_queue(v1::ResumeQueueRequest { selector }).await.unwrap();
    let dead = house.dead_letter("eve@example.org").await;
    queues.requeue_dead_letters(v1::RequeueDeadLettersRequest { message_ids: vec![dead] }).await.unwrap();

    let ask = v1::ListAuditEventsRequest { tenant_id: house.tenant.clone(), page_size: 1_000, ..Default::default() };
    let mut events = tenants.list_audit_events(ask.clone()).await.unwrap().into_inner().events;
    events.reverse();
    let calls: Vec<(&str, &str)> = events.iter().map(|one| (one.call.as_str(), one.api_key_id.as_str())).collect();
    let (fleet, own) = (fleet_key.as_str(), own_key.as_str());
    assert_eq!(
        calls,
        [
            ("TenantService.CreateTenant", fleet),
            ("TenantService.CreateApiKey", fleet),
            ("DomainService.CreateDomain", own),
            ("TenantService.CreateApiKey", fleet),
            ("TenantService.RotateApiKey", fleet),
            ("TenantService.RevokeApiKey", fleet),
            ("TenantService.UpdateTenant", fleet),
            ("DomainService.RotateDomainKeys", own),
            ("DomainService.RotateDomainKeys", own),
            ("DomainService.ActivateDomainKeys", own),
            ("DomainService.ActivateDomainKeys", own),
            ("TemplateService.CreateTemplate", own),
            ("TemplateService.PublishTemplateVersion", own),
            ("SuppressionService.AddSuppression", own),
            ("SuppressionService.RemoveSuppression", own),
            ("QueueService.PauseQueue", own),
            ("QueueService.ResumeQueue", own),
            ("QueueService.RequeueDeadLetters", own),
        ]
    );
    assert!(events.iter().all(|event| !event.resource.contains('@') && !event.resource.contains("mf_")), "{events:?}");
    // In pages, and by one key alone.
    let one = v1::ListAuditEventsRequest { page_size: 7, api_key_id: own_key.clone(), ..ask };
    let page = tenants.list_audit_events(one.clone()).await.unwrap().into_inner();
    let rest = v1::ListAuditEventsRequest { page_token: page.next_page_token.clone(), ..one };
    let rest = tenants.list_audit_events(rest).await.unwrap().into_inner();
    assert_eq!((page.events.len(), rest.events.len(), rest.next_page_token.as_str()), (7, 5, ""));
    assert!(page.events.iter().all(|event| event.api_key_id == own_key));
}

/// The id that a key bears.
fn keys_id(key: &str) -> String {
    let id: domain::ApiKeyId = key.split('_').nth(1).unwrap().parse().unwrap();
    id.to_string()
}

fn set(tenant: &str, per_hour: Option<u64>, per_day: Option<u64>, backlog: Option<u64>) -> v1::UpdateTenantRequest {
    let quotas = v1::TenantQuotas { recipients_per_hour: per_hour, recipients_per_day: per_day, backlog };
    v1::UpdateTenantRequest { tenant_id: tenant.to_owned(), name: String::new(), quotas: Some(quotas) }
}

fn many(count: usize, key: &str) -> v1::SendBatchRequest {
    v1::SendBatchRequest {
        mail: Some(inline()),
        recipients: (0..count).map(|n| recipient(&format!("{key}{n}@example.org"))).collect(),
        idempotency_key: key.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_holds_over_several_instances_and_a_refusal_says_when_to_come_back() {
    let house = House::start().await;
    let neighbour = house.neighbour().await;
    house.tenants().update_tenant(set(&house.tenant, Some(100), Some(10_000), None)).await.unwrap();
    let call = |at: usize, channel: &Channel| {
        let line = InterceptedService::new(channel.clone(), Bearer(house.key.clone()));
        async move { MailServiceClient::new(line).send_batch(many(7, &format!("c{at}-"))).await }
    };
    let calls = (0..40).map(|at| call(at, if at % 2 == 0 { &house.channel } else { &neighbour }));
    let answers = futures_util::future::join_all(calls).await;
    let accepted = answers.iter().filter(|answer| answer.is_ok()).count() * 7;
    // What each instance has borrowed and could not use is lost, but no more than that.
    assert!((80..=100).contains(&accepted), "{accepted}");
    assert_eq!(usize::try_from(house.store.audit().await.unwrap().messages).unwrap(), accepted);
    let refused: Vec<&Status> = answers.iter().filter_map(|answer| answer.as_ref().err()).collect();
    for status in refused {
        assert_eq!((status.code(), reason(status).as_str()), (Code::ResourceExhausted, "QUOTA_EXCEEDED"));
        let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!(delay <= Duration::from_secs(3_600), "{delay:?}");
        assert_eq!(status.get_details_error_info().unwrap().metadata["quota"], "recipients_per_hour");
    }
    // A call that was accepted gets its answer still, and another body under its key its own error.
    let first = answers.iter().position(Result::is_ok).unwrap();
    let again = call(first, &house.channel).await.unwrap().into_inner();
    assert!(again.replayed && again.batch_id == answers[first].as_ref().unwrap().get_ref().batch_id);
    let other = v1::SendBatchRequest { recipients: many(8, "x").recipients, ..many(0, &format!("c{first}-")) };
    assert_eq!(reason(&house.mail().send_batch(other).await.unwrap_err()), "IDEMPOTENCY_KEY_REUSED");
    // A call that is larger than the quota is told so, without a time.
    let large = house.mail().send_batch(many(101, "large")).await.unwrap_err();
    assert_eq!((reason(&large).as_str(), large.get_details_retry_info().is_none()), ("QUOTA_EXCEEDED", true));
    let seen = v1::GetTenantRequest { tenant: "acme".to_owned() };
    let usage = house.tenants().get_tenant(seen).await.unwrap().into_inner().usage.unwrap();
    assert!((accepted as u64..=100).contains(&usage.recipients_this_hour), "{usage:?}");
    // Another tenant has quotas of its own, and an hour later there is a new one.
    house.store.advance_clock(Duration::from_secs(3_600)).await.unwrap();
    testkit::until("the next hour has begun", async || house.mail().send_batch(many(7, "later")).await.is_ok()).await;
    house.tenants().update_tenant(set(&house.tenant, Some(0), Some(0), None)).await.unwrap();
    house.mail().send_batch(many(200, "free")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_above_its_quota_refuses_until_it_has_shrunk() {
    let house = House::start_with(|config| config.quotas.count_every = Duration::from_millis(50)).await;
    house.tenants().update_tenant(set(&house.tenant, None, None, Some(10))).await.unwrap();
    let first = house.mail().send_batch(many(8, "first")).await.unwrap().into_inner();
    let refused = house.mail().send_batch(many(3, "second")).await.unwrap_err();
    assert_eq!(refused.get_details_error_info().unwrap().metadata["quota"], "backlog");
    assert!(refused.get_details_retry_info().is_some());
    let ids: Vec<domain::MessageId> =
        (0..8).map(|at| domain::MessageId::of_batch(first.batch_id.parse().unwrap(), at)).collect();
    house.store.refuse(&ids, domain::Closing::Cancelled).await.unwrap();
    testkit::until("there is room", async || house.mail().send_batch(many(3, "second")).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_are_listed_found_and_renamed() {
    let house = House::start().await;
    house.tenant_with_key("bravo").await;
    let first = v1::ListTenantsRequest { page_size: 1, ..Default::default() };
    let page = house.tenants().list_tenants(first).await.unwrap().into_inner();
    assert_eq!(page.tenants[0].name, "acme");
    let next = v1::ListTenantsRequest { page_size: 1, page_token: page.next_page_token };
    let page = house.tenants().list_tenants(next).await.unwrap().into_inner();
    assert_eq!((page.tenants[0].name.as_str(), page.next_page_token.as_str()), ("bravo", ""));
    let rename =
        |name: &str| v1::UpdateTenantRequest { name: name.to_owned(), ..set(&house.tenant, Some(5), None, None) };
    assert_eq!(reason(&house.tenants().update_tenant(rename("bravo")).await.unwrap_err()), "NAME_TAKEN");
    house.tenants().update_tenant(rename("apex")).await.unwrap();
    let found = house.tenants().get_tenant(v1::GetTenantRequest { tenant: "apex".to_owned() }).await.unwrap();
    let found = found.into_inner().tenant.unwrap();
    assert_eq!((found.tenant_id.as_str(), found.quotas.unwrap().recipients_per_hour), (house.tenant.as_str(), Some(5)));
    let nobody = house.tenants().get_tenant(v1::GetTenantRequest { tenant: "acme".to_owned() }).await.unwrap_err();
    assert_eq!(nobody.code(), Code::NotFound);
    let nothing = v1::UpdateTenantRequest { tenant_id: house.tenant.clone(), ..Default::default() };
    assert_eq!(fields(&house.tenants().update_tenant(nothing).await.unwrap_err()), ["quotas"]);
    let token = v1::ListTenantsRequest { page_token: "zz".to_owned(), ..Default::default() };
    assert_eq!(fields(&house.tenants().list_tenants(token).await.unwrap_err()), ["page_token"]);
}

pub(super) fn figures(by: &[MetricDimension]) -> v1::QueryMetricsRequest {
    let now =
        chrono::DateTime::UNIX_EPOCH + std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    v1::QueryMetricsRequest {
        start: Some(prost_types::Timestamp { seconds: now.timestamp() - 3_600, nanos: 0 }),
        end: Some(prost_types::Timestamp { seconds: now.timestamp() + 3_600, nanos: 0 }),
        bucket: MetricBucket::Minute.into(),
        group_by: by.iter().map(|one| (*one).into()).collect(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_goes_again_as_a_new_message_once() {
    let house = House::start().await;
    let dead = house.dead_letter("eve@example.org").await;
    let alive = house.mail().send_message(send("a@example.org", "")).await.unwrap().into_inner().message_ids.remove(0);
    let mut queues = house.queues(&house.key);
    let letters = queues.list_dead_letters(v1::ListDeadLettersRequest::default()).await.unwrap().into_inner();
    let letter = &letters.dead_letters[0];
    assert_eq!(
        (&letter.message_id, letter.recipient.as_str(), letter.text.as_str()),
        (&dead, "eve@example.org", "no such variable")
    );
    let request = v1::RequeueDeadLettersRequest { message_ids: vec![dead.clone(), alive.clone(), dead.clone()] };
    let calls = (0..5).map(|_| {
        let (mut queues, request) = (queues.clone(), request.clone());
        async move { queues.requeue_dead_letters(request).await.unwrap().into_inner().results }
    });
    let mut answers = futures_util::future::join_all(calls).await;
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:#?}");
    let (first, second) = (answers[0][0].outcome.clone().unwrap(), answers[0][1].outcome.clone().unwrap());
    let Requeued::RequeuedAs(new) = first.clone() else { panic!("{first:?}") };
    assert_eq!(answers[0][2].outcome, Some(first));
    assert!(matches!(second, Requeued::Refusal(refusal) if refusal.reason() == v1::ErrorReason::NotADeadLetter));
    let seen = house.mail().get_message(v1::GetMessageRequest { message_id: new.clone() }).await.unwrap().into_inner();
    assert_eq!((seen.state(), seen.recipient.as_str()), (MessageState::Queued, "eve@example.org"));
    let seen = house.mail().get_message(v1::GetMessageRequest { message_id: dead }).await.unwrap().into_inner();
    assert_eq!(seen.state(), MessageState::Failed);
    let letters = queues.list_dead_letters(v1::ListDeadLettersRequest::default()).await.unwrap().into_inner();
    assert_eq!(letters.dead_letters[0].requeued_as, new);
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_grouped_bounded_and_a_tenants_own() {
    let house = House::start().await;
    let (_, stranger) = house.tenant_with_key("stranger").await;
    house.mail().send_message(send("a@gmail.com", "")).await.unwrap();
    house.mail().send_batch(many(3, "bulk")).await.unwrap();
    while house.store.fold(0, 1_000).await.unwrap().taken > 0 {}
    let by = [MetricDimension::Lane, MetricDimension::Site];
    let rows = house.analytics(&house.key).query_metrics(figures(&by)).await.unwrap().into_inner().rows;
    let mut told: Vec<(v1::Lane, &str, u64)> =
        rows.iter().map(|row| (row.lane(), row.site.as_str(), row.count)).collect();
    told.sort_unstable();
    assert_eq!(told, [(v1::Lane::Transactional, "google", 1), (v1::Lane::Bulk, "example.org", 3)]);
    assert!(rows.iter().all(|row| row.event == "accepted" && row.tenant_id.is_empty()));
    let bulk = v1::QueryMetricsRequest { lane: v1::Lane::Bulk.into(), ..figures(&[]) };
    let rows = house.analytics(&house.key).query_metrics(bulk).await.unwrap().into_inner().rows;
    assert_eq!(rows.iter().map(|row| row.count).sum::<u64>(), 3);
    let rows = house.analytics(&stranger).query_metrics(figures(&by)).await.unwrap().into_inner().rows;
    assert!(rows.is_empty());
    let rows = house.analytics(&house.admin).query_metrics(figures(&[MetricDimension::Tenant])).await.unwrap();
    assert!(rows.into_inner().rows.iter().all(|row| row.tenant_id == house.tenant));
    // Each receiver is a row: more than are given.
    for half in 0..2 {
        let recipients = (0..5_001).map(|n| recipient(&format!("a@r{half}-{n}.example.org"))).collect();
        let wide = v1::SendBatchRequest { mail: Some(inline()), recipients, idempotency_key: String::new() };
        house.mail().send_batch(wide).await.unwrap();
    }
    while house.store.fold(0, 5_000).await.unwrap().taken > 0 {}
    let refused = house.analytics(&house.key).query_metrics(figures(&by)).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::OutOfRange, "RESULT_TOO_LARGE"));
    let far = v1::QueryMetricsRequest { start: Some(prost_types::Timestamp::default()), ..figures(&[]) };
    assert_eq!(fields(&house.analytics(&house.key).query_metrics(far).await.unwrap_err()), ["end"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_administration_reaches_another_tenant() {
    let house = House::start().await;
    let dead = house.dead_letter("eve@example.org").await;
    let mut own = SuppressionServiceClient::new(house.line(&house.key));
    let add = v1::AddSuppressionRequest { emails: vec!["ada@example.org".to_owned()], ..Default::default() };
    own.add_suppression(add).await.unwrap();
    let (_, stranger) = house.tenant_with_key("stranger").await;

    let mut domains = house.domains(&stranger);
    assert!(domains.list_domains(v1::ListDomainsRequest::default()).await.unwrap().into_inner().domains.is_empty());
    let (domain, selectors) = ("example.com".to_owned(), vec!["any".to_owned()]);
    for refused in [
        domains.rotate_domain_keys(v1::RotateDomainKeysRequest { domain: domain.clone() }).await.map(drop),
        domains.activate_domain_keys(v1::ActivateDomainKeysRequest { domain, selectors }).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code(), Code::NotFound);
    }
    let mut suppressions = SuppressionServiceClient::new(house.line(&stranger));
    let listed = suppressions.list_suppressions(v1::ListSuppressionsRequest::default()).await.unwrap();
    assert!(listed.into_inner().suppressions.is_empty());
    let mut exported =
        suppressions.export_suppressions(v1::ExportSuppressionsRequest::default()).await.unwrap().into_inner();
    assert!(exported.message().await.unwrap().is_none());
    let entry = v1::ImportedSuppression { email: "bob@example.org".to_owned(), ..Default::default() };
    let piece = v1::ImportSuppressionsRequest { entries: vec![entry] };
    suppressions.import_suppressions(tokio_stream::iter([piece])).await.unwrap();
    let check = v1::CheckSuppressionRequest { email: "bob@example.org".to_owned() };
    assert!(!own.check_suppression(check).await.unwrap().into_inner().suppressed);

    let mut queues = house.queues(&stranger);
    let letters = queues.list_dead_letters(v1::ListDeadLettersRequest::default()).await.unwrap().into_inner();
    assert!(letters.dead_letters.is_empty());
    // Also when its owner has requeued it, the new message's id is not told.
    let request = v1::RequeueDeadLettersRequest { message_ids: vec![dead] };
    house.queues(&house.key).requeue_dead_letters(request.clone()).await.unwrap();
    let results = queues.requeue_dead_letters(request).await.unwrap().into_inner().results;
    assert!(matches!(results[0].outcome, Some(Requeued::Refusal(_))));
    house.store.fold(0, 1_000).await.unwrap();
    assert!(house.analytics(&stranger).query_metrics(figures(&[])).await.unwrap().into_inner().rows.is_empty());

    // What is the fleet's, a tenant's key does not touch at all.
    let mut tenants = TenantServiceClient::new(house.line(&stranger));
    let id = || house.tenant.clone();
    let key = keys_id(&house.key);
    for refused in [
        tenants.list_tenants(v1::ListTenantsRequest::default()).await.map(drop),
        tenants.get_tenant(v1::GetTenantRequest { tenant: id() }).await.map(drop),
        tenants.update_tenant(set(&id(), Some(1), None, None)).await.map(drop),
        tenants.rotate_api_key(v1::RotateApiKeyRequest { api_key_id: key, grace: None }).await.map(drop),
        tenants.list_audit_events(v1::ListAuditEventsRequest { tenant_id: id(), ..Default::default() }).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
}
