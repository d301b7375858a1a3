//! What comes out.

use crate::spread::Spread;
use serde::Serialize;
use serde_json::{Value, json};
use std::{collections::BTreeMap, io::Write};

/// One system, measured once.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    /// Which.
    pub system: String,
    /// Mails.
    pub mails: usize,
    /// From the first submission to the last delivery.
    pub wall_s: f64,
    /// Mails by that.
    pub mails_per_s: f64,
    /// CPU of every process of the system.
    pub cpu_us_per_mail: f64,
    /// Of which.
    pub by_process: BTreeMap<String, f64>,
    /// Of some of which the parts.
    pub by_part: BTreeMap<String, f64>,
    /// CPU of the load generator, which is not the system's.
    pub load_us_per_mail: f64,
    /// CPU of the sink, which is not the system's.
    pub sink_us_per_mail: f64,
    /// Most memory that all processes held at one time; shared pages count once.
    pub peak_mb: f64,
    /// Most memory of each.
    pub peak_mb_by_process: BTreeMap<String, f64>,
    /// How long a submission took to be answered.
    pub accept: Spread,
    /// From the first submission to the last answer.
    pub accept_s: f64,
    /// From the first submission until nothing was left to do.
    pub settled_s: f64,
    /// Size of a mail as the sink got it.
    pub octets_per_mail: u64,
    /// Connections to the sink.
    pub connections: u64,
    /// Copies beyond one a mail.
    pub surplus: u64,
    /// Copies that were there before.
    pub duplicated: u64,
    /// Recipients that got a 4xx.
    pub deferred: u64,
}

impl Measured {
    /// In one line, for who watches.
    pub fn line(&self) -> String {
        let Self { system, mails, wall_s, mails_per_s, cpu_us_per_mail, .. } = self;
        format!("{system}: {mails} mails in {wall_s} s: {mails_per_s} mails/s, {cpu_us_per_mail} µs CPU a mail")
    }
}

/// Tells who watches.
pub fn note(text: &str) {
    // Nobody watching is no reason to stop.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Writes a line of the result.
pub fn say(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{line}")?;
    Ok(())
}

/// Writes a table in Markdown.
pub fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> anyhow::Result<()> {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    say("")?;
    say(&line(&head.map(str::to_owned)))?;
    say(&line(&std::array::from_fn::<_, N, _>(|column| if column == 0 { "---" } else { "---:" }.to_owned())))?;
    rows.iter().try_for_each(|row| say(&line(row)))?;
    say("")
}

/// Rounded to so many places.
pub fn round(value: f64, places: i32) -> f64 {
    let scale = 10_f64.powi(places);
    (value * scale).round() / scale
}

/// One value by another; null where one is missing.
pub fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Value {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) if theirs > 0.0 => json!(round(ours / theirs, 2)),
        _ => Value::Null,
    }
}
