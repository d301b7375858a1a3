use super::*;

fn api(provider: Provider, text: &str) -> Result<Api, Problem> {
    let config: ProviderConfig = toml::from_str(&format!("transport = 'http'\n{text}")).unwrap();
    Api::new(provider, &config, "key", &Deadlines::default(), TlsContext::new().unwrap())
}

fn mailgun() -> Api {
    api(Provider::Mailgun, "domain = 'mg.example.com'").unwrap()
}

fn judge(api: &Api, status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Answer {
    let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
    api.judge(StatusCode::from_u16(status).unwrap(), &headers.collect(), body.as_bytes(), 1_000.0)
}

#[test]
fn what_cannot_be_meant_is_refused_with_its_field() {
    for (provider, text, field) in [
        (Provider::Sendgrid, "", "transport"),
        (Provider::Mailgun, "", "domain"),
        (Provider::Sparkpost, "domain = 'a.test'", "domain"),
        (Provider::Sparkpost, "region = 'mars'", "region"),
        (Provider::Sparkpost, "username = 'x'", "username"),
        (Provider::Sparkpost, "base_url = 'http://api.example.com'", "base_url"),
        (Provider::Sparkpost, "base_url = 'https://api.example.com/v1'", "base_url"),
        (Provider::Sparkpost, "base_url = 'https://a@api.example.com'", "base_url"),
        (Provider::Sparkpost, "base_url = 'ftp://127.0.0.1'", "base_url"),
        (Provider::Sparkpost, "base_url = ''", "base_url"),
    ] {
        assert_eq!(api(provider, text).err().map(|(field, _)| field), Some(field), "{text}");
    }
    let local = api(Provider::Sparkpost, "base_url = 'http://[::1]:8080'").unwrap();
    assert_eq!((local.host.as_str(), local.port, local.is_tls), ("::1", 8080, false));
    let european = api(Provider::Mailgun, "domain = 'mg.example.com'\nregion = 'eu'").unwrap();
    assert_eq!((european.host.as_str(), european.port, european.is_tls), ("api.eu.mailgun.net", 443, true));
}

#[test]
fn answers_mean_what_the_provider_says() {
    let mailgun = mailgun();
    let taken = judge(&mailgun, 200, &[], r#"{"id":"<1@mg.example.com>"}"#);
    assert_eq!(taken, Answer::Taken { id: Some("<1@mg.example.com>".to_owned()) });
    assert_eq!(judge(&mailgun, 200, &[], ""), Answer::Taken { id: None });
    let text = "HTTP 400: bad".to_owned();
    let refused = judge(&mailgun, 400, &[], r#"{"message":"bad"}"#);
    assert_eq!(refused, Answer::Refused { class: BounceClass::Uncategorized, text });
    assert_eq!(judge(&mailgun, 401, &[], "Forbidden"), Answer::Closed { text: "HTTP 401: Forbidden".to_owned() });
    assert!(matches!(judge(&mailgun, 302, &[], ""), Answer::Closed { .. }));
    assert!(matches!(judge(&mailgun, 503, &[], ""), Answer::Later { .. }));
    assert!(matches!(judge(&mailgun, 504, &[], ""), Answer::Doubt { .. }));
    let sparkpost = api(Provider::Sparkpost, "").unwrap();
    assert!(matches!(judge(&sparkpost, 503, &[], ""), Answer::Doubt { .. }));
    let none = r#"{"results":{"id":"1","total_rejected_recipients":1}}"#;
    assert!(matches!(judge(&sparkpost, 200, &[], none), Answer::Refused { .. }));
}

#[test]
fn the_stated_wait_is_kept_within_bounds() {
    let mailgun = mailgun();
    let wait = |headers: &[(&'static str, &'static str)]| match judge(&mailgun, 429, headers, "") {
        Answer::Busy { wait, .. } => wait.as_secs(),
        other => panic!("{other:?}"),
    };
    assert_eq!(wait(&[("retry-after", "7")]), 7);
    assert_eq!(wait(&[("x-ratelimit-reset", "1009.5")]), 9);
    assert_eq!(wait(&[("x-ratelimit-reset", "5")]), 1);
    assert_eq!(wait(&[("retry-after", "inf")]), 60);
    assert_eq!(wait(&[("retry-after", "1e9")]), 3600);
    assert_eq!(wait(&[]), 60);
}

#[test]
fn a_request_bears_our_id_the_recipient_and_the_mail() {
    let message: MessageId = "01a2089f-f02b-717a-b2a9-35479c6be73a".parse().unwrap();
    let request = mailgun().request(message, "ann@receiver.test", &Bytes::from_static(b"A: b\r\n\r\nc")).unwrap();
    assert_eq!(request.uri(), "/v3/mg.example.com/messages.mime");
    assert_eq!(request.headers()[AUTHORIZATION], "Basic YXBpOmtleQ==");
    let most = Bytes::from(vec![b'x'; MAILGUN_MOST + 1]);
    let refused = mailgun().request(message, "ann@receiver.test", &most).unwrap_err();
    assert!(matches!(refused, Answer::Refused { class: BounceClass::QuotaIssues, .. }));
    let sparkpost = api(Provider::Sparkpost, "").unwrap();
    let request = sparkpost.request(message, "ann@receiver.test", &Bytes::from_static(b"A: b\r\n\r\nc")).unwrap();
    assert_eq!(request.headers()[AUTHORIZATION], "key");
    assert!(sparkpost.request(message, "ann@receiver.test", &Bytes::from_static(b"\xff")).is_err());
}
