//! The commands that administer tenants, against a real ingest on a real database: what they print, and with which
//! code they end.

#![allow(clippy::unwrap_used, reason = "a test ends at its first surprise")]

use bus::{Bus, BusConfig};
use ingest::{Ingest, IngestConfig, Neighbours, keys::fleet_key};
use serde_json::Value;
use service::{Health, Lifecycle, Sealer};
use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
    sync::Arc,
};
use store::Store;
use testkit::TestDatabase;

struct House {
    _database: TestDatabase,
    store: Store,
    endpoint: String,
    folder: PathBuf,
    _life: Lifecycle,
}

impl House {
    async fn start(name: &str) -> Self {
        let database = TestDatabase::create().await;
        let store = database.store().await;
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("manage-{name}"));
        fs::create_dir_all(&folder).unwrap();
        let now = store.now().await.unwrap();
        let (key, token) = fleet_key("fleet", now).unwrap();
        store.create_api_key(&key, now).await.unwrap();
        fs::write(folder.join("key"), token).unwrap();
        // Nobody listens there, and nothing here needs somebody to.
        let nats =
            BusConfig { url: "nats://127.0.0.1:1".to_owned(), retry_on_initial_connect: true, ..BusConfig::default() };
        let life = Lifecycle::new();
        let neighbours = Neighbours {
            store: store.clone(),
            bus: Bus::connect(nats).await.unwrap(),
            shards: Default::default(),
            tracked: false,
            sealer: Some(Arc::new(Sealer::new(&[7; 32]))),
            health: Health::new(life.clone()),
        };
        let config = IngestConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            require_verified_domains: false,
            ..IngestConfig::default()
        };
        let service = Ingest::build(config, neighbours).await.unwrap();
        let endpoint = format!("http://{}", service.addr());
        life.spawn("ingest", service.run(life.clone()));
        let house = Self { _database: database, store, endpoint, folder, _life: life };
        house.does(&["tenants", "create", "acme"]).await;
        house
    }

    /// Runs the command as an operator with the fleet's key would.
    async fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailfleet"));
        command.args(["--dir", "/no-fleet-here", "--endpoint", &self.endpoint]);
        command.arg("--api-key-file").arg(self.folder.join("key")).args(words);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// What it prints when it ends well.
    async fn does(&self, words: &[&str]) -> String {
        let output = self.run(words).await;
        assert_eq!(output.status.code(), Some(0), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it prints for programs.
    async fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.does(&[words, &["--json"]].concat()).await).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_and_keys_are_made_changed_and_looked_up() {
    let house = House::start("tenants").await;
    let set = house.json(&["tenants", "set", "acme", "--per-hour", "1000", "--backlog", "50"]).await;
    assert_eq!((&set["quotas"]["recipients_per_hour"], &set["quotas"]["backlog"]), (&1_000.into(), &50.into()));
    let got = house.does(&["tenants", "get", "acme"]).await;
    assert!(got.contains("1,000 recipients an hour; 0 now") && got.contains("any number of recipients a day"), "{got}");
    let listed = house.does(&["tenants", "list"]).await;
    assert!(listed.contains("acme") && listed.contains("1,000"), "{listed}");
    assert_eq!(house.run(&["tenants", "get", "nobody"]).await.status.code(), Some(1));
    assert_eq!(house.run(&["tenants", "set", "acme"]).await.status.code(), Some(2));

    let tenant = ["--tenant", "acme"];
    let made = house.json(&[&["keys", "create", "a program", "--scope", "send"][..], &tenant].concat()).await;
    let id = made["api_key_id"].as_str().unwrap();
    let rotated = house.json(&["keys", "rotate", id, "--grace", "1h"]).await;
    assert_ne!(made["api_key"], rotated["api_key"]);
    let listed = house.does(&[&["keys", "list"][..], &tenant].concat()).await;
    assert!(listed.contains("a program") && listed.contains("rotated"), "{listed}");
    assert!(!listed.contains(made["api_key"].as_str().unwrap()));
    house.does(&["keys", "revoke", id]).await;
    assert_eq!(house.run(&["keys", "rotate", id]).await.status.code(), Some(1));
    assert_eq!(house.run(&["keys", "create", "x", "--scope", "send"]).await.status.code(), Some(2));

    let log = house.does(&[&["audit-log"][..], &tenant].concat()).await;
    for call in ["CreateTenant", "UpdateTenant", "CreateApiKey", "RotateApiKey", "RevokeApiKey"] {
        assert!(log.contains(&format!("TenantService.{call}")), "{call}: {log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_is_made_and_its_keys_rotated() {
    let house = House::start("domain").await;
    let with = |words: &[&'static str]| [words, &["--tenant", "acme"]].concat();
    let made = house.does(&with(&["domain", "create", "example.com"])).await;
    assert!(made.contains("To publish in DNS") && made.contains("_dmarc.example.com TXT (dmarc)"), "{made}");
    assert_eq!(house.run(&with(&["domain", "activate", "example.com", "none"])).await.status.code(), Some(1));
    let rotated = house.does(&with(&["domain", "rotate", "example.com"])).await;
    let advice = rotated.lines().last().unwrap().trim().strip_prefix("mailfleet ").unwrap();
    assert!(rotated.contains("pending") && advice.starts_with("domain activate example.com "), "{rotated}");
    let words: Vec<&str> = advice.split_whitespace().chain(["--tenant", "acme"]).collect();
    let activated = house.json(&words).await;
    let states: Vec<&str> =
        activated["keys"].as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["active", "active", "retired", "retired"]);
    let listed = house.does(&with(&["domain", "list"])).await;
    assert!(listed.contains("bounces.example.com"), "{listed}");
    let got = house.json(&with(&["domain", "get", "example.com"])).await;
    assert_eq!(got, activated);
}

#[tokio::test(flavor = "multi_thread")]
async fn suppressions_go_in_and_out_as_csv() {
    let house = House::start("suppressions").await;
    let with = |words: &[&'static str]| [words, &["--tenant", "acme"]].concat();
    house.does(&with(&["suppressions", "add", "eve@example.org", "--cause", "complaint"])).await;
    let file = house.folder.join("in.csv");
    fs::write(&file, "email,cause\nada@example.org,hard_bounce\nnot an address,\nbob@example.org,\n").unwrap();
    let file = file.to_str().unwrap().to_owned();
    let words = ["suppressions", "import", &file, "--scope", "bulk", "--tenant", "acme"];
    let output = house.run(&words).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("3 read, 2 added, 1 refused") && said.contains("line 3: email"), "{said}");
    let listed = house.json(&with(&["suppressions", "list", "--scope", "bulk"])).await;
    let emails: Vec<&str> =
        listed["suppressions"].as_array().unwrap().iter().map(|one| one["email"].as_str().unwrap()).collect();
    assert_eq!(emails.len(), 2);
    let exported = house.does(&with(&["suppressions", "export"])).await;
    let mut lines: Vec<&str> = exported.lines().collect();
    assert_eq!(lines.remove(0), "email,cause,scope,reason,created_at");
    assert!(lines.iter().any(|line| line.starts_with("ada@example.org,hard-bounce,bulk,hard_bounce,")), "{exported}");
    assert_eq!(lines.len(), 3);
    let out = house.folder.join("out.csv").to_str().unwrap().to_owned();
    house.does(&["suppressions", "export", "--output", &out, "--tenant", "acme"]).await;
    assert_eq!(fs::read_to_string(&out).unwrap(), exported);
    house.does(&with(&["suppressions", "remove", "eve@example.org"])).await;
    assert_eq!(house.run(&with(&["suppressions", "remove", "eve@example.org"])).await.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_made_changed_and_removed() {
    let house = House::start("endpoints").await;
    let with = |words: &[&str]| -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).chain(["--tenant".to_owned(), "acme".to_owned()]).collect()
    };
    let json = async |words: &[&str]| {
        let words = with(words);
        house.json(&words.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let made = json(&["endpoints", "create", "https://example.com/hooks", "--event", "bounced"]).await;
    let id = made["endpoint_id"].as_str().unwrap().to_owned();
    assert!(made["key"].as_str().unwrap().starts_with("whsec_"), "{made}");
    assert_eq!((made["state"].as_str(), made["events"][0].as_str()), (Some("active"), Some("bounced")));
    assert_eq!(json(&["endpoints", "pause", &id]).await["state"], "paused");
    assert_eq!(json(&["endpoints", "resume", &id]).await["state"], "active");
    let changed = json(&["endpoints", "set", &id, "--all-events", "--description", "ours"]).await;
    assert_eq!((changed["events"].as_array().map(Vec::len), changed["description"].as_str()), (Some(0), Some("ours")));
    let rotated = json(&["endpoints", "rotate", &id, "--ed25519"]).await;
    assert!(rotated["key"].as_str().unwrap().starts_with("whpk_"), "{rotated}");
    assert_eq!(json(&["endpoints", "retry", &id]).await["retried"], 0);
    assert_eq!(json(&["endpoints", "list"]).await.as_array().map(Vec::len), Some(1));
    json(&["endpoints", "delete", &id]).await;
    assert_eq!(json(&["endpoints", "list"]).await.as_array().map(Vec::len), Some(0));
    let wrong = with(&["endpoints", "create", "https://example.com/hooks", "--event", "no-such"]);
    let output = house.run(&wrong.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("events[0]"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_that_came_in_is_listed_and_shown() {
    let house = House::start("inbound").await;
    let listed = house.json(&["inbound", "list", "--kind", "bounce"]).await;
    assert_eq!((listed["mails"].as_array().map(Vec::len), listed["more"].as_bool()), (Some(0), Some(false)));
    let replayed = house.run(&["inbound", "replay", "--state", "dead", "--json"]).await;
    assert_eq!(replayed.status.code(), Some(1), "there is none");
    let unknown = house.run(&["inbound", "show", "01900000-0000-7000-8000-000000000000"]).await;
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no such mail"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_and_dead_letters_are_shown_and_requeued() {
    let house = House::start("figures").await;
    let with = |words: &[&'static str]| [words, &["--tenant", "acme"]].concat();
    assert!(house.does(&with(&["metrics"])).await.contains("nothing happened"));
    house.does(&with(&["domain", "create", "example.com"])).await;
    let sent = house
        .json(&with(&["send", "--from", "a@example.com", "--to", "b@gmail.com", "--subject", "Hi", "--text", "Hello"]))
        .await;
    let id = sent["message_ids"][0].as_str().unwrap();
    let due = house.store.due_queues(&[]).await.unwrap();
    let quota = store::Quota { queue: due[0].id, count: 10, lower: chrono::DateTime::UNIX_EPOCH };
    let released = house.store.release(&[quota]).await.unwrap().remove(0);
    let reason = domain::fact::FactDetail { text: Some("no such variable".to_owned()), ..Default::default() };
    assert!(house.store.fail(released.message, released.release, &reason).await.unwrap());
    while house.store.fold(0, 100).await.unwrap().taken > 0 {}
    let shown = house.does(&with(&["metrics", "--bucket", "minute", "--by", "site,lane"])).await;
    assert!(shown.contains("google") && shown.contains("transactional") && shown.contains("failed"), "{shown}");
    let rows = house.json(&with(&["metrics", "--bucket", "minute", "--event", "failed"])).await;
    assert_eq!(rows["rows"][0]["count"], 1);
    assert_eq!(house.run(&with(&["metrics", "--event", "nonsense"])).await.status.code(), Some(1));

    let listed = house.does(&with(&["dead-letters", "list"])).await;
    assert!(listed.contains(id) && listed.contains("no such variable"), "{listed}");
    let done = house.json(&with(&["dead-letters", "requeue", "--all"])).await;
    assert_eq!(done["requeued"][0]["message_id"], id);
    let again = house.json(&["dead-letters", "requeue", id, "--tenant", "acme"]).await;
    assert_eq!(again, done);
    let unknown = ["dead-letters", "requeue", "01890a5d-ac96-774b-bcce-b302099a8057", "--tenant", "acme"];
    assert_eq!(house.run(&unknown).await.status.code(), Some(1));
}
