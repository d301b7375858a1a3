use super::*;
use crate::config::{FleetConfig, PostgresConfig, RuntimeConfig};
use serde::Deserialize;
use std::{num::NonZeroU32, time::Duration};

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct TestConfig {
    postgres: PostgresConfig,
    fleet: FleetConfig,
    runtime: RuntimeConfig,
    sender: Section,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    max_in_flight: NonZeroU32,
    helo: String,
    #[serde(with = "humantime_serde")]
    patience: Duration,
    ports: Vec<u16>,
}

impl Default for Section {
    fn default() -> Self {
        Self {
            max_in_flight: NonZeroU32::MIN,
            helo: "localhost".to_owned(),
            patience: Duration::from_secs(600),
            ports: vec![25],
        }
    }
}

fn variables(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mailfleet-config-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).expect("writes");
        Self(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

fn problems(error: ConfigError) -> Vec<String> {
    match error {
        ConfigError::Invalid(problems) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{other}"),
    }
}

#[test]
fn without_layers_there_are_the_defaults() {
    let config: TestConfig = Layers::from_parts(None, &[]).expect("loads").read().expect("reads");
    assert_eq!(config, TestConfig::default());
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_common_variables() {
    let file = File::new(
        "wins",
        "[sender]\nmax_in_flight = 5\npatience = '3s'\n[postgres]\nurl = 'postgres://file/a'\n[ingest]\nunread = 1\n",
    );
    let environment = variables(&[
        ("MAILFLEET_SENDER__MAX_IN_FLIGHT", "7"),
        ("MAILFLEET_SENDER__PORTS", "[25, 2525]"),
        ("MAILFLEET_FLEET__SHARDS", "4"),
        ("DATABASE_URL", "postgres://fallback/a"),
        ("MAILFLEET_LOG", "debug"),
        ("MAILFLEETISH__X", "1"),
    ]);
    let config: TestConfig = Layers::from_parts(Some(&file.0), &environment).expect("loads").read().expect("reads");
    assert_eq!(config.sender.max_in_flight.get(), 7);
    assert_eq!(config.sender.patience, Duration::from_secs(3));
    assert_eq!(config.sender.ports, [25, 2525]);
    assert_eq!(config.fleet.shards.0.get(), 4);
    assert_eq!(config.postgres.url.expose(), "postgres://file/a");

    let config: TestConfig = Layers::from_parts(None, &environment).expect("loads").read().expect("reads");
    assert_eq!(config.postgres.url.expose(), "postgres://fallback/a");
}

#[test]
fn every_problem_is_listed_with_where_it_comes_from() {
    let file = File::new(
        "problems",
        "[sender]\nmax_in_flight = 0\nhello = 'x'\nports = [25, 'a']\n[sendr]\nx = 1\n[fleet]\nshards = 0\n",
    );
    let environment = variables(&[("MAILFLEET_SENDER__PATIENCE", "soon"), ("MAILFLEET_RUNTIME__GRACE", "1 parsec")]);
    let layers = Layers::from_parts(Some(&file.0), &environment).expect("loads");
    let problems = problems(layers.read::<TestConfig>().expect_err("is not valid"));
    let path = file.0.display().to_string();
    for (key, origin) in [
        ("sendr", path.as_str()),
        ("sender.max_in_flight", &path),
        ("sender.hello", &path),
        ("sender.ports", &path),
        ("fleet.shards", &path),
        ("sender.patience", "MAILFLEET_SENDER__PATIENCE"),
        ("runtime.grace", "MAILFLEET_RUNTIME__GRACE"),
    ] {
        assert!(
            problems.iter().any(|problem| problem.starts_with(key) && problem.contains(origin)),
            "{key} is not in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 7, "{problems:#?}");
}

#[test]
fn a_tracking_site_is_read_whole_and_told_what_is_wrong_with_it() {
    let read = |name: &str, text: &str, environment: &[(&str, &str)]| {
        let file = File::new(name, text);
        Layers::from_parts(Some(&file.0), &variables(environment)).expect("loads").read::<TestConfig>()
    };
    let none = read("untracked", "[fleet]\nshards = 2\n", &[]).expect("reads");
    assert_eq!(none.fleet.tracking, None);
    let text = "[fleet.tracking]\nbase_url = 'https://click.example.net/'\nopens = false\n\
                domains.'example.com' = 'https://l.example.com'\n";
    let config = read("tracked", text, &[("MAILFLEET_FLEET__TRACKING__HONEYPOT", "true")]).expect("reads");
    let site = config.fleet.tracking.as_ref().expect("is there");
    assert_eq!((site.opens, site.clicks, site.honeypot), (false, true, true));
    assert_eq!(site.base_for(&"shop.example.com".parse().expect("a domain")).as_str(), "https://l.example.com");
    assert_eq!(site.base_for(&"example.org".parse().expect("a domain")).as_str(), "https://click.example.net");
    let shown: TestConfig = toml::from_str(&show(&config)).expect("what is shown can be read");
    assert_eq!(shown.fleet, config.fleet);

    for (text, key, fix) in [
        ("opens = true", "fleet.tracking", "base_url"),
        ("base_url = 'http://click.example.com'", "fleet.tracking.base_url", "use https"),
        ("base_url = 'https://a.test/?x'", "fleet.tracking.base_url", "leave out user, query and fragment"),
        ("base_url = 'https://a.test'\ndomains.'a b' = 'https://b.test'", "fleet.tracking.domains", ""),
        ("base_url = 'https://a.test'\ndomains.'a.test' = 'b.test'", "fleet.tracking.domains.a.test", "https://click."),
        ("base_url = 'https://a.test'\nopen = true", "fleet.tracking.open", "opens"),
    ] {
        let told = problems(read("mistracked", &format!("[fleet.tracking]\n{text}\n"), &[]).expect_err("is not valid"));
        assert!(told[0].starts_with(key) && told[0].contains(fix), "{text}: {told:#?}");
    }
}

#[test]
fn a_file_that_is_absent_or_not_toml_is_named() {
    let absent = Layers::from_parts(Some(Path::new("no/such/file.toml")), &[]).expect_err("is absent");
    assert!(absent.to_string().contains("no/such/file.toml"));
    let file = File::new("syntax", "[sender\n");
    assert!(matches!(Layers::from_parts(Some(&file.0), &[]), Err(ConfigError::Syntax { .. })));
}

#[test]
fn effective_values_are_shown_without_secrets() {
    let environment = variables(&[("DATABASE_URL", "postgres://me:hush@db/mail")]);
    let config: TestConfig = Layers::from_parts(None, &environment).expect("loads").read().expect("reads");
    let shown = show(&config);
    assert!(shown.contains("postgres://***@db/mail") && !shown.contains("hush"), "{shown}");
    assert!(shown.contains("patience = \"10m\""), "{shown}");
}
