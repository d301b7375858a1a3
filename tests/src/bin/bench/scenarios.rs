//! What is measured.

pub mod depth;
pub mod latency;
pub mod replicas;
pub mod systems;

use crate::{
    load::Handed,
    mail::{Letter, Plan},
    profile::Profile,
    report::{Measured, note, round},
    sink::{SinkProcess, Stats},
    spread::Spread,
    usage::{self, Cpu, Group, Watch},
};
use anyhow::bail;
use std::{collections::BTreeMap, path::Path};

/// Mails whose signatures are counted.
const PROBES: usize = 10;

/// A system under test.
pub trait Subject {
    /// What is handed in, ready before the clock starts.
    type Load;

    /// Its processes, all of them.
    fn groups(&self) -> anyhow::Result<Vec<Group>>;
    /// Some of them told apart further.
    async fn parts(&self) -> anyhow::Result<Vec<Group>>;
    /// Makes everything that can be made before.
    fn prepare(&self, letter: &Letter, plan: &Plan) -> anyhow::Result<Self::Load>;
    /// Hands mail in, and returns when all of it is accepted: on disk.
    async fn hand_in(&self, load: Self::Load) -> anyhow::Result<Handed>;
    /// Waits until nothing is left to do for what was handed in.
    async fn settled(&self) -> anyhow::Result<()>;
    /// Looks whether it has kept its promises.
    async fn check(&self) -> anyhow::Result<()>;
}

/// Sends some mail, so that connections are open, contents and keys are cached and plans are made; and looks whether
/// it is signed as the system's name says.
pub async fn warm_up<S: Subject>(
    subject: &S,
    sink: &SinkProcess,
    letter: &Letter,
    plan: &Plan,
    signed: bool,
) -> anyhow::Result<()> {
    let before = sink.stats().await?.accepted;
    subject.hand_in(subject.prepare(letter, plan)?).await?;
    subject.hand_in(subject.prepare(letter, &Plan::watched(PROBES))?).await?;
    sink.accepted(before + (plan.count + PROBES) as u64).await?;
    subject.settled().await?;
    let copies = sink.copies();
    if copies.len() < PROBES || copies.values().any(|copy| (copy.signatures > 0) != signed) {
        bail!("the mails at the sink should {}be signed: {copies:?}", if signed { "" } else { "not " });
    }
    Ok(())
}

/// Hands mail in and waits until all of it is delivered and everything about it is done.
pub async fn measure<S: Subject>(
    name: &str,
    subject: &S,
    sink: &SinkProcess,
    letter: &Letter,
    plan: &Plan,
    profile: Option<&Path>,
) -> anyhow::Result<Measured> {
    let (groups, parts) = (subject.groups()?, subject.parts().await?);
    let load = subject.prepare(letter, plan)?;
    let before = Reading::of(&groups, sink).await?;
    let (watch, parts_before) = (Watch::over(&groups), Cpu::of(&parts)?);
    let profile = profile.map(|path| Profile::start(path, &groups)).transpose()?;
    let handed = subject.hand_in(load).await?;
    let delivered = sink.accepted(before.sink.accepted + plan.count as u64).await?;
    subject.settled().await?;
    let settled_us = crate::load::now_us();
    profile.map(Profile::end).transpose()?;
    let after = Reading::of(&groups, sink).await?;
    let (peaks, parts_after) = (watch.end(), Cpu::of(&parts)?);
    subject.check().await?;
    let seconds = |until: u64| until.saturating_sub(handed.begun_us) as f64 / 1e6;
    let wall = seconds(delivered.last_us);
    let count = plan.count;
    let by_process = after.cpu.each_since(&before.cpu, count);
    let each = |seconds: f64| round(seconds * 1e6 / count as f64, 0);
    let copies = after.sink.accepted - before.sink.accepted;
    let measured = Measured {
        system: name.to_owned(),
        mails: count,
        wall_s: round(wall, 2),
        mails_per_s: round(count as f64 / wall, 0),
        cpu_us_per_mail: round(by_process.values().sum(), 0),
        by_process: rounded(by_process),
        by_part: rounded(parts_after.each_since(&parts_before, count)),
        load_us_per_mail: each(after.load - before.load),
        sink_us_per_mail: each(after.sink_cpu - before.sink_cpu),
        peak_mb: round(peaks.sum_mb, 0),
        peak_mb_by_process: peaks.groups.into_iter().map(|(name, held)| (name, round(held.pss, 0))).collect(),
        accept: Spread::of(handed.answers),
        accept_s: round(handed.took.as_secs_f64(), 2),
        settled_s: round(seconds(settled_us), 2),
        octets_per_mail: (after.sink.octets - before.sink.octets) / copies.max(1),
        connections: after.sink.connections - before.sink.connections,
        surplus: copies - count as u64,
        duplicated: after.sink.duplicated - before.sink.duplicated,
        deferred: after.sink.refused - before.sink.refused,
    };
    note(&measured.line());
    Ok(measured)
}

fn rounded(figures: BTreeMap<String, f64>) -> BTreeMap<String, f64> {
    figures.into_iter().map(|(name, used)| (name, round(used, 1))).collect()
}

/// All counters at one moment.
struct Reading {
    cpu: Cpu,
    load: f64,
    sink_cpu: f64,
    sink: Stats,
}

impl Reading {
    async fn of(groups: &[Group], sink: &SinkProcess) -> anyhow::Result<Self> {
        Ok(Self {
            sink: sink.stats().await?,
            cpu: Cpu::of(groups)?,
            load: usage::cpu_of(std::process::id()).unwrap_or(0.0),
            sink_cpu: sink.cpu(),
        })
    }
}
