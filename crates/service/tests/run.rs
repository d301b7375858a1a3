//! The start and the way out, as processes: this program runs itself, as a service, under signals.

use mailfleet_service::{Boot, RunOptions, ServiceError, env, run};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, Command, ExitCode, Stdio},
};

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Config {
    sender: Section,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Section {
    parts: u32,
}

/// Not a test of its own: what the tests below run as a process.
#[test]
#[ignore = "run by the other tests"]
fn as_a_service() {
    let Some(mode) = env::var("TEST_MODE") else { return };
    let options = RunOptions { config_file: None, check_config: mode == "check" };
    let code = run("sender", options, async |boot: Boot| {
        let _config: Config = boot.config()?;
        let life = boot.lifecycle();
        match mode.as_str() {
            "unavailable" => return Err(ServiceError::unavailable("postgres", std::io::Error::other("refused"))),
            "panic" => life.spawn("worker", async { panic!("on purpose") }),
            "stuck" => life.spawn("worker", std::future::pending::<()>()),
            _ => {
                let token = life.token();
                life.spawn("worker", async move { token.cancelled().await });
            }
        }
        tracing::info!("ready");
        life.shutdown_requested().await;
        tracing::info!("stopping");
        Ok(())
    });
    let code = (0..=u8::MAX).find(|number| ExitCode::from(*number) == code).expect("is a number");
    std::process::exit(i32::from(code));
}

struct Service {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Service {
    fn start(mode: &str, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "as_a_service", "--ignored", "--nocapture"])
            .env("TEST_MODE", mode)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let log = BufReader::new(child.stderr.take().expect("is piped"));
        Self { child, log }
    }

    /// Reads the log up to a line with this text.
    fn wait_for(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(self.log.read_line(&mut line).expect("reads") > 0, "the log ended before {text:?}");
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("is there");
    }

    /// The exit code, the rest of the log and the output.
    fn end(mut self) -> (Option<i32>, String, String) {
        let (mut log, mut output) = (String::new(), String::new());
        self.log.read_to_string(&mut log).expect("reads");
        self.child.stdout.take().expect("is piped").read_to_string(&mut output).expect("reads");
        (self.child.wait().expect("ends").code(), log, output)
    }
}

#[test]
fn a_signal_ends_the_service_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut service = Service::start("plain", &[]);
        service.wait_for("\"ready\"");
        service.signal(signal);
        service.wait_for("stopping");
        let (code, log, _) = service.end();
        assert_eq!(code, Some(0), "{log}");
        assert!(log.contains("\"clean\":true"), "{log}");
    }
}

#[test]
fn a_second_signal_aborts() {
    let mut service = Service::start("stuck", &[]);
    service.wait_for("\"ready\"");
    service.signal(Signal::TERM);
    service.wait_for("stopping");
    service.signal(Signal::TERM);
    assert_eq!(service.end().0, Some(70));
}

#[test]
fn a_shutdown_that_takes_too_long_is_cut_and_names_what_it_waited_for() {
    let mut service = Service::start("stuck", &[("MAILFLEET_RUNTIME__GRACE", "100ms")]);
    service.wait_for("\"ready\"");
    service.signal(Signal::TERM);
    let (code, log, _) = service.end();
    assert_eq!(code, Some(70));
    assert!(log.contains("\"waiting_for\":\"worker\""), "{log}");
}

#[test]
fn a_task_that_panics_ends_the_service_with_a_failure() {
    let (code, log, _) = Service::start("panic", &[]).end();
    assert_eq!(code, Some(70), "{log}");
    assert!(log.contains("panicked"), "{log}");
}

#[test]
fn an_absent_neighbour_is_told_once_with_its_cause() {
    let (code, log, _) = Service::start("unavailable", &[]).end();
    assert_eq!(code, Some(69), "{log}");
    assert_eq!(log.matches("postgres is not available: refused").count(), 1, "{log}");
}

#[test]
fn every_problem_of_the_configuration_is_told_and_nothing_runs() {
    let variables =
        [("MAILFLEET_SENDER__PARTS", "many"), ("MAILFLEET_SENDER__PART", "1"), ("MAILFLEET_RUNTIME__GRACE", "soon")];
    let (code, log, _) = Service::start("plain", &variables).end();
    assert_eq!(code, Some(64), "{log}");
    for (variable, _) in variables {
        assert!(log.contains(variable), "{variable} is not in {log}");
    }
    assert!(!log.contains("ready"), "{log}");
}

#[test]
fn checking_shows_the_effective_values_and_nothing_runs() {
    let (code, log, output) = Service::start("check", &[("MAILFLEET_SENDER__PARTS", "3")]).end();
    assert_eq!(code, Some(0), "{log}");
    assert!(output.contains("[sender]\nparts = 3"), "{output}");
    assert!(!log.contains("ready"), "{log}");
}
