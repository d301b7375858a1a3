//! The command as a newcomer meets it: what it says, and with which code it ends.

use std::process::{Command, Output};

fn mailfleet(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mailfleet"))
        .args(["--dir", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-fleet-here")])
        .args(words)
        .env_remove("DATABASE_URL")
        .env_remove("NATS_URL")
        .output()
        .expect("the program runs")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn shells_and_man_are_told_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let output = mailfleet(&["completion", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(said(&output).contains("dead-letters"), "{shell}");
    }
    let page = said(&mailfleet(&["man"]));
    assert!(page.contains(".TH mailfleet 1") && page.contains("dead\\-letters"), "{page}");
    let folder = concat!(env!("CARGO_TARGET_TMPDIR"), "/man");
    assert_eq!(mailfleet(&["man", "--out", folder]).status.code(), Some(0));
    assert!(std::fs::read_to_string(format!("{folder}/mailfleet-send.1")).expect("is written").contains("\\-\\-csv"));
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let output = mailfleet(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for word in [
        "demo",
        "up",
        "down",
        "status",
        "send",
        "template",
        "why",
        "messages",
        "watch",
        "queue",
        "pause",
        "resume",
        "audit",
        "migrate",
        "topology",
        "run",
        "domain",
        "suppressions",
        "tenants",
        "keys",
        "metrics",
        "dead-letters",
        "endpoints",
        "inbound",
        "audit-log",
    ] {
        assert!(said(&output).contains(word), "{word}");
    }
    assert!(said(&output).contains("64"), "{}", said(&output));
}

#[test]
fn words_that_mean_nothing_end_with_two() {
    for words in [&["send"][..], &["no-such-command"], &["pause"], &["run", "nobody"]] {
        assert_eq!(mailfleet(words).status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn without_a_fleet_a_command_says_how_to_get_one() {
    let output = mailfleet(&["status"]);
    assert_ne!(output.status.code(), Some(0));
    assert!(said(&output).contains("mailfleet up"), "{}", said(&output));
}

#[test]
fn every_service_prints_its_configuration_without_starting() {
    for service in ["ingest", "dispatcher", "renderer", "sender", "analytics"] {
        let output = mailfleet(&["run", service, "--check-config"]);
        assert_eq!(output.status.code(), Some(0), "{service}: {}", said(&output));
        assert!(said(&output).contains("[postgres]"), "{service}: {}", said(&output));
    }
}

#[test]
fn a_key_that_nobody_knows_is_an_error_that_names_it() {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("wrong.toml");
    std::fs::write(&folder, "[sender]\nrecrod = 1\n").expect("can be written");
    let file = folder.to_string_lossy().into_owned();
    let output = mailfleet(&["run", "sender", "--config", &file, "--check-config"]);
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("recrod"), "{}", said(&output));
}

#[test]
fn a_tracking_site_without_a_master_key_or_with_a_bad_address_is_an_error_before_anything_starts() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("tracking.toml");
    let check = |service: &str, text: &str| {
        std::fs::write(&file, text).expect("can be written");
        mailfleet(&["run", service, "--config", &file.to_string_lossy(), "--check-config"])
    };
    for service in ["renderer", "sender"] {
        let output = check(service, "[fleet.tracking]\nbase_url = 'https://click.example.com'\n");
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(said(&output).contains("secrets.master_key_file: is needed for fleet.tracking"), "{}", said(&output));
        let output = check(service, "[fleet.tracking]\nbase_url = 'http://click.example.com'\n");
        assert!(said(&output).contains("fleet.tracking.base_url: is an http address"), "{}", said(&output));
        let whole = "[fleet.tracking]\nbase_url = 'https://click.example.com'\n\
                     domains.'example.org' = 'https://l.example.org'\n[secrets]\nmaster_key_file = '/run/key'\n";
        let output = check(service, whole);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains("\"example.org\" = \"https://l.example.org\""), "{}", said(&output));
    }
}

#[test]
fn routes_that_cannot_be_meant_are_an_error_that_names_the_field_before_anything_starts() {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("routes.toml");
    let check = |text: &str| {
        std::fs::write(&file, text).expect("can be written");
        mailfleet(&["run", "sender", "--config", &file.to_string_lossy(), "--check-config"])
    };
    for (text, problem) in [
        (
            "[sender]\nroutes.own = { kind = 'direct' }\npools.all.routes = [{ route = 'onw' }]\n",
            "sender.pools.all.routes: there is no route \"onw\"; there are own",
        ),
        (
            "[sender]\nroute = { kind = 'ses', password_file = '/nowhere' }\n",
            "sender.route: password_file: cannot read",
        ),
        ("[sender]\nreply_rules = '/nowhere.toml'\n", "sender.reply_rules: cannot read /nowhere.toml"),
    ] {
        let output = check(text);
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
        assert!(said(&output).contains(problem), "{}", said(&output));
    }
    let fine = "[sender]\nroutes.own = { kind = 'direct' }\npools.all.routes = [{ route = 'own', weight = 2 }]\n";
    assert_eq!(check(fine).status.code(), Some(0));
}
