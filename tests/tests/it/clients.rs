//! The client crate, and the example clients in other languages, against a fleet.

use client::{Batcher, BatcherConfig, Client, Error, Retry, v1};
use mailfleet_tests::{Fleet, mail, recipient};
use proto::v1::ErrorReason;
use std::{
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use testkit::{Fault, FaultProxy, until};
use tokio::{process::Command, task::JoinSet};

fn client(fleet: &Fleet, endpoint: &str) -> Client {
    // A call whose answer is lost is given up soon.
    Client::builder(endpoint).key(&fleet.key).call_timeout(Duration::from_secs(2)).connect_lazy().unwrap()
}

async fn proxy(fleet: &Fleet) -> FaultProxy {
    FaultProxy::start(fleet.endpoint.trim_start_matches("http://")).await.unwrap()
}

fn post() -> v1::Mail {
    mail().message().mail.unwrap()
}

#[tokio::test]
async fn an_answer_that_is_lost_makes_no_second_message() {
    let fleet = Fleet::start().await;
    let proxy = proxy(&fleet).await;
    let client = client(&fleet, &format!("http://{}", proxy.address()));
    client.send(mail().to("first@receiver.test").message()).await.unwrap();
    proxy.set(Fault::LoseAnswers);
    let mut sending = JoinSet::new();
    sending.spawn({
        let client = client.clone();
        async move { client.send(mail().to("ada@receiver.test").message()).await }
    });
    until("it is accepted", async || fleet.store.audit().await.unwrap().messages == 2).await;
    // What was open is cut; a new connection finds the service again.
    proxy.set(Fault::Cut);
    proxy.set(Fault::Nothing);
    let sent = sending.join_next().await.unwrap().unwrap().unwrap();
    assert!(sent.replayed, "{sent:?}");
    assert_eq!(fleet.store.audit().await.unwrap().messages, 2);
}

#[tokio::test]
async fn a_batcher_gives_each_caller_his_own_answer() {
    let fleet = Fleet::start().await;
    let config = BatcherConfig { linger: Duration::from_millis(50), ..BatcherConfig::default() };
    let batcher = Arc::new(Batcher::new(client(&fleet, &fleet.endpoint), post(), config));
    let mut callers = JoinSet::new();
    for index in 0..200 {
        let batcher = Arc::clone(&batcher);
        callers.spawn(async move {
            let email = if index == 7 { "nobody".to_owned() } else { format!("a{index}@receiver.test") };
            (index, email.clone(), batcher.send(recipient(&email)).await)
        });
    }
    let mut ids = Vec::new();
    while let Some(done) = callers.join_next().await {
        let (index, email, answer) = done.unwrap();
        match answer {
            Ok(id) => {
                let seen = fleet.get(fleet.know(std::slice::from_ref(&id))[0]).await;
                assert_eq!(seen.recipient, email);
                ids.push(seen.batch_id);
            }
            Err(Error::Recipient(refusal)) => assert!(index == 7 && refusal.field.ends_with(".email"), "{refusal:?}"),
            Err(error) => panic!("{email}: {error}"),
        }
    }
    assert_eq!(ids.len(), 199);
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() < 50, "{} calls for 200 recipients", ids.len());
    // Alone in its call it is refused as a whole, and told the same.
    let alone = batcher.send(recipient("nobody")).await;
    assert!(matches!(alone, Err(Error::Recipient(_))), "{alone:?}");
}

#[tokio::test]
async fn a_batcher_holds_its_callers_back_and_sends_what_it_has_when_it_closes() {
    let fleet = Fleet::start().await;
    let proxy = proxy(&fleet).await;
    let one = NonZeroUsize::MIN;
    let config = BatcherConfig { recipients: one, calls: one, queue: one, ..BatcherConfig::default() };
    let endpoint = format!("http://{}", proxy.address());
    let slow = Client::builder(&endpoint).key(&fleet.key).connect_lazy().unwrap();
    slow.send(mail().to("first@receiver.test").message()).await.unwrap();
    let batcher = Arc::new(Batcher::new(slow, post(), config));
    proxy.set(Fault::Hold);
    let mut callers = JoinSet::new();
    for index in 0..10 {
        let batcher = Arc::clone(&batcher);
        callers.spawn(async move { batcher.send(recipient(&format!("a{index}@receiver.test"))).await });
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    // One in its call, one gathered behind it, one in the queue; the others wait before it, and so does the next.
    let eleventh = tokio::time::timeout(Duration::from_millis(200), batcher.send(recipient("late@receiver.test")));
    assert!(eleventh.await.is_err());
    proxy.set(Fault::Nothing);
    while let Some(done) = callers.join_next().await {
        done.unwrap().unwrap();
    }
    batcher.send(recipient("last@receiver.test")).await.unwrap();
    Arc::into_inner(batcher).unwrap().close().await;
    assert_eq!(fleet.store.audit().await.unwrap().messages, 12);
}

#[tokio::test]
async fn what_a_repeat_cannot_help_is_told_with_its_reason_and_fields() {
    let fleet = Fleet::start().await;
    let client = client(&fleet, &fleet.endpoint);
    let mut wrong = mail().to("ada@receiver.test").message();
    wrong.mail.as_mut().unwrap().from = None;
    let Err(Error::Refused(refused)) = client.send(wrong).await else { panic!("it is taken") };
    assert_eq!((refused.reason, refused.fields[0].field.as_str()), (ErrorReason::FieldInvalid, "mail.from"));
    let away = Client::builder("http://127.0.0.1:1").key("mf_x").retry(Retry::NEVER).connect_lazy().unwrap();
    let gone = away.send(mail().to("ada@receiver.test").message()).await.unwrap_err();
    let Error::GaveUp { tries: 1, idempotency_key, .. } = gone else { panic!("{gone:?}") };
    assert!(!idempotency_key.is_empty());
    assert!(!format!("{away:?} {:?}", Client::builder("x").key("mf_secret")).contains("mf_"));
}

/// The folder of an example, copied to where its packages may be kept between runs.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local/examples").join(name)
}

/// Whether a command of an example succeeds; what it said when it does not.
pub(crate) async fn does(command: &mut Command) -> Result<String, String> {
    // Two of them and a run stay below what a test may take.
    let limit = Duration::from_secs(110);
    let run = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = match tokio::time::timeout(limit, run).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("took too long".to_owned()),
    };
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// Runs an example against a fleet, once its packages are there.
async fn sends_mail(name: &str, setup: Vec<Command>, run: &[&str]) {
    for mut command in setup {
        if let Err(why) = does(command.current_dir(example(name))).await {
            // `make test` tells it at the end: what was not run has not passed.
            let told = format!("the {name} example, since its packages cannot be had: {}\n", why.trim());
            std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.skipped")), told).unwrap();
            return;
        }
    }
    let fleet = Fleet::start().await;
    let mut command = Command::new(run[0]);
    command
        .args(&run[1..])
        .args(["news@example.com", "ada@receiver.test", "unknown.bob@receiver.test", "nobody"])
        .current_dir(example(name))
        .env("MAILFLEET_ENDPOINT", fleet.endpoint.trim_start_matches("http://"))
        .env("MAILFLEET_KEY", &fleet.key);
    let said = does(&mut command).await.unwrap();
    for line in ["ada@receiver.test: delivered", "unknown.bob@receiver.test: bounced", "nobody: refused: "] {
        assert!(said.contains(line), "{said}");
    }
    assert_eq!(fleet.sink.mails_to("ada@receiver.test").len(), 1);
    let mut command = Command::new(run[0]);
    command.args(&run[1..]).args(["news@elsewhere.example", "ada@receiver.test"]).current_dir(example(name));
    command.env("MAILFLEET_ENDPOINT", fleet.endpoint.trim_start_matches("http://")).env("MAILFLEET_KEY", &fleet.key);
    let refused = does(&mut command).await.unwrap_err();
    assert!(refused.contains("refused: SENDING_DOMAIN_UNKNOWN: "), "{refused}");
}

#[tokio::test]
async fn the_python_example_sends_and_tells_what_became_of_it() {
    let generate = Command::new("./generate.sh");
    sends_mail("python", vec![generate], &[".venv/bin/python", "send.py"]).await;
}

#[tokio::test]
async fn the_typescript_example_sends_and_tells_what_became_of_it() {
    let mut install = Command::new("npm");
    install.args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error", "--fetch-retries=1"]);
    let mut generate = Command::new("npm");
    generate.args(["run", "--silent", "generate"]);
    sends_mail("typescript", vec![install, generate], &["npm", "run", "--silent", "start", "--"]).await;
}
