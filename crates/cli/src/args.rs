//! The command line.

use crate::{
    classify::ClassifyArgs, doctor::DoctorCommand, exit, manage::args::ManageCommand, template::TemplateCommand,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Takes mail in, renders it, sends it no faster than each receiver wants it, and tells what became of it.
///
/// `mailfleet demo` shows all of it on this machine. `mailfleet up` keeps a whole fleet running here, and the
/// other commands find it. In production each service runs as `mailfleet run SERVICE` with a configuration file,
/// and the commands are pointed at it with --config, --endpoint and --api-key-file.
#[derive(Debug, Parser)]
#[command(name = "mailfleet", version, after_help = exit::HELP, max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Answer with JSON, one value a line
    #[arg(long, global = true)]
    pub json: bool,
    /// Where the local fleet keeps its data
    #[arg(long, global = true, value_name = "DIR", env = "MAILFLEET_DIR", default_value = ".mailfleet")]
    pub dir: PathBuf,
    /// The configuration file of the fleet; without it, that of the local fleet
    #[arg(long, global = true, value_name = "FILE", env = "MAILFLEET_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where ingest listens, such as http://127.0.0.1:7070; without it, the local fleet
    #[arg(long, global = true, value_name = "URL", env = "MAILFLEET_ENDPOINT")]
    pub endpoint: Option<String>,
    /// A file that holds an API key; without it, the local fleet's admin key
    #[arg(long, global = true, value_name = "FILE", env = "MAILFLEET_API_KEY_FILE")]
    pub api_key_file: Option<PathBuf>,
    /// The tenant to act for with a key that administers the fleet: its name, or its id
    #[arg(long, global = true, value_name = "TENANT", env = "MAILFLEET_TENANT")]
    pub tenant: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show it all: a fleet, a campaign, every mail accounted for
    ///
    /// Starts a local fleet when none runs, sends a personalised campaign to the recipients of a CSV file through
    /// the public API into the built-in mail sink, waits until every recipient has his final event, and prints what
    /// became of them. Contacts nothing but loopback. Its last line is one JSON object.
    Demo(DemoArgs),
    /// Start a local fleet: Postgres, NATS, every service, and a mail sink
    Up(UpArgs),
    /// Stop the local fleet; its data stay
    Down {
        /// Say nothing when none runs
        #[arg(long)]
        quiet: bool,
    },
    /// What runs, whether it is ready, who holds what, how much waits
    Status,
    /// Send a mail, or one to every line of a CSV file
    Send(Box<SendArgs>),
    /// What mails are made from: list, get, publish, diff and preview templates
    Template {
        #[command(subcommand)]
        command: TemplateCommand,
    },
    /// What happened to a message, what it waits for, and when it goes next
    Why {
        /// The message's id
        message: String,
    },
    /// List messages, the newest first
    Messages(MessagesArgs),
    /// Follow what happens to messages, as it happens
    ///
    /// Goes on by itself when a stream ends, from where it was. Each event bears its number in the log; give the last
    /// one seen with --after to go on after an interruption without a gap or a repeat.
    Watch(WatchArgs),
    /// Tell what a receiver's reply means: its class, whether it is for good, and by which rule
    ///
    /// Answers with one JSON value a reply. With --stored it goes over the refusals in the log instead, tells which of
    /// them the rules would take for something else than they were, and gathers the words that no rule knows.
    Classify(ClassifyArgs),
    /// Look for what keeps mail from being delivered, and say what to do about it
    ///
    /// Ends with 1 when something is wrong.
    Doctor {
        #[command(subcommand)]
        command: DoctorCommand,
    },
    /// Why a receiver is sent to as fast as it is: what lowers the pace, since when, and what it has said
    Shaping {
        /// A site such as google or mx.example.com, or a recipient domain
        site: String,
        /// Take back what lowers the pace there, tenants and campaigns that are held back included
        #[arg(long)]
        lift: bool,
        /// With --lift: for this route alone
        #[arg(long, value_name = "ROUTE", requires = "lift")]
        route: Option<String>,
        /// How many changes to show
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
        changes: u32,
    },
    /// Routes that are warmed up: what they may send today, and how it goes on
    Warmup {
        #[command(subcommand)]
        command: WarmupCommand,
    },
    /// The mails that came in: bounces, complaints, answers, reports
    Inbound {
        #[command(subcommand)]
        command: InboundCommand,
    },
    /// Where mail rests and moves: by slot, tenant and campaign
    Queue {
        /// Show it once instead of again and again on a terminal
        #[arg(long)]
        once: bool,
        /// Seconds between two looks
        #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
        every: u64,
    },
    /// Hold mail back; what is with its receiver already runs to its end
    ///
    /// Holds back every queue that matches all of what is given, those to come as well.
    Pause {
        #[command(flatten)]
        what: SelectorArgs,
        /// Why, for whoever wonders
        #[arg(long, default_value = "")]
        reason: String,
    },
    /// Let go what was paused with the same selector
    Resume {
        #[command(flatten)]
        what: SelectorArgs,
    },
    /// Call back a message, or all messages of an accepted call, that are not yet with their receiver
    Cancel {
        /// The message's id
        #[arg(required_unless_present = "batch")]
        message: Option<String>,
        /// The id of an accepted call
        #[arg(long, conflicts_with = "message")]
        batch: Option<String>,
    },
    #[command(flatten)]
    Manage(ManageCommand),
    /// Tell what came back of mail: opens, clicks, unsubscriptions, complaints, bounces after delivery
    ///
    /// Counted from the log. Rates are of the delivered mail; who opened or clicked is a person as far as the rules of
    /// feedback can tell.
    Report {
        /// Only of this campaign
        #[arg(long, value_name = "UUID")]
        campaign: Option<domain::CampaignId>,
        /// Only of this tenant, by its id
        #[arg(long = "of-tenant", value_name = "UUID")]
        of_tenant: Option<domain::TenantId>,
    },
    /// Recount the log against the roll-ups, and look for messages that are nowhere or in two places
    ///
    /// Ends with 1 on any difference.
    Audit,
    /// Bring the database's schema up to date
    Migrate,
    /// Streams and consumers on the broker
    Topology {
        #[command(subcommand)]
        command: TopologyCommand,
    },
    /// Make and end API keys that administer the fleet, by the database itself
    AdminKey {
        #[command(subcommand)]
        command: AdminKeyCommand,
    },
    /// Print completions for a shell
    ///
    /// For bash: mailfleet completion bash > /etc/bash_completion.d/mailfleet
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command
    Man {
        /// The folder to write to, such as /usr/local/share/man/man1
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Run one service as this process
    Run(RunArgs),
    /// Run the built-in mail sink: takes everything, delivers nothing, behaves as the address says
    Sink(SinkArgs),
}

/// What is done to plans of warming up.
#[derive(Debug, Subcommand)]
pub enum WarmupCommand {
    /// The plans, with today's caps and the last days
    List,
    /// Make a plan, or change the one of this route and site
    ///
    /// From one day to the next the route climbs a rung of the ladder when receivers were content and at least half of
    /// the cap was used; it stays, or goes back, on deferrals, bounces, complaints and suspensions.
    Set(WarmupArgs),
    /// End a plan: nothing is capped any more
    Remove {
        /// The route, by its name in the senders' configuration
        route: String,
        /// The site; without it, the plan for all others
        #[arg(long, value_name = "SITE")]
        site: Option<String>,
    },
    /// In how many days so many messages would be sent, if every day is a good one
    Forecast {
        /// The route
        route: String,
        /// How many messages
        #[arg(long, value_name = "N")]
        messages: u64,
        /// The site; without it, the plan for all others
        #[arg(long, value_name = "SITE")]
        site: Option<String>,
    },
}

/// What is done with mails that came in.
#[derive(Debug, Subcommand)]
pub enum InboundCommand {
    /// The last ones, with what has been made of them
    List {
        #[command(flatten)]
        which: InboundArgs,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
    },
    /// One mail: who brought it, what it says, and with --raw the mail as it came
    Show {
        /// Its name
        mail: String,
        /// The mail as it came, and nothing else
        #[arg(long)]
        raw: bool,
    },
    /// Read mails anew, by the rules of now; what they told before is not counted again
    Replay {
        /// Their names; without any, those that the options mean
        #[arg(value_name = "MAIL", required_unless_present_any = ["message", "kind", "state", "since"])]
        mails: Vec<String>,
        #[command(flatten)]
        which: InboundArgs,
    },
}

/// Which mails.
#[derive(Debug, Args)]
pub struct InboundArgs {
    /// About this message
    #[arg(long, value_name = "ID")]
    pub message: Option<String>,
    /// Of this kind: bounce, delay, complaint, auto_reply, unsubscribe, dmarc_report, …
    #[arg(long, value_name = "KIND")]
    pub kind: Option<String>,
    /// Where they stand: waiting, read, or dead (nothing could be made of them)
    #[arg(long, value_name = "STATE", value_parser = ["waiting", "read", "dead"])]
    pub state: Option<String>,
    /// Received since then: a time such as 2030-01-31T08:00:00Z, or a span before now such as 2h
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
}

#[derive(Debug, Args)]
pub struct WarmupArgs {
    /// The route, by its name in the senders' configuration
    pub route: String,
    /// A site that has a plan of its own, such as google; without it, all others together
    #[arg(long, value_name = "SITE")]
    pub site: Option<String>,
    /// Messages a day, rung by rung, such as 50,100,500; without it, from 50 to 1,000,000
    #[arg(long, value_name = "CAPS", value_parser = clap::value_parser!(domain::warmup::Ladder))]
    pub ladder: Option<domain::warmup::Ladder>,
    /// The rung of today, from 1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=90))]
    pub rung: u16,
    /// What becomes of mail above the cap: routes (others of its pool), or wait
    #[arg(long, value_name = "POLICY", default_value = "routes", value_parser = clap::value_parser!(domain::warmup::Overflow))]
    pub overflow: domain::warmup::Overflow,
    /// Over how long a day's cap spreads, such as 8h
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = humantime::parse_duration)]
    pub spread: std::time::Duration,
    /// Stay on this rung
    #[arg(long)]
    pub hold: bool,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many recipients to make up
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    pub recipients: u32,
    /// Recipients from your own file instead: a column `email`, the others are variables. They stay on this machine
    #[arg(long, value_name = "FILE", conflicts_with = "recipients")]
    pub csv: Option<PathBuf>,
    /// Stop when it is done, on a terminal too
    #[arg(long)]
    pub exit: bool,
    /// Give up when not every recipient has his final event after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub limit: u64,
}

#[derive(Debug, Args)]
pub struct UpArgs {
    /// Return when everything is ready, and leave it running
    #[arg(long)]
    pub detach: bool,
    /// A Postgres to use instead of a private one: postgres://user:password@host/database
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub postgres: Option<String>,
    /// A NATS to use instead of a private one: nats://host:port
    #[arg(long, value_name = "URL", env = "NATS_URL", hide_env_values = true)]
    pub nats: Option<String>,
}

#[derive(Debug, Args)]
pub struct SendArgs {
    /// The author: address, or "Name <address>"; its domain is a sending domain of the tenant
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<String>,
    /// A recipient; may be repeated
    #[arg(long, value_name = "ADDRESS", required_unless_present = "csv", conflicts_with = "csv")]
    pub to: Vec<String>,
    /// Recipients from a file: a column `email`, the others are variables. A column NAME:json holds JSON
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// The subject, a template
    #[arg(long, required_unless_present_any = ["template", "raw"])]
    pub subject: Option<String>,
    /// The text part, a template
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["text_file", "template", "raw"])]
    pub text: Option<String>,
    /// A file with the text part
    #[arg(long, value_name = "FILE", conflicts_with_all = ["template", "raw"])]
    pub text_file: Option<PathBuf>,
    /// A file with the HTML part
    #[arg(long, value_name = "FILE", conflicts_with_all = ["template", "raw"])]
    pub html_file: Option<PathBuf>,
    /// A published template: NAME, or NAME@VERSION
    #[arg(long, value_name = "TEMPLATE", conflicts_with_all = ["subject", "raw"])]
    pub template: Option<String>,
    /// A file with a finished mail (RFC 5322)
    #[arg(long, value_name = "FILE", conflicts_with = "subject")]
    pub raw: Option<PathBuf>,
    /// The language that the recipients read, such as de or pt-BR: chooses among a template's translations
    #[arg(long, value_name = "TAG")]
    pub language: Option<String>,
    /// The column of the file that tells each recipient's language
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub language_column: Option<String>,
    /// A variable of every recipient; may be repeated. NAME=TEXT, or NAME:=JSON
    #[arg(long = "var", value_name = "NAME=VALUE")]
    pub vars: Vec<String>,
    /// transactional, or bulk; otherwise transactional for --to and bulk for --csv
    #[arg(long, value_enum)]
    pub lane: Option<LaneArg>,
    /// The campaign it belongs to, a UUID of your choosing
    #[arg(long, value_name = "UUID")]
    pub campaign: Option<String>,
    /// When to send it: a time such as 2030-01-31T08:00:00Z, or a span from now such as 2h
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// How long to go on trying, such as 4h
    #[arg(long, value_name = "SPAN")]
    pub time_to_live: Option<String>,
    /// Makes a repeat of this command harmless
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// A file that goes along: FILE, or FILE=TYPE such as report.bin=application/pdf; may be repeated
    #[arg(long, value_name = "FILE[=TYPE]", conflicts_with = "raw")]
    pub attach: Vec<String>,
    /// An image that the HTML part shows as `cid:NAME`; may be repeated
    #[arg(long = "inline", value_name = "NAME=FILE", conflicts_with = "raw")]
    pub inline_files: Vec<String>,
    /// A word that groups mails in lists and events; may be repeated
    #[arg(long = "tag", value_name = "TAG")]
    pub tags: Vec<String>,
    /// What is told with the message and its events, such as order=17; may be repeated
    #[arg(long = "meta", value_name = "KEY=VALUE")]
    pub metadata: Vec<String>,
    /// Only try it: everything is done but the sending
    #[arg(long)]
    pub sandbox: bool,
}

#[derive(Debug, Args)]
pub struct MessagesArgs {
    /// Of this campaign
    #[arg(long, value_name = "UUID")]
    pub campaign: Option<String>,
    /// With this tag
    #[arg(long, value_name = "TAG")]
    pub tag: Option<String>,
    /// To this mailbox
    #[arg(long, value_name = "ADDRESS")]
    pub to: Option<String>,
    /// Accepted since then: a time such as 2030-01-31T08:00:00Z, or a span before now such as 2h
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Accepted before then, likewise
    #[arg(long, value_name = "TIME")]
    pub before: Option<String>,
    /// In this state now, such as delivered or queued
    #[arg(long, value_name = "STATE")]
    pub state: Option<String>,
    /// How many at most
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Begin after this place of the log, 0 for its beginning; without it, now
    #[arg(long, value_name = "SEQ")]
    pub after: Option<u64>,
    /// Events of this kind, such as delivered or bounced; may be repeated
    #[arg(long = "event", value_name = "KIND")]
    pub events: Vec<String>,
    /// Of messages of this campaign
    #[arg(long, value_name = "UUID")]
    pub campaign: Option<String>,
    /// Of messages with this tag
    #[arg(long, value_name = "TAG")]
    pub tag: Option<String>,
    /// End after this many events
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// How urgent a mail is.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LaneArg {
    /// One person waits for it
    Transactional,
    /// Many get it
    Bulk,
}

#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub struct SelectorArgs {
    /// One queue, by the number that `mailfleet queue` shows
    #[arg(long, value_name = "NUMBER")]
    pub queue: Option<i64>,
    /// A campaign
    #[arg(long, value_name = "UUID")]
    pub campaign: Option<String>,
    /// All queues of a tenant: its name, or its id
    #[arg(long = "of-tenant", value_name = "TENANT")]
    pub of_tenant: Option<String>,
    /// A destination site, such as google or mx.example.com
    #[arg(long, value_name = "SITE")]
    pub site: Option<String>,
    /// A slot, such as google or h17
    #[arg(long, value_name = "SLOT")]
    pub slot: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum TopologyCommand {
    /// Make what is missing, and compare the rest
    Apply,
}

#[derive(Debug, Subcommand)]
pub enum AdminKeyCommand {
    /// Make a key and print it, this once
    Create {
        /// What it is for
        #[arg(long, default_value = "administration")]
        name: String,
    },
    /// End a key
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Which one
    #[arg(value_enum)]
    pub service: Service,
    /// Print the effective configuration, secrets hidden, and stop
    #[arg(long)]
    pub check_config: bool,
}

/// The services of a fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// Takes mail in over gRPC
    Ingest,
    /// Releases, retries, repairs and expires what waits
    Dispatcher,
    /// Turns templates and variables into signed mails
    Renderer,
    /// Delivers what the throttle lets go, and records what became of it
    Sender,
    /// Answers what recipients do with mails: opens, clicks, unsubscriptions
    Feedback,
    /// Folds what happened into the log and the figures
    Analytics,
}

impl Service {
    /// All of them, in the order of a mail's road.
    pub const ALL: [Self; 6] =
        [Self::Ingest, Self::Dispatcher, Self::Renderer, Self::Sender, Self::Feedback, Self::Analytics];

    /// Its name on the command line, in logs and in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Dispatcher => "dispatcher",
            Self::Renderer => "renderer",
            Self::Sender => "sender",
            Self::Feedback => "feedback",
            Self::Analytics => "analytics",
        }
    }
}

#[derive(Debug, Args)]
pub struct SinkArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:2525")]
    pub listen: std::net::SocketAddr,
    /// Where to keep the mails, as .eml files, and the index of what came
    #[arg(long, value_name = "DIR")]
    pub mailbox: PathBuf,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_pause_names_what_it_holds() {
        assert!(Cli::try_parse_from(["mailfleet", "pause"]).is_err());
        assert!(Cli::try_parse_from(["mailfleet", "pause", "--site", "google"]).is_ok());
    }

    #[test]
    fn options_for_all_may_follow_the_command() {
        let cli = Cli::try_parse_from(["mailfleet", "status", "--json"]).expect("is a command line");
        assert!(cli.global.json);
    }
}
