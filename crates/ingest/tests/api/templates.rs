//! Templates over the API: sources, versions, layouts, translations, declared variables, previews.

use super::*;
use proto::v1::{
    ErrorReason, PreviewTemplateRequest, PublishTemplateVersionRequest, Severity, TemplatePurpose, TemplateTranslation,
    TemplateVariable, VariableType, preview_template_request::What, publish_template_version_request::Body,
};

type Client = TemplateServiceClient<Line>;

fn client(house: &House) -> Client {
    TemplateServiceClient::new(house.line(&house.key))
}

fn source(template: &str, subject: &str, text: &str) -> PublishTemplateVersionRequest {
    PublishTemplateVersionRequest {
        template: template.to_owned(),
        subject: subject.to_owned(),
        text: text.to_owned(),
        ..Default::default()
    }
}

fn partial(template: &str, text: &str) -> PublishTemplateVersionRequest {
    PublishTemplateVersionRequest { purpose: TemplatePurpose::Partial.into(), ..source(template, "", text) }
}

async fn publish(client: &mut Client, source: PublishTemplateVersionRequest) -> v1::PublishTemplateVersionResponse {
    let request = v1::CreateTemplateRequest { name: source.template.clone() };
    if let Err(status) = client.create_template(request).await {
        assert_eq!(reason(&status), "NAME_TAKEN");
    }
    client.publish_template_version(source).await.unwrap().into_inner()
}

fn preview(template: &str, version: u32, variables_json: &str, language: &str) -> PreviewTemplateRequest {
    PreviewTemplateRequest {
        what: Some(What::Template(v1::TemplateRef { template: template.to_owned(), version })),
        recipient: Some(v1::Recipient {
            variables_json: variables_json.to_owned(),
            language: language.to_owned(),
            ..Default::default()
        }),
        mail: None,
    }
}

fn mail_of(template: &str, version: u32) -> v1::Mail {
    let template = v1::TemplateRef { template: template.to_owned(), version };
    v1::Mail { content: Some(Content::Template(template)), ..inline() }
}

fn to(email: &str, variables_json: &str, language: &str) -> v1::Recipient {
    v1::Recipient {
        email: email.to_owned(),
        variables_json: variables_json.to_owned(),
        language: language.to_owned(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_shows_what_it_was_published_from_and_how_it_differs() {
    let house = House::start().await;
    let mut client = client(&house);
    let first = PublishTemplateVersionRequest {
        body: Some(Body::Html("<p>one</p>\n<p>two</p>\n".to_owned())),
        defaults_json: r#"{"name":"you"}"#.to_owned(),
        language: "en".to_owned(),
        translations: vec![TemplateTranslation {
            language: "DE-at".to_owned(),
            subject: "Hallo {{ name }}".to_owned(),
            text: "Servus".to_owned(),
            ..Default::default()
        }],
        variables: vec![TemplateVariable {
            name: "name".to_owned(),
            r#type: VariableType::String.into(),
            description: "how to call them".to_owned(),
            ..Default::default()
        }],
        purpose: TemplatePurpose::Mail.into(),
        lane: v1::Lane::Bulk.into(),
        ..source("welcome", "Hello {{ name }}", "")
    };
    let published = publish(&mut client, first.clone()).await;
    assert_eq!(published.version, 1);
    let told: Vec<_> = published.findings.iter().map(|one| (one.field.as_str(), one.severity())).collect();
    assert_eq!(
        told,
        [("text", Severity::Info), ("html", Severity::Warning), ("translations[0].text", Severity::Warning)],
        "{:?}",
        published.findings
    );
    let get = |version| v1::GetTemplateVersionRequest { template: "welcome".to_owned(), version };
    let seen = client.get_template_version(get(0)).await.unwrap().into_inner();
    let mut expected = first.clone();
    expected.translations[0].language = "de-AT".to_owned();
    assert_eq!((seen.version, seen.source.as_ref(), &seen.findings), (1, Some(&expected), &published.findings));
    assert_eq!(client.publish_template_version(seen.source.unwrap()).await.unwrap().into_inner().version, 1);

    let second = PublishTemplateVersionRequest {
        body: Some(Body::Html("<p>one</p>\n<p>2</p>\n".to_owned())),
        defaults_json: r#"{"name":"friend"}"#.to_owned(),
        translations: Vec::new(),
        ..first
    };
    let checked = PublishTemplateVersionRequest { validate_only: true, ..second.clone() };
    assert_eq!(client.publish_template_version(checked).await.unwrap().into_inner().version, 0);
    assert_eq!(publish(&mut client, second).await.version, 2);
    let request = v1::DiffTemplateVersionsRequest { template: "welcome".to_owned(), ..Default::default() };
    let diff = client.diff_template_versions(request.clone()).await.unwrap().into_inner();
    assert_eq!((diff.from_version, diff.to_version), (1, 2));
    let parts: Vec<_> = diff.parts.iter().map(|one| one.part.as_str()).collect();
    assert_eq!(parts, ["html", "defaults_json", "translations[de-AT].subject", "translations[de-AT].text"]);
    let html = "--- welcome@1/html\n+++ welcome@2/html\n@@ -1,2 +1,2 @@\n <p>one</p>\n-<p>two</p>\n+<p>2</p>\n";
    assert_eq!((diff.parts[0].unified_diff.as_str(), diff.parts[0].lines_added), (html, 1));
    let same = v1::DiffTemplateVersionsRequest { from_version: 2, to_version: 2, ..request.clone() };
    assert!(client.diff_template_versions(same).await.unwrap().into_inner().parts.is_empty());
    let before_first = v1::DiffTemplateVersionsRequest { to_version: 1, ..request };
    assert_eq!(fields(&client.diff_template_versions(before_first).await.unwrap_err()), ["from_version"]);
    assert_eq!(reason(&client.get_template_version(get(3)).await.unwrap_err()), "NOT_FOUND");
    let request = v1::GetTemplateRequest { name: "welcome".to_owned() };
    let versions = client.get_template(request).await.unwrap().into_inner().versions;
    let told: Vec<_> = versions.iter().map(|one| (one.version, one.languages.join(" "))).collect();
    assert_eq!(told, [(2, String::new()), (1, "de-AT".to_owned())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_are_listed_page_by_page() {
    let house = House::start().await;
    let mut client = client(&house);
    for name in ["e", "b", "d", "a", "c"] {
        client.create_template(v1::CreateTemplateRequest { name: name.to_owned() }).await.unwrap();
    }
    let (mut names, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page =
            client.list_templates(v1::ListTemplatesRequest { page_size: 2, page_token }).await.unwrap().into_inner();
        names.extend(page.templates.into_iter().map(|one| one.name));
        (page_token, pages) = (page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
        assert!(!names.contains(&page_token), "a token is no name");
    }
    assert_eq!((names.concat().as_str(), pages), ("abcde", 3));
    for (page_size, page_token, field) in [(1_001, "", "page_size"), (0, "abc", "page_token")] {
        let request = v1::ListTemplatesRequest { page_size, page_token: page_token.to_owned() };
        assert_eq!(fields(&client.list_templates(request).await.unwrap_err()), [field]);
    }
    let (_, stranger) = house.tenant_with_key("stranger").await;
    let mut other = TemplateServiceClient::new(house.line(&stranger));
    assert!(other.list_templates(v1::ListTemplatesRequest::default()).await.unwrap().into_inner().templates.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_version_takes_in_is_frozen_and_of_its_own_tenant() {
    let house = House::start().await;
    let mut client = client(&house);
    publish(&mut client, partial("footer", "footer one")).await;
    publish(&mut client, partial("layout", "{% block main %}{% endblock %} | {% include 'footer' %}")).await;
    let welcome = source("welcome", "S", "{% extends 'layout' %}{% block main %}Hi {{ name }}{% endblock %}");
    let published = publish(&mut client, welcome.clone()).await;
    let included: Vec<_> = published.includes.iter().map(|one| (one.template.as_str(), one.version)).collect();
    assert_eq!(included, [("layout", 1), ("footer", 1)]);
    publish(&mut client, partial("footer", "footer two")).await;
    let text = async |client: &mut Client, version| {
        client.preview_template(preview("welcome", version, r#"{"name":"A"}"#, "")).await.unwrap().into_inner().text
    };
    assert_eq!(text(&mut client, 1).await, "Hi A | footer one");
    let published = publish(&mut client, welcome.clone()).await;
    assert_eq!(published.version, 1, "the layout is what it was");
    assert!(published.findings.iter().any(|one| one.problem.contains("footer@1")), "{:?}", published.findings);
    let published =
        publish(&mut client, partial("layout", "{% block main %}{% endblock %} | {% include 'footer' %}")).await;
    assert_eq!(published.version, 2, "the same source takes in a newer footer");
    assert_eq!(publish(&mut client, welcome.clone()).await.version, 2);
    assert_eq!(
        (text(&mut client, 1).await.as_str(), text(&mut client, 2).await.as_str()),
        ("Hi A | footer one", "Hi A | footer two")
    );

    let circle =
        PublishTemplateVersionRequest { text: "\n{% include 'welcome' %}".to_owned(), ..partial("footer", "") };
    let refused = client.publish_template_version(circle).await.unwrap_err();
    assert_eq!((reason(&refused).as_str(), fields(&refused)), ("CONTENT_INVALID", vec!["text".to_owned()]));
    assert!(
        refused.message().contains("line 2") && refused.message().contains("footer -> welcome -> layout -> footer"),
        "{refused:?}"
    );

    let (_, stranger) = house.tenant_with_key("stranger").await;
    let mut other = TemplateServiceClient::new(house.line(&stranger));
    other.create_template(v1::CreateTemplateRequest { name: "mine".to_owned() }).await.unwrap();
    let refused = other.publish_template_version(source("mine", "S", "{% include 'footer' %}")).await.unwrap_err();
    assert!(refused.message().contains("footer, which is not published"), "{refused:?}");

    let refused = house
        .mail()
        .send_message(v1::SendMessageRequest { mail: Some(mail_of("footer", 1)), ..send("a@example.org", "") })
        .await;
    let refused = refused.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "TEMPLATE_PARTIAL"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_whose_variables_do_not_fit_is_refused_with_field_and_fix() {
    let house = House::start().await;
    let variable = |name: &str, kind: VariableType| TemplateVariable {
        name: name.to_owned(),
        r#type: kind.into(),
        ..Default::default()
    };
    let order = PublishTemplateVersionRequest {
        variables: vec![
            variable("name", VariableType::String),
            variable("items[].price", VariableType::Number),
            TemplateVariable { optional: true, ..variable("vip", VariableType::Boolean) },
            TemplateVariable { default_json: "3".to_owned(), ..variable("count", VariableType::Integer) },
        ],
        ..source(
            "order",
            "Hi {{ name }}",
            "{% for i in items %}{{ i.price }}{% endfor %}{{ count }}{{ vip is defined }}",
        )
    };
    publish(&mut client(&house), order).await;
    let recipients = vec![
        to("a@example.org", r#"{"name":"A","items":[{"price":1.5}]}"#, ""),
        to("b@example.org", r#"{"items":[]}"#, ""),
        to("c@example.org", r#"{"name":"C","items":[{"price":1},{"price":"2"}]}"#, ""),
        to("d@example.org", r#"{"name":"D","vip":"yes"}"#, "german"),
        to("e@example.org", r#"{"name":"E","vip":"yes"}"#, "de"),
        to("f@example.org", r#"{"name":"F","count":null}"#, ""),
    ];
    let request = v1::SendBatchRequest { mail: Some(mail_of("order", 0)), recipients, idempotency_key: "k".to_owned() };
    let answer = house.mail().send_batch(request.clone()).await.unwrap().into_inner();
    assert_eq!((answer.accepted, answer.refused), (1, 5));
    let refusals: Vec<_> = answer
        .results
        .iter()
        .filter_map(|result| match &result.outcome {
            Some(Outcome::Refused(refusal)) => {
                Some((refusal.reason(), refusal.field.as_str(), refusal.description.as_str()))
            }
            _ => None,
        })
        .collect();
    use ErrorReason::{LanguageInvalid, VariableMismatch, VariableMissing};
    assert_eq!(
        refusals,
        [
            (VariableMissing, "recipients[1].variables_json.name", "is missing; give a string"),
            (
                VariableMismatch,
                "recipients[2].variables_json.items[1].price",
                "is not a number, as the template declares it; give a number"
            ),
            (
                LanguageInvalid,
                "recipients[3].language",
                "is not a language tag; give one such as de or pt-BR (BCP 47), or leave it empty"
            ),
            (
                VariableMismatch,
                "recipients[4].variables_json.vip",
                "is not true or false, as the template declares it; give true or false"
            ),
            (
                VariableMismatch,
                "recipients[5].variables_json.count",
                "is not a number without a fraction, as the template declares it; give a number without a fraction"
            ),
        ]
    );
    let again = house.mail().send_batch(request).await.unwrap().into_inner();
    assert_eq!((again.replayed, again.results), (true, answer.results));
    let one = v1::SendMessageRequest {
        mail: Some(mail_of("order", 1)),
        recipients: vec![to("a@example.org", "{}", "")],
        ..Default::default()
    };
    let refused = house.mail().send_message(one).await.unwrap_err();
    assert_eq!(
        (reason(&refused).as_str(), fields(&refused)),
        ("VARIABLE_MISSING", vec!["recipients[0].variables_json.name".to_owned()])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_is_the_mail_that_would_be_sent_in_the_recipients_language() {
    let house = House::start().await;
    let mut client = client(&house);
    let shop = PublishTemplateVersionRequest {
        body: Some(Body::Html("<p>Hello <b>{{ name }}</b></p>".to_owned())),
        translations: vec![TemplateTranslation {
            language: "de".to_owned(),
            subject: "Hallo {{ name }}".to_owned(),
            text: "Guten Tag {{ name }}".to_owned(),
            ..Default::default()
        }],
        ..source("shop", "Hello {{ name }}", "")
    };
    publish(&mut client, shop.clone()).await;
    let seen = client.preview_template(preview("shop", 0, r#"{"name":"<Zoë>"}"#, "")).await.unwrap().into_inner();
    assert_eq!((seen.version, seen.language.as_str(), seen.subject.as_str()), (1, "", "Hello <Zoë>"));
    assert_eq!(seen.text.trim(), "Hello <Zoë>");
    assert!(seen.html.contains("<b>&lt;Zoë&gt;</b>"), "{}", seen.html);
    let eml = String::from_utf8(seen.eml.to_vec()).unwrap();
    assert!(eml.contains("From: preview@example.com\r\n") && eml.contains("To: recipient@example.com\r\n"), "{eml}");
    assert!(eml.contains("multipart/alternative") && !eml.contains("DKIM-Signature"), "{eml}");
    assert!(house.store.queues(None).await.unwrap().is_empty(), "nothing is sent");
    let german = client.preview_template(preview("shop", 1, r#"{"name":"Zoë"}"#, "de-CH")).await.unwrap().into_inner();
    assert_eq!(
        (german.language.as_str(), german.subject.as_str(), german.text.as_str(), german.html.as_str()),
        ("de", "Hallo Zoë", "Guten Tag Zoë", "")
    );

    let refused = client.preview_template(preview("shop", 1, "{}", "")).await.unwrap_err();
    assert_eq!(
        (reason(&refused).as_str(), fields(&refused)),
        ("VARIABLE_MISSING", vec!["recipient.variables_json".to_owned()])
    );
    let refused = client.preview_template(preview("shop", 1, "[]", "")).await.unwrap_err();
    assert_eq!(fields(&refused), ["recipient.variables_json"]);

    // A source that is not published, with the mail around it.
    let unpublished =
        PublishTemplateVersionRequest { template: String::new(), subject: "Draft {{ name }}".to_owned(), ..shop };
    let mail = v1::Mail {
        content: None,
        list_unsubscribe: Some(v1::ListUnsubscribe { url: "https://example.com/u".to_owned(), ..Default::default() }),
        ..inline()
    };
    let request = PreviewTemplateRequest {
        what: Some(What::Source(unpublished.clone())),
        recipient: Some(to("bob@example.net", r#"{"name":"Bob"}"#, "")),
        mail: Some(mail.clone()),
    };
    let seen = client.preview_template(request.clone()).await.unwrap().into_inner();
    assert_eq!((seen.version, seen.subject.as_str()), (0, "Draft Bob"));
    let eml = String::from_utf8(seen.eml.to_vec()).unwrap();
    assert!(
        eml.contains("To: bob@example.net\r\n") && eml.contains("List-Unsubscribe: <https://example.com/u>\r\n"),
        "{eml}"
    );
    assert!(seen.findings.iter().any(|one| one.field == "text"), "{:?}", seen.findings);
    let broken = PublishTemplateVersionRequest { subject: "{{ name".to_owned(), ..unpublished };
    let broken = PreviewTemplateRequest { what: Some(What::Source(broken)), ..request.clone() };
    assert_eq!(fields(&client.preview_template(broken).await.unwrap_err()), ["subject"]);
    let foreign = v1::Mail { from: Some(v1::Address { email: "a@other.org".to_owned(), name: String::new() }), ..mail };
    let foreign = PreviewTemplateRequest { mail: Some(foreign), ..request };
    assert_eq!(reason(&client.preview_template(foreign).await.unwrap_err()), "SENDING_DOMAIN_UNKNOWN");
    // A tenant without any sending domain can look as well, at its own.
    let (_, stranger) = house.tenant_with_key("stranger").await;
    let mut other = TemplateServiceClient::new(house.line(&stranger));
    assert_eq!(reason(&other.preview_template(preview("shop", 1, "{}", "")).await.unwrap_err()), "NOT_FOUND");
    let draft = PreviewTemplateRequest { what: Some(What::Source(source("", "S", "T"))), recipient: None, mail: None };
    assert_eq!(other.preview_template(draft).await.unwrap().into_inner().text, "T");
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_tell_the_mail_of_templates_apart_whatever_its_version() {
    let house = House::start().await;
    let mut templates = client(&house);
    publish(&mut templates, source("welcome", "Hello", "One")).await;
    publish(&mut templates, source("farewell", "Bye", "Bye")).await;
    let send = async |mail: v1::Mail, to: &str| {
        house.mail().send_message(v1::SendMessageRequest { mail: Some(mail), ..send(to, "") }).await
    };
    send(mail_of("welcome", 0), "a@example.org").await.unwrap();
    publish(&mut templates, source("welcome", "Hello", "Two")).await;
    send(mail_of("welcome", 2), "b@example.org").await.unwrap();
    send(mail_of("farewell", 0), "c@example.org").await.unwrap();
    send(inline(), "d@example.org").await.unwrap();
    while house.store.fold(0, 1_000).await.unwrap().taken > 0 {}
    assert!(house.store.audit().await.unwrap().is_clean());
    let mut figures = house.analytics(&house.key);
    let mut ask = async |template: &str| {
        let by = [v1::MetricDimension::Template];
        figures
            .query_metrics(v1::QueryMetricsRequest {
                template: template.to_owned(),
                ..super::administration::figures(&by)
            })
            .await
    };
    let told = |rows: &[v1::MetricRow]| {
        let mut told: Vec<(String, u64)> = Vec::new();
        for row in rows {
            match told.iter_mut().find(|(name, _)| *name == row.template) {
                Some((_, count)) => *count += row.count,
                None => told.push((row.template.clone(), row.count)),
            }
        }
        told.sort_unstable();
        told
    };
    let all = ask("").await.unwrap().into_inner().rows;
    let some = |name: &str, count| (name.to_owned(), count);
    assert_eq!(told(&all), [some("", 1), some("farewell", 1), some("welcome", 2)]);
    let id = all.iter().find(|row| row.template == "welcome").unwrap().template_id.clone();
    for one in ["welcome", &id] {
        assert_eq!(told(&ask(one).await.unwrap().into_inner().rows), [some("welcome", 2)]);
    }
    let unknown = ask("none").await.unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown).as_str()), (Code::NotFound, "TEMPLATE_UNKNOWN"));
    let fleet = v1::QueryMetricsRequest { template: "welcome".to_owned(), ..super::administration::figures(&[]) };
    assert_eq!(fields(&house.analytics(&house.admin).query_metrics(fleet).await.unwrap_err()), ["template"]);
}
