//! The configuration of a fleet under test: the defaults, with everything that is waited for at about a tenth.

use crate::faults;
use bus::BusConfig;
use domain::{RetrySchedule, Shaping, ShardCount, TrackingSite, WindowPolicy};
use failpoint::Faults;
use sender::{BreakerConfig, Deadlines, DeskConfig, LeaseConfig, RelayConfig, RouteConfig, SenderConfig, TlsMode};
use std::{
    net::SocketAddr,
    num::{NonZeroU16, NonZeroU32},
    time::Duration,
};
use store::LeaseTerms;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What a test may change before its fleet starts.
#[derive(Clone)]
pub struct Settings {
    /// How many shards there are.
    pub shards: ShardCount,
    /// The `[fleet.tracking]` section.
    pub tracking: Option<TrackingSite>,
    /// The `[nats]` section; URL and prefix are set by the fleet.
    pub bus: BusConfig,
    /// The `[ingest]` section.
    pub ingest: ingest::IngestConfig,
    /// The `[dispatcher]` section.
    pub dispatcher: dispatcher::DispatcherConfig,
    /// The `[renderer]` section.
    pub renderer: renderer::RendererConfig,
    /// The `[sender]` section; name, journal and a relay's port are set by the fleet.
    pub sender: SenderConfig,
    /// The `[analytics]` section.
    pub analytics: analytics::AnalyticsConfig,
    /// What feedback is told; it listens on a free port.
    pub feedback: feedback::FeedbackConfig,
    /// What goes wrong on purpose with the services' calls; what `MAILFLEET_FAULTS` says, if it says something.
    pub faults: Option<Faults>,
}

/// A lease of a second instead of ten.
const LEASE: LeaseTerms = LeaseTerms { term: ms(1_500), renew_every: ms(300), safety: ms(300), retry_every: ms(100) };

impl Default for Settings {
    fn default() -> Self {
        Self {
            shards: ShardCount(const { NonZeroU16::new(4).expect("not zero") }),
            tracking: None,
            bus: bus(),
            ingest: ingest(),
            dispatcher: dispatcher(),
            renderer: renderer::RendererConfig {
                // Beside other tests, whose threads keep every core busy, bulk mail is not to come last.
                press: press::PressConfig { bulk_niceness: 0, ..press::PressConfig::default() },
                refused_delay: ms(100),
                fault_delay: ms(3_000),
                hold_delay: ms(200),
                health_interval: ms(200),
                ..renderer::RendererConfig::default()
            },
            sender: sender(),
            analytics: analytics(),
            feedback: feedback(),
            faults: faults::of_environment(),
        }
    }
}

impl Settings {
    /// The limits of the sites, as configuration would say them.
    pub fn shape(&mut self, shaping: serde_json::Value) {
        self.sender.shaping = serde_json::from_value::<Shaping>(shaping).unwrap();
    }

    /// Fills in where the sink is, unless the route has its own idea.
    pub(crate) fn aim_at(&mut self, sink: SocketAddr) {
        match &mut self.sender.route {
            Some(RouteConfig::Relay(relay)) => {
                relay.host = sink.ip().to_string();
                relay.port = sink.port();
            }
            Some(RouteConfig::Direct(direct)) => direct.port = NonZeroU16::new(sink.port()).unwrap(),
            _ => {}
        }
    }
}

fn bus() -> BusConfig {
    BusConfig {
        publish_timeout: ms(500),
        api_timeout: ms(1_000),
        ping_interval: ms(500),
        backoff_max: ms(200),
        render_max_bytes: 8 << 20,
        send_max_bytes: 32 << 20,
        ack_wait: ms(3_000),
        pull_expires: ms(3_000),
        pull_heartbeat: ms(500),
        retry_on_initial_connect: true,
        ..BusConfig::default()
    }
}

fn ingest() -> ingest::IngestConfig {
    let mut config = ingest::IngestConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        key_term: ms(500),
        name_term: ms(100),
        look_every: ms(50),
        require_verified_domains: false,
        ..ingest::IngestConfig::default()
    };
    config.fast_lane.window = ms(300);
    config.fast_lane.park = ms(100);
    config
}

fn dispatcher() -> dispatcher::DispatcherConfig {
    dispatcher::DispatcherConfig {
        lease: LEASE,
        window: WindowPolicy { horizon: ms(300), ..WindowPolicy::default() },
        min_window: 20,
        start_window: 100,
        look_interval: ms(100),
        full_look_interval: ms(1_000),
        bound_slack: ms(1_000),
        recount_interval: ms(100),
        recount_busy_interval: ms(20),
        refused_delay: ms(100),
        bus_interval: ms(100),
        repair_interval: ms(100),
        repair_after: ms(4_500),
        doubt_grace: ms(1_500),
        mark_interval: ms(100),
        expire_interval: ms(500),
        ..dispatcher::DispatcherConfig::default()
    }
}

fn sender() -> SenderConfig {
    let tenth = |full: Duration| full / 10;
    let deadlines = Deadlines::default();
    SenderConfig {
        route: Some(RouteConfig::Relay(RelayConfig { tls: TlsMode::None, ..RelayConfig::default() })),
        breaker: BreakerConfig { pause: ms(100), ..BreakerConfig::default() },
        // Nothing is limited but where a test says so.
        shaping: serde_json::from_value(serde_json::json!({
            "default": { "rate": "none", "connection_rate": "none" },
        }))
        .unwrap(),
        retry: RetrySchedule::of_steps(vec![ms(6_000), ms(30_000), ms(90_000)]).unwrap().into(),
        lease: LeaseConfig { term: ms(1_500), renew_every: ms(300), margin: ms(300), look_every: ms(100) },
        desk: DeskConfig {
            hold: ms(500),
            ahead: ms(100),
            claim_every: ms(5),
            start_within: ms(500),
            idle: ms(3_000),
            pause: ms(100),
            claim: const { NonZeroU32::new(200).expect("not zero") },
            ..DeskConfig::default()
        },
        deadlines: Deadlines {
            connect: tenth(deadlines.connect),
            greeting: tenth(deadlines.greeting),
            starttls: tenth(deadlines.starttls),
            envelope: tenth(deadlines.envelope),
            data: tenth(deadlines.data),
            body: tenth(deadlines.body),
            dot: tenth(deadlines.dot),
        },
        ..SenderConfig::default()
    }
}

fn feedback() -> feedback::FeedbackConfig {
    let mut config = feedback::FeedbackConfig {
        linger: Duration::from_millis(100),
        commit_within: Duration::from_secs(1),
        ..feedback::FeedbackConfig::default()
    };
    config.spool.replay_every = Duration::from_millis(100);
    config
}

fn analytics() -> analytics::AnalyticsConfig {
    analytics::AnalyticsConfig {
        lease: LEASE,
        poll_min: ms(20),
        poll_max: ms(100),
        full_look_interval: ms(500),
        compact_interval: ms(1_000),
        measure_interval: ms(500),
        ..analytics::AnalyticsConfig::default()
    }
}
