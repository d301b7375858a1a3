//! Templates on their way through the whole fleet.

use domain::Closing;
use mailfleet_tests::{Fleet, mail};
use proto::v1::{
    self, MessageState, PublishTemplateVersionRequest, TemplatePurpose, TemplateTranslation, TemplateVariable,
    VariableType, publish_template_version_request::Body, template_translation,
};

fn section(words: &str) -> String {
    format!("<mj-section><mj-column><mj-text>{words}</mj-text></mj-column></mj-section>")
}

async fn publish(fleet: &Fleet, source: PublishTemplateVersionRequest) {
    let create = v1::CreateTemplateRequest { name: source.template.clone() };
    // The second version is of the same template.
    let _ = fleet.templates().create_template(create).await;
    fleet.templates().publish_template_version(source).await.unwrap();
}

fn partial(template: &str, mjml: &str) -> PublishTemplateVersionRequest {
    PublishTemplateVersionRequest {
        template: template.to_owned(),
        body: Some(Body::Mjml(mjml.to_owned())),
        purpose: TemplatePurpose::Partial.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_mail_with_a_layout_reaches_each_recipient_in_his_language() {
    let fleet = Fleet::start().await;
    publish(&fleet, partial("footer", &section("Footer one"))).await;
    let layout = "<mjml><mj-body>{% block main %}{% endblock %}{% include 'footer' %}</mj-body></mjml>";
    publish(&fleet, partial("layout", layout)).await;
    let main = |words: &str| format!("{{% extends 'layout' %}}{{% block main %}}{}{{% endblock %}}", section(words));
    let spring = PublishTemplateVersionRequest {
        template: "spring".to_owned(),
        subject: "Hello {{ name }}".to_owned(),
        body: Some(Body::Mjml(main("Spring is here, {{ name }}"))),
        language: "en".to_owned(),
        translations: [("de", "Hallo", "Der Frühling ist da"), ("pt-BR", "Olá", "A primavera chegou")]
            .map(|(language, subject, words)| TemplateTranslation {
                language: language.to_owned(),
                subject: format!("{subject} {{{{ name }}}}"),
                body: Some(template_translation::Body::Mjml(main(&format!("{words}, {{{{ name }}}}")))),
                ..Default::default()
            })
            .to_vec(),
        variables: vec![TemplateVariable {
            name: "name".to_owned(),
            r#type: VariableType::String.into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    publish(&fleet, spring).await;
    // What is published already takes no notice.
    publish(&fleet, partial("footer", &section("Footer two"))).await;

    let template = v1::TemplateRef { template: "spring".to_owned(), version: 0 };
    let mut post = mail().with(|mail| mail.content = Some(v1::mail::Content::Template(template)));
    let people = [
        ("ann@receiver.test", "Ann", "en-GB", "Subject: Hello Ann", "Spring is here, Ann"),
        ("bob@receiver.test", "Bob", "de-CH", "Subject: Hallo Bob", "Bob"),
        ("cem@receiver.test", "Cem", "pt", "Cem", "A primavera chegou, Cem"),
        ("dee@receiver.test", "Dee", "fi", "Subject: Hello Dee", "Spring is here, Dee"),
        ("eve@receiver.test", "Eve", "", "Subject: Hello Eve", "Spring is here, Eve"),
    ];
    for (email, name, language, ..) in people {
        post.recipients.push(v1::Recipient {
            email: email.to_owned(),
            variables_json: serde_json::json!({ "name": name }).to_string(),
            language: language.to_owned(),
            ..Default::default()
        });
    }
    post.recipients.push(v1::Recipient {
        email: "foe@receiver.test".to_owned(),
        variables_json: r#"{"name":7}"#.to_owned(),
        ..Default::default()
    });
    let (answer, ids) = fleet.submit_batch(post).await;
    assert_eq!((answer.accepted, answer.refused), (5, 1));
    for (id, (email, _, language, subject, words)) in ids.into_iter().flatten().zip(people) {
        assert_eq!(fleet.ended(id).await.state(), MessageState::Delivered, "{email}");
        let copy = String::from_utf8(fleet.sink.mails_to(email)[0].body.to_vec()).unwrap();
        assert!(copy.contains(subject) && copy.contains(words), "{language}: {copy}");
        assert!(copy.contains("Footer one") && !copy.contains("Footer two"), "{language}: {copy}");
    }
    let german = String::from_utf8(fleet.sink.mails_to("bob@receiver.test")[0].body.to_vec()).unwrap();
    assert!(german.contains("Der Fr=C3=BChling ist da, Bob"), "{german}");
    assert_eq!(fleet.assert_sound().await.of(Closing::Delivered), 5);
}
