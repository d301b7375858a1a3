//! Doing one fault, from its beginning to its end.

use super::{
    faults::Fault,
    fleet::{Fleet, STOP_LIMIT},
    member::Member,
    schedule::{Event, Neighbour, Target, members},
};
use crate::Kind;
use anyhow::{Context, bail};
use std::{fs, io, sync::Arc, time::Duration};
use testkit::Fault as Wire;

/// By how much the clock jumps, in milliseconds: a little, past every lease, a minute, and back under a lease. Never back
/// by much: what was put off would then rest for as long, which is right and takes too long here.
const STEPS: [i64; 7] = [1_000, 3_000, 10_000, 60_000, -500, -1_000, -3_000];
/// How much later a slow broker answers, in milliseconds.
const SLOW: (u64, u64) = (100, 800);
/// One in so many senders that are killed loses its journal as well.
const LOSES_JOURNAL: u64 = 3;
/// Name of the file that fills the disk.
const FILLER: &str = "filler";

/// Does a fault, waits as long as it lasts, and undoes it.
///
/// # Errors
/// When it could not be done, or a service did not end when it was told to.
pub async fn inject(fleet: &Fleet, event: &Event) -> anyhow::Result<()> {
    match event.target {
        Target::Service(kind, replicas) => {
            let members = fleet.named(&members(kind, replicas));
            service(fleet, event, kind, &members).await
        }
        Target::Way(kind, replicas, neighbour) => {
            let wire = if event.fault == Fault::NetworkCut { Wire::Cut } else { Wire::Hold };
            let struck = fleet.named(&members(kind, replicas));
            let set = |wire| {
                for member in &struck {
                    match neighbour {
                        Neighbour::Postgres => member.postgres.set(wire),
                        Neighbour::Nats => member.nats.set(wire),
                    }
                }
            };
            set(wire);
            tokio::time::sleep(event.lasts).await;
            set(Wire::Nothing);
            Ok(())
        }
        Target::Nats => nats(fleet, event).await,
        Target::Postgres => postgres(fleet, event).await,
    }
}

async fn service(fleet: &Fleet, event: &Event, kind: Kind, members: &[Arc<Member>]) -> anyhow::Result<()> {
    match event.fault {
        Fault::Kill9 => {
            members.iter().for_each(|member| member.kill9());
            if kind == Kind::Sender && event.choice.is_multiple_of(LOSES_JOURNAL) {
                // Its volume is lost with it: everything that was claimed is in doubt then.
                members.iter().try_for_each(|member| remove(&fleet.journal(member)))?;
            }
            tokio::time::sleep(event.lasts).await;
            members.iter().for_each(|member| member.release());
        }
        Fault::Sigterm => {
            let told: Vec<_> = members.iter().filter_map(|member| Some((member, member.pid()?))).collect();
            members.iter().for_each(|member| member.terminate());
            for (member, pid) in told {
                if !member.gone(pid, STOP_LIMIT).await {
                    member.kill9();
                    member.release();
                    bail!("{} did not end within {STOP_LIMIT:?} after SIGTERM", member.name);
                }
            }
        }
        Fault::Stop => {
            members.iter().for_each(|member| member.freeze());
            tokio::time::sleep(event.lasts).await;
            members.iter().for_each(|member| member.thaw());
        }
        Fault::MemoryLimit => {
            let mut limited = Vec::new();
            for member in members {
                let pid = member.limit_memory().context("limit the memory")?;
                limited.extend(pid.map(|pid| (member, pid)));
            }
            tokio::time::sleep(event.lasts).await;
            limited.iter().for_each(|(member, pid)| member.free_memory(*pid));
        }
        other => bail!("{other} is not done to a service"),
    }
    Ok(())
}

async fn nats(fleet: &Fleet, event: &Event) -> anyhow::Result<()> {
    let stored = fleet.folder.join("nats").join("data");
    let mut server = fleet.nats.lock().await;
    match event.fault {
        Fault::NatsKill => {
            server.kill9().await?;
            tokio::time::sleep(event.lasts).await;
            server.restart().await?;
        }
        Fault::NatsRestart => server.restart().await?,
        Fault::NatsStop => {
            server.stop().await?;
            tokio::time::sleep(event.lasts).await;
            server.restart().await?;
        }
        Fault::NatsWipe => {
            server.kill9().await?;
            remove(&stored)?;
            tokio::time::sleep(event.lasts).await;
            server.restart().await?;
        }
        Fault::NatsWipeRunning => {
            remove(&stored)?;
            tokio::time::sleep(event.lasts).await;
            // It goes on with what it has in memory, or comes back to nothing.
            if event.choice.is_multiple_of(2) {
                server.kill9().await?;
                server.restart().await?;
            }
        }
        Fault::NatsSlow => {
            let delay = Duration::from_millis(SLOW.0 + event.choice % (SLOW.1 - SLOW.0));
            fleet.before_nats(Wire::Delay(delay));
            tokio::time::sleep(event.lasts).await;
            fleet.before_nats(Wire::Nothing);
        }
        other => bail!("{other} is not done to the broker"),
    }
    Ok(())
}

fn remove(folder: &std::path::Path) -> anyhow::Result<()> {
    // The server may write into it at the same time.
    for _ in 0..10 {
        match fs::remove_dir_all(folder) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => return Ok(()),
        }
    }
    bail!("cannot wipe {}", folder.display())
}

async fn postgres(fleet: &Fleet, event: &Event) -> anyhow::Result<()> {
    let mut server = fleet.postgres.lock().await;
    match event.fault {
        Fault::PostgresKill9 => {
            server.kill9().await?;
            tokio::time::sleep(event.lasts).await;
            server.restart().await?;
        }
        Fault::PostgresRestart => server.restart().await?,
        Fault::PostgresSessions => fleet.saboteur.end_sessions(100).await?,
        Fault::PostgresConnections => {
            fleet.saboteur.squat(event.lasts).await?;
        }
        Fault::PostgresLock => fleet.saboteur.lock(event.choice, event.lasts).await?,
        Fault::PostgresBlackhole => {
            fleet.before_postgres(Wire::Hold);
            tokio::time::sleep(event.lasts).await;
            fleet.before_postgres(Wire::Nothing);
        }
        Fault::PostgresDiskFull => {
            let filler = server.data_dir().parent().unwrap_or(server.data_dir()).join(FILLER);
            let filled = fill(&filler);
            tokio::time::sleep(event.lasts).await;
            fs::remove_file(&filler)?;
            filled?;
            // A server that could not write its log has ended itself.
            if fleet.saboteur.run("select 1").await.is_err() {
                server.restart().await?;
            }
        }
        Fault::ClockStep => {
            let step = STEPS[(event.choice % STEPS.len() as u64) as usize];
            fleet.saboteur.step_clock(step).await?;
        }
        other => bail!("{other} is not done to the database"),
    }
    Ok(())
}

/// Writes a file until there is no room left.
fn fill(path: &std::path::Path) -> io::Result<()> {
    use io::Write;
    let mut file = fs::File::create(path)?;
    let block = vec![0; 1 << 16];
    let mut piece = block.len();
    loop {
        match file.write_all(&block[..piece]) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::StorageFull && piece > 1 => piece /= 2,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
