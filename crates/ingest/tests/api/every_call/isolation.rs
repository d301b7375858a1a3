//! Two tenants, and every call between them.

use super::*;
use prost::Message;
use proto::v1::{QueueSelector, SuppressionScope, preview_template_request::What};

/// A name that nothing has.
const UNKNOWN: &str = "01900000-0000-7000-8000-000000000000";

/// What a tenant's key gets for what is another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gets {
    /// This error.
    Error(Code),
    /// An answer in which there is nothing of the other's.
    Own,
}

/// What a call needs, what it is given when it names the owner's things, and what a stranger gets for that.
pub(super) struct Row {
    scope: KeyScope,
    pub(super) body: Bytes,
    gets: Gets,
}

fn row(scope: KeyScope, body: impl Message, gets: Gets) -> Row {
    Row { scope, body: body.encode_to_vec().into(), gets }
}

/// A row for each call there is.
pub(super) fn rows(own: &Things) -> BTreeMap<&'static str, Row> {
    use Gets::{Error, Own};
    use KeyScope::{Admin, Domains, Endpoints, Read, Send, Suppressions, Templates};
    let (template, domain) = (format!("{MARK}-welcome"), format!("{MARK}.example"));
    let email = format!("2{MARK}@example.org");
    let token = |list: &str| own.tokens[list].clone();
    let mail =
        |from: &str| v1::Mail { from: Some(v1::Address { email: from.to_owned(), ..Default::default() }), ..inline() };
    let to = || vec![recipient("someone@example.net")];
    let from = format!("news@{domain}");
    let selector = || Some(QueueSelector { queue_id: Some(own.queue), ..Default::default() });
    let reference = TemplateRef { template: template.clone(), version: 1 };
    let unknown_domain = Error(Code::FailedPrecondition);
    let bad_token = Error(Code::InvalidArgument);
    let not_found = Error(Code::NotFound);
    let forbidden = Error(Code::PermissionDenied);
    BTreeMap::from([
        (
            "MailService.SendMessage",
            row(
                Send,
                v1::SendMessageRequest { mail: Some(mail(&from)), recipients: to(), ..Default::default() },
                unknown_domain,
            ),
        ),
        (
            "MailService.SendBatch",
            row(
                Send,
                v1::SendBatchRequest {
                    mail: Some(v1::Mail { content: Some(Content::Template(reference.clone())), ..inline() }),
                    recipients: to(),
                    ..Default::default()
                },
                not_found,
            ),
        ),
        (
            "MailService.StreamMessages",
            row(
                Send,
                v1::StreamMessagesRequest {
                    message: Some(v1::SendMessageRequest {
                        mail: Some(mail(&from)),
                        recipients: to(),
                        ..Default::default()
                    }),
                },
                Own,
            ),
        ),
        (
            "MailService.ListMessages",
            row(Read, v1::ListMessagesRequest { page_token: token("messages"), ..Default::default() }, bad_token),
        ),
        (
            "MailService.WatchEvents",
            row(Read, v1::WatchEventsRequest { after_seq: Some(0), ..Default::default() }, Own),
        ),
        ("MailService.GetMessage", row(Read, v1::GetMessageRequest { message_id: own.message.clone() }, not_found)),
        (
            "MailService.CancelMessage",
            row(Send, v1::CancelMessageRequest { message_id: own.message.clone() }, not_found),
        ),
        ("MailService.CancelBatch", row(Send, v1::CancelBatchRequest { batch_id: own.batch.clone() }, not_found)),
        ("TemplateService.CreateTemplate", row(Templates, v1::CreateTemplateRequest { name: template.clone() }, Own)),
        (
            "TemplateService.PublishTemplateVersion",
            row(
                Templates,
                v1::PublishTemplateVersionRequest {
                    template: format!("{MARK}-other"),
                    subject: "S".to_owned(),
                    text: "T".to_owned(),
                    ..Default::default()
                },
                not_found,
            ),
        ),
        (
            "TemplateService.ListTemplates",
            row(
                Templates,
                v1::ListTemplatesRequest { page_token: token("templates"), ..Default::default() },
                bad_token,
            ),
        ),
        (
            "TemplateService.GetTemplate",
            row(Templates, v1::GetTemplateRequest { name: format!("{MARK}-other") }, not_found),
        ),
        (
            "TemplateService.GetTemplateVersion",
            row(Templates, v1::GetTemplateVersionRequest { template: format!("{MARK}-other"), version: 1 }, not_found),
        ),
        (
            "TemplateService.DiffTemplateVersions",
            row(
                Templates,
                v1::DiffTemplateVersionsRequest {
                    template: format!("{MARK}-other"),
                    from_version: 1,
                    to_version: 1,
                    ..Default::default()
                },
                not_found,
            ),
        ),
        (
            "TemplateService.PreviewTemplate",
            row(
                Templates,
                v1::PreviewTemplateRequest {
                    what: Some(What::Template(TemplateRef { template: format!("{MARK}-other"), version: 1 })),
                    ..Default::default()
                },
                not_found,
            ),
        ),
        (
            "DomainService.CreateDomain",
            row(Domains, v1::CreateDomainRequest { domain: domain.clone(), ..Default::default() }, Own),
        ),
        (
            "DomainService.GetDomain",
            row(Domains, v1::GetDomainRequest { domain: format!("other.{domain}") }, not_found),
        ),
        (
            "DomainService.ListDomains",
            row(Domains, v1::ListDomainsRequest { page_token: token("domains"), ..Default::default() }, bad_token),
        ),
        (
            "DomainService.VerifyDomain",
            row(Domains, v1::VerifyDomainRequest { domain: format!("other.{domain}") }, not_found),
        ),
        (
            "DomainService.RotateDomainKeys",
            row(Domains, v1::RotateDomainKeysRequest { domain: format!("other.{domain}") }, not_found),
        ),
        (
            "DomainService.ActivateDomainKeys",
            row(
                Domains,
                v1::ActivateDomainKeysRequest { domain: format!("other.{domain}"), selectors: vec!["x".to_owned()] },
                not_found,
            ),
        ),
        (
            "SuppressionService.AddSuppression",
            row(
                Suppressions,
                v1::AddSuppressionRequest { emails: vec!["mine@example.org".to_owned()], ..Default::default() },
                Own,
            ),
        ),
        (
            "SuppressionService.RemoveSuppression",
            row(Suppressions, v1::RemoveSuppressionRequest { email: email.clone() }, Own),
        ),
        ("SuppressionService.CheckSuppression", row(Suppressions, v1::CheckSuppressionRequest { email }, Own)),
        (
            "SuppressionService.ListSuppressions",
            row(
                Suppressions,
                v1::ListSuppressionsRequest { page_token: token("suppressions"), ..Default::default() },
                bad_token,
            ),
        ),
        (
            "SuppressionService.ImportSuppressions",
            row(
                Suppressions,
                v1::ImportSuppressionsRequest {
                    entries: vec![v1::ImportedSuppression {
                        email: "mine2@example.org".to_owned(),
                        scope: SuppressionScope::All.into(),
                        ..Default::default()
                    }],
                },
                Own,
            ),
        ),
        ("SuppressionService.ExportSuppressions", row(Suppressions, v1::ExportSuppressionsRequest::default(), Own)),
        (
            "QueueService.PauseQueue",
            row(Send, v1::PauseQueueRequest { selector: selector(), reason: "mine".to_owned() }, Own),
        ),
        ("QueueService.ResumeQueue", row(Send, v1::ResumeQueueRequest { selector: selector() }, Own)),
        ("QueueService.ListQueues", row(Read, v1::ListQueuesRequest::default(), Own)),
        (
            "QueueService.ListDeadLetters",
            row(Read, v1::ListDeadLettersRequest { campaign_id: own.campaign.clone(), ..Default::default() }, Own),
        ),
        (
            "QueueService.RequeueDeadLetters",
            row(Send, v1::RequeueDeadLettersRequest { message_ids: vec![own.dead.clone()] }, Own),
        ),
        (
            "AnalyticsService.QueryMetrics",
            row(
                Read,
                administration::figures(&[
                    v1::MetricDimension::Campaign,
                    v1::MetricDimension::Template,
                    v1::MetricDimension::Tenant,
                ]),
                Own,
            ),
        ),
        (
            "DeliveryService.DescribeSite",
            row(Admin, v1::DescribeSiteRequest { site: "example.org".to_owned(), changes: 5 }, forbidden),
        ),
        (
            "DeliveryService.LiftSite",
            row(Admin, v1::LiftSiteRequest { site: "example.org".to_owned(), route: String::new() }, forbidden),
        ),
        (
            "DeliveryService.SetWarmup",
            row(
                Admin,
                v1::SetWarmupRequest {
                    warmup: Some(v1::Warmup { route: "mine".to_owned(), ladder: vec![10, 20], ..Default::default() }),
                },
                forbidden,
            ),
        ),
        (
            "DeliveryService.RemoveWarmup",
            row(Admin, v1::RemoveWarmupRequest { route: "mine".to_owned(), site: String::new() }, forbidden),
        ),
        ("DeliveryService.ListWarmups", row(Admin, v1::ListWarmupsRequest {}, forbidden)),
        (
            "EndpointService.CreateEndpoint",
            row(
                Endpoints,
                v1::CreateEndpointRequest { url: "https://example.com/hooks".to_owned(), ..Default::default() },
                Own,
            ),
        ),
        ("EndpointService.ListEndpoints", row(Endpoints, v1::ListEndpointsRequest::default(), Own)),
        (
            "EndpointService.GetEndpoint",
            row(Endpoints, v1::GetEndpointRequest { endpoint_id: own.endpoint.clone() }, not_found),
        ),
        (
            "EndpointService.UpdateEndpoint",
            row(
                Endpoints,
                v1::UpdateEndpointRequest {
                    endpoint_id: own.endpoint.clone(),
                    active: Some(false),
                    ..Default::default()
                },
                not_found,
            ),
        ),
        (
            "EndpointService.RotateEndpointSecret",
            row(
                Endpoints,
                v1::RotateEndpointSecretRequest { endpoint_id: own.endpoint.clone(), ..Default::default() },
                not_found,
            ),
        ),
        (
            "EndpointService.TestEndpoint",
            row(Endpoints, v1::TestEndpointRequest { endpoint_id: own.endpoint.clone() }, not_found),
        ),
        (
            "EndpointService.Redeliver",
            row(Endpoints, v1::RedeliverRequest { endpoint_id: own.endpoint.clone(), ..Default::default() }, not_found),
        ),
        (
            "EndpointService.RetryEvents",
            row(Endpoints, v1::RetryEventsRequest { endpoint_id: own.endpoint.clone() }, not_found),
        ),
        (
            "EndpointService.DeleteEndpoint",
            row(Endpoints, v1::DeleteEndpointRequest { endpoint_id: own.endpoint.clone() }, not_found),
        ),
        ("InboundService.ListInbound", row(Admin, v1::ListInboundRequest::default(), forbidden)),
        ("InboundService.GetInbound", row(Admin, v1::GetInboundRequest { inbound_id: UNKNOWN.to_owned() }, forbidden)),
        (
            "InboundService.ReplayInbound",
            row(
                Admin,
                v1::ReplayInboundRequest { inbound_ids: vec![UNKNOWN.to_owned()], ..Default::default() },
                forbidden,
            ),
        ),
        ("TenantService.CreateTenant", row(Admin, v1::CreateTenantRequest { name: "mine".to_owned() }, forbidden)),
        ("TenantService.ListTenants", row(Admin, v1::ListTenantsRequest::default(), forbidden)),
        ("TenantService.GetTenant", row(Admin, v1::GetTenantRequest { tenant: own.tenant.clone() }, forbidden)),
        (
            "TenantService.UpdateTenant",
            row(
                Admin,
                v1::UpdateTenantRequest { tenant_id: own.tenant.clone(), name: "mine".to_owned(), quotas: None },
                forbidden,
            ),
        ),
        (
            "TenantService.CreateApiKey",
            row(
                Admin,
                v1::CreateApiKeyRequest {
                    tenant_id: own.tenant.clone(),
                    name: "mine".to_owned(),
                    scopes: vec![Read.into()],
                    expires_at: None,
                },
                forbidden,
            ),
        ),
        ("TenantService.RevokeApiKey", row(Admin, v1::RevokeApiKeyRequest { api_key_id: own.key.clone() }, forbidden)),
        ("TenantService.ListApiKeys", row(Admin, v1::ListApiKeysRequest { tenant_id: own.tenant.clone() }, forbidden)),
        (
            "TenantService.RotateApiKey",
            row(Admin, v1::RotateApiKeyRequest { api_key_id: own.key.clone(), grace: None }, forbidden),
        ),
        (
            "TenantService.ListAuditEvents",
            row(Admin, v1::ListAuditEventsRequest { tenant_id: own.tenant.clone(), ..Default::default() }, forbidden),
        ),
    ])
}

/// What the owner sees of his own, as octets.
async fn view(house: &House, own: &Things) -> Vec<(&'static str, Vec<Bytes>)> {
    let asked: [(&str, Vec<u8>); 9] = [
        ("MailService/GetMessage", v1::GetMessageRequest { message_id: own.message.clone() }.encode_to_vec()),
        ("MailService/ListMessages", v1::ListMessagesRequest::default().encode_to_vec()),
        ("TemplateService/ListTemplates", v1::ListTemplatesRequest::default().encode_to_vec()),
        ("TemplateService/GetTemplate", v1::GetTemplateRequest { name: format!("{MARK}-welcome") }.encode_to_vec()),
        ("DomainService/ListDomains", v1::ListDomainsRequest::default().encode_to_vec()),
        ("SuppressionService/ListSuppressions", v1::ListSuppressionsRequest::default().encode_to_vec()),
        ("QueueService/ListQueues", v1::ListQueuesRequest::default().encode_to_vec()),
        ("QueueService/ListDeadLetters", v1::ListDeadLettersRequest::default().encode_to_vec()),
        ("AnalyticsService/QueryMetrics", administration::figures(&[]).encode_to_vec()),
    ];
    let mut view = Vec::new();
    for (name, body) in asked {
        let answers = house.call(&format!("/mailfleet.v1.{name}"), Some(&house.key), body.into()).await.unwrap();
        view.push((name, answers));
    }
    view
}

fn holds_mark(octets: &[u8]) -> bool {
    octets.windows(MARK.len()).any(|window| window.eq_ignore_ascii_case(MARK.as_bytes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_call_reaches_another_tenant_or_does_without_its_scope() {
    let house = House::start_with(|config| config.watch.heartbeat = Duration::from_millis(50)).await;
    let own = furnish(&house).await;
    let rows = rows(&own);
    let calls = calls();
    let known: Vec<&str> = calls.iter().map(|(name, ..)| name.as_str()).collect();
    let missing: Vec<_> = known.iter().filter(|name| !rows.contains_key(**name)).collect();
    let gone: Vec<_> = rows.keys().filter(|name| !known.contains(name)).collect();
    assert!(missing.is_empty() && gone.is_empty(), "give a row to {missing:?}, take those of {gone:?} away");
    let before = view(&house, &own).await;
    let (stranger_id, stranger) = house.tenant_with_key("stranger").await;
    let domain = v1::CreateDomainRequest { domain: "example.com".to_owned(), ..Default::default() };
    house.domains(&stranger).create_domain(domain).await.unwrap();
    let ended = house.key_with(&stranger_id, &ALL_SCOPES).await;
    let revoke = v1::RevokeApiKeyRequest { api_key_id: ended.api_key_id };
    house.tenants().revoke_api_key(revoke).await.unwrap();
    testkit::until("the key has ended", async || {
        house.queues(&ended.api_key).list_queues(v1::ListQueuesRequest::default()).await.is_err()
    })
    .await;
    for (name, path, _) in &calls {
        let Row { scope, body, gets } = &rows[name.as_str()];
        for key in [None, Some("mf_nonsense"), Some(ended.api_key.as_str())] {
            let refused = house.call(path, key, body.clone()).await.map(drop).unwrap_err();
            assert_eq!(refused.code(), Code::Unauthenticated, "{name} with {key:?}");
        }
        let others: Vec<KeyScope> = ALL_SCOPES.into_iter().filter(|one| one != scope).collect();
        let narrow = house.key_with(&stranger_id, &others).await.api_key;
        let refused = house.call(path, Some(&narrow), body.clone()).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{name} without {scope:?}");
        let answered = house.call(path, Some(&stranger), body.clone()).await;
        let told = match (&answered, gets) {
            (Ok(answers), Gets::Own) => answers.iter().any(|answer| holds_mark_of_another(answer, body)),
            (Err(status), Gets::Error(code)) => {
                assert_eq!(status.code(), *code, "{name}: {status:?}");
                holds_mark_of_another(status.message().as_bytes(), body)
            }
            _ => panic!("{name} is to get {gets:?}: {answered:?}"),
        };
        assert!(!told, "{name} tells of another tenant: {answered:?}");
    }
    assert_eq!(view(&house, &own).await, before, "what is the owner's has changed");
    assert!(house.store.audit().await.unwrap().is_clean());
}

/// What the caller said himself may come back to him.
fn holds_mark_of_another(answer: &[u8], body: &[u8]) -> bool {
    holds_mark(answer) && !holds_mark(body)
}
