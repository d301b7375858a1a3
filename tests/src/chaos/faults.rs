//! The faults by name, and what each is done to.

use crate::Kind;
use std::{fmt, str::FromStr};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A service is killed and started again.
    Kill9,
    /// A service is told to end, and started again.
    Sigterm,
    /// A service is stopped past its leases, and goes on.
    Stop,
    /// The broker is killed and started again.
    NatsKill,
    /// The broker is ended in order and started again at once.
    NatsRestart,
    /// The broker is away for long.
    NatsStop,
    /// The broker's folder is wiped while it is down.
    NatsWipe,
    /// The broker's folder is wiped while it runs.
    NatsWipeRunning,
    /// The broker answers late.
    NatsSlow,
    /// The database server is killed with all its processes.
    PostgresKill9,
    /// The database server is restarted.
    PostgresRestart,
    /// The fleet's sessions are ended by an administrator.
    PostgresSessions,
    /// Others hold every connection that the database server has.
    PostgresConnections,
    /// Somebody locks a hot table against everyone.
    PostgresLock,
    /// The database server says nothing more, and does not hang up, to anyone, amid their statements.
    PostgresBlackhole,
    /// The database server's disk is full.
    PostgresDiskFull,
    /// The network between one service and one neighbour is cut.
    NetworkCut,
    /// A service and a neighbour keep their connections and hear nothing of each other.
    HalfOpen,
    /// The database's clock jumps.
    ClockStep,
    /// A service gets no more memory.
    MemoryLimit,
}

/// What a fault is done to; no two are done to the same thing at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A service: one replica of it, or both.
    Service,
    /// The way between a service and a neighbour.
    Way,
    /// The broker.
    Nats,
    /// The database server.
    Postgres,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 20] = [
        Self::Kill9,
        Self::Sigterm,
        Self::Stop,
        Self::NatsKill,
        Self::NatsRestart,
        Self::NatsStop,
        Self::NatsWipe,
        Self::NatsWipeRunning,
        Self::NatsSlow,
        Self::PostgresKill9,
        Self::PostgresRestart,
        Self::PostgresSessions,
        Self::PostgresConnections,
        Self::PostgresLock,
        Self::PostgresBlackhole,
        Self::PostgresDiskFull,
        Self::NetworkCut,
        Self::HalfOpen,
        Self::ClockStep,
        Self::MemoryLimit,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kill9 => "kill9",
            Self::Sigterm => "sigterm",
            Self::Stop => "stop",
            Self::NatsKill => "nats-kill",
            Self::NatsRestart => "nats-restart",
            Self::NatsStop => "nats-stop",
            Self::NatsWipe => "nats-wipe",
            Self::NatsWipeRunning => "nats-wipe-running",
            Self::NatsSlow => "nats-slow",
            Self::PostgresKill9 => "postgres-kill9",
            Self::PostgresRestart => "postgres-restart",
            Self::PostgresSessions => "postgres-sessions",
            Self::PostgresConnections => "postgres-connections",
            Self::PostgresLock => "postgres-lock",
            Self::PostgresBlackhole => "postgres-blackhole",
            Self::PostgresDiskFull => "postgres-disk-full",
            Self::NetworkCut => "network-cut",
            Self::HalfOpen => "half-open",
            Self::ClockStep => "clock-step",
            Self::MemoryLimit => "memory-limit",
        }
    }

    /// What it is done to.
    pub const fn scope(self) -> Scope {
        match self {
            Self::Kill9 | Self::Sigterm | Self::Stop | Self::MemoryLimit => Scope::Service,
            Self::NetworkCut | Self::HalfOpen => Scope::Way,
            Self::NatsKill
            | Self::NatsRestart
            | Self::NatsStop
            | Self::NatsWipe
            | Self::NatsWipeRunning
            | Self::NatsSlow => Scope::Nats,
            Self::PostgresKill9
            | Self::PostgresRestart
            | Self::PostgresSessions
            | Self::PostgresConnections
            | Self::PostgresLock
            | Self::PostgresBlackhole
            | Self::PostgresDiskFull
            | Self::ClockStep => Scope::Postgres,
        }
    }

    /// How long it lasts, in milliseconds: at least, and below.
    pub const fn length(self) -> (u64, u64) {
        match self {
            Self::Kill9 | Self::Sigterm => (200, 1_500),
            // Past the lease of two seconds, or just short of it.
            Self::Stop => (1_500, 6_000),
            Self::NatsKill | Self::PostgresKill9 | Self::NatsWipe => (200, 3_000),
            Self::NatsRestart | Self::PostgresRestart | Self::PostgresSessions | Self::ClockStep => (1, 2),
            Self::NatsStop => (6_000, 12_000),
            Self::NatsWipeRunning => (1_000, 4_000),
            Self::NatsSlow => (3_000, 8_000),
            Self::PostgresConnections | Self::PostgresLock | Self::PostgresDiskFull => (2_000, 6_000),
            Self::PostgresBlackhole => (2_000, 8_000),
            Self::NetworkCut | Self::HalfOpen => (1_000, 7_000),
            Self::MemoryLimit => (2_000, 5_000),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fault that was asked for: any service of it, or one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// What.
    pub fault: Fault,
    /// To which service, when it is not all the same.
    pub service: Option<Kind>,
}

/// A word that names no fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFault(String);

impl fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Fault::ALL.map(Fault::name).join(", ");
        let services = Kind::ALL.map(Kind::name).join(", ");
        write!(
            f,
            "{:?} is no fault; there are all, {names}, those of a service also as kill9:sender ({services})",
            self.0
        )
    }
}

impl std::error::Error for UnknownFault {}

impl FromStr for Wanted {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let unknown = || UnknownFault(text.to_owned());
        let (name, service) = match text.split_once(':') {
            Some((name, service)) => {
                (name, Some(Kind::ALL.into_iter().find(|kind| kind.name() == service).ok_or_else(unknown)?))
            }
            None => (text, None),
        };
        let fault = Fault::ALL.into_iter().find(|fault| fault.name() == name).ok_or_else(unknown)?;
        if service.is_some() && !matches!(fault.scope(), Scope::Service | Scope::Way) {
            return Err(unknown());
        }
        Ok(Self { fault, service })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.service {
            Some(kind) => write!(f, "{}:{}", self.fault, kind.name()),
            None => write!(f, "{}", self.fault),
        }
    }
}

/// The faults of a list such as `kill9:sender,nats-wipe`, or every one for `all`.
///
/// # Errors
/// With the first word that names none.
pub fn parse(list: &str) -> Result<Vec<Wanted>, UnknownFault> {
    if list == "all" {
        return Ok(Fault::ALL.map(|fault| Wanted { fault, service: None }).into());
    }
    list.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_by_its_name_and_nothing_else_is() {
        for fault in Fault::ALL {
            assert_eq!(parse(fault.name()).unwrap(), [Wanted { fault, service: None }]);
        }
        let one = parse("kill9:sender, half-open:ingest").unwrap();
        assert_eq!(one[0], Wanted { fault: Fault::Kill9, service: Some(Kind::Sender) });
        assert_eq!(one[1].to_string(), "half-open:ingest");
        for wrong in ["kill8", "kill9:postgres", "nats-kill:sender", "each"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse("all").unwrap().len(), Fault::ALL.len());
    }
}
