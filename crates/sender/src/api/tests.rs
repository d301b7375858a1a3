use super::*;
use hyper::header::AUTHORIZATION;

const NOW: DateTime<Utc> = DateTime::UNIX_EPOCH;

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
        (Provider::Sendgrid, "stream = 'x'", "stream"),
        (Provider::Resend, "domain = 'a.test'", "domain"),
        (Provider::Postmark, "region = 'eu'", "region"),
        (Provider::Postmark, "stream = 'a b'", "stream"),
        (Provider::Ses, "username = 'AKIAEXAMPLE'", "region"),
        (Provider::Ses, "region = 'eu-west-1'", "username"),
        (Provider::Ses, "region = 'eu-west-1'\nusername = 'a/b'", "username"),
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
    assert_eq!(taken, Answer::new(Meaning::Taken, "taken as <1@mg.example.com>"));
    assert_eq!(judge(&mailgun, 200, &[], ""), Answer::new(Meaning::Taken, "taken"));
    let refused = judge(&mailgun, 400, &[], r#"{"message":"bad"}"#);
    assert_eq!(refused, Answer::new(Meaning::Refused(BounceClass::Uncategorized), "HTTP 400: bad"));
    assert_eq!(judge(&mailgun, 401, &[], "Forbidden"), Answer::new(Meaning::Closed, "HTTP 401: Forbidden"));
    assert_eq!(judge(&mailgun, 302, &[], "").meaning, Meaning::Closed);
    assert_eq!(judge(&mailgun, 503, &[], "").meaning, Meaning::Later);
    assert_eq!(judge(&mailgun, 504, &[], "").meaning, Meaning::Doubt);
    let sparkpost = api(Provider::Sparkpost, "").unwrap();
    assert_eq!(judge(&sparkpost, 503, &[], "").meaning, Meaning::Doubt);
    let none = r#"{"results":{"id":"1","total_rejected_recipients":1}}"#;
    assert_eq!(judge(&sparkpost, 200, &[], none).meaning, Meaning::Refused(BounceClass::Uncategorized));
}

#[test]
fn the_stated_wait_is_kept_within_bounds() {
    let mailgun = mailgun();
    let wait = |headers: &[(&'static str, &'static str)]| match judge(&mailgun, 429, headers, "").meaning {
        Meaning::Busy(wait) => wait.as_secs(),
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
fn the_words_of_each_provider_are_understood() {
    use Meaning::{Busy, Closed, Doubt, Later, Refused, Unready};
    let ses = "region = 'eu-west-1'\nusername = 'AKIAEXAMPLE'";
    let rejected = Refused(BounceClass::ContentRelated);
    let unknown = Refused(BounceClass::Uncategorized);
    for (provider, text, status, body, meaning) in [
        (
            Provider::Ses,
            ses,
            400,
            r#"{"__type":"x#ThrottlingException","message":"Maximum sending rate"}"#,
            Busy(UNSTATED_WAIT),
        ),
        (
            Provider::Ses,
            ses,
            400,
            r#"{"__type":"ThrottlingException:","message":"Daily message quota"}"#,
            Busy(LONGEST_WAIT),
        ),
        (Provider::Ses, ses, 400, r#"{"__type":"AccountSuspendedException"}"#, Closed),
        (Provider::Ses, ses, 400, r#"{"__type":"MailFromDomainNotVerifiedException"}"#, Unready),
        (
            Provider::Ses,
            ses,
            400,
            r#"{"__type":"MessageRejected","message":"Email address is not verified."}"#,
            Unready,
        ),
        (Provider::Ses, ses, 400, r#"{"__type":"MessageRejected","message":"Virus"}"#, rejected),
        (Provider::Ses, ses, 403, r#"{"__type":"SignatureDoesNotMatch"}"#, Closed),
        (Provider::Ses, ses, 500, "", Later),
        (Provider::Ses, ses, 502, "", Doubt),
        (
            Provider::Sendgrid,
            "",
            403,
            r#"{"errors":[{"message":"does not match a verified Sender Identity"}]}"#,
            Unready,
        ),
        (Provider::Sendgrid, "", 403, r#"{"errors":[{"message":"access forbidden"}]}"#, Closed),
        (Provider::Sendgrid, "", 400, r#"{"errors":[{"message":"bad"}]}"#, unknown),
        (Provider::Sendgrid, "", 503, "", Later),
        (Provider::Sendgrid, "", 504, "", Doubt),
        (Provider::Postmark, "", 401, r#"{"ErrorCode":10}"#, Closed),
        (Provider::Postmark, "", 422, r#"{"ErrorCode":401}"#, Unready),
        (Provider::Postmark, "", 422, r#"{"ErrorCode":405}"#, Closed),
        (Provider::Postmark, "", 422, r#"{"ErrorCode":406}"#, Refused(BounceClass::InactiveMailbox)),
        (Provider::Postmark, "", 422, r#"{"ErrorCode":300}"#, unknown),
        (Provider::Postmark, "", 200, r#"{"ErrorCode":300}"#, unknown),
        (Provider::Postmark, "", 429, "", Busy(UNSTATED_WAIT)),
        (Provider::Postmark, "", 500, "", Doubt),
        (Provider::Postmark, "", 503, r#"{"ErrorCode":100}"#, Later),
        (Provider::Resend, "", 403, r#"{"name":"invalid_api_key"}"#, Closed),
        (Provider::Resend, "", 403, r#"{"name":"validation_error"}"#, Unready),
        (Provider::Resend, "", 422, r#"{"name":"validation_error"}"#, unknown),
        (Provider::Resend, "", 429, r#"{"name":"daily_quota_exceeded"}"#, Busy(LONGEST_WAIT)),
        (Provider::Resend, "", 409, r#"{"name":"concurrent_idempotent_requests"}"#, Later),
        (Provider::Resend, "", 409, r#"{"name":"invalid_idempotent_request"}"#, Doubt),
    ] {
        let api = api(provider, text).unwrap();
        let headers = HeaderMap::new();
        let reply = Reply { status, headers: &headers, json: serde_json::from_str(body).ok(), body: body.as_bytes() };
        let found = api.driver.judge(&reply).unwrap_or_else(|| usual(&reply));
        assert_eq!(found, meaning, "{provider:?} {status} {body}");
    }
}

#[test]
fn a_mail_that_was_taken_is_known_by_the_providers_name_for_it() {
    let id = |provider, text: &str, headers: &[(&'static str, &'static str)], body: &str| {
        judge(&api(provider, text).unwrap(), 200, headers, body)
    };
    assert_eq!(id(Provider::Sendgrid, "", &[("x-message-id", "a")], ""), Answer::new(Meaning::Taken, "taken as a"));
    assert_eq!(
        id(Provider::Ses, "region = 'eu-west-1'\nusername = 'A'", &[], r#"{"MessageId":"b"}"#),
        Answer::new(Meaning::Taken, "taken as b")
    );
    assert_eq!(
        id(Provider::Postmark, "", &[], r#"{"ErrorCode":0,"MessageID":"c"}"#),
        Answer::new(Meaning::Taken, "taken as c")
    );
    assert_eq!(id(Provider::Resend, "", &[], r#"{"id":"d"}"#), Answer::new(Meaning::Taken, "taken as d"));
    assert_eq!(
        id(Provider::Sparkpost, "", &[], r#"{"results":{"id":"e"}}"#),
        Answer::new(Meaning::Taken, "taken as e")
    );
}

#[test]
fn a_request_bears_our_id_the_recipient_and_the_mail() {
    let message: MessageId = "01a2089f-f02b-717a-b2a9-35479c6be73a".parse().unwrap();
    let request = mailgun().request(message, "ann@receiver.test", b"A: b\r\n\r\nc", NOW).unwrap();
    assert_eq!(request.uri(), "/v3/mg.example.com/messages.mime");
    assert_eq!(request.headers()[AUTHORIZATION], "Basic YXBpOmtleQ==");
    let most = vec![b'x'; 25 * 1024 * 1024 + 1];
    let refused = mailgun().request(message, "ann@receiver.test", &most, NOW).unwrap_err();
    assert_eq!(refused.meaning, Meaning::Refused(BounceClass::QuotaIssues));
    let sparkpost = api(Provider::Sparkpost, "").unwrap();
    let request = sparkpost.request(message, "ann@receiver.test", b"A: b\r\n\r\nc", NOW).unwrap();
    assert_eq!(request.headers()[AUTHORIZATION], "key");
    assert!(sparkpost.request(message, "ann@receiver.test", b"\xff", NOW).is_err());
}
