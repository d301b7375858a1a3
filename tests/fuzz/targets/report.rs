//! Any mail that comes back: read or refused, and whatever is told of it is within its bounds and fit to be kept.
#![no_main]

use domain::Ruleset;
use feedback::report::{Action, Kind, Limits, Reader};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static READER: LazyLock<Reader> = LazyLock::new(|| {
    // The reader outlives a parser that breaks down; what breaks here still ends the run, since nothing unwinds out of it.
    std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let limits = Limits { octets: 1 << 20, recipients: 20, unpacked: 1 << 20, rows: 50, ..Limits::default() };
    Reader::new(Ruleset::builtin().clone(), limits)
});

fuzz_target!(|data: &[u8]| {
    let Ok(reading) = READER.read(data) else { return };
    assert!(reading.findings.len() <= 1_000);
    for finding in &reading.findings {
        for text in [&finding.recipient, &finding.original_recipient, &finding.diagnostic, &finding.remote_mta] {
            let Some(text) = text else { continue };
            assert!(text.chars().count() <= 500 && !text.chars().any(char::is_control), "{text:?}");
        }
        // Only what could not be delivered says something against somebody.
        if finding.bounce.is_some() {
            assert_eq!(finding.action, Some(Action::Failed));
        }
    }
    let is_failure = reading.findings.iter().any(|finding| finding.action == Some(Action::Failed));
    assert_eq!(reading.kind == Kind::Bounce, is_failure, "{reading:?}");
    assert!(reading.dmarc.as_ref().is_none_or(|report| report.rows.len() <= 50));
    // Postgres takes no NUL in JSON.
    assert!(!reading.outcome().to_string().contains("\\u0000"), "{reading:?}");
});
