//! The words of the commands that administer tenants.

use crate::args::LaneArg;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Commands that administer tenants and show their figures.
#[derive(Debug, Subcommand)]
pub enum ManageCommand {
    /// Sending domains, the DNS records that they need, and their DKIM keys
    Domain {
        #[command(subcommand)]
        command: DomainCommand,
    },
    /// The addresses that a tenant's mail does not go to
    Suppressions {
        #[command(subcommand)]
        command: SuppressionsCommand,
    },
    /// Tenants and what they may send
    Tenants {
        #[command(subcommand)]
        command: TenantsCommand,
    },
    /// API keys of the tenant named with --tenant, or without it those that administer the fleet
    Keys {
        #[command(subcommand)]
        command: KeysCommand,
    },
    /// Where the tenant has events posted to
    Endpoints {
        #[command(subcommand)]
        command: EndpointsCommand,
    },
    /// Figures by time, from the roll-ups
    Metrics(Box<MetricsArgs>),
    /// Messages that ended as failed: look at them, send them again
    DeadLetters {
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// Who changed what, the newest first; of the tenant named with --tenant, or of the fleet
    AuditLog {
        /// Only changes by this key
        #[arg(long, value_name = "ID")]
        key: Option<String>,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
}

#[derive(Debug, Subcommand)]
pub enum DomainCommand {
    /// The tenant's sending domains
    List,
    /// A domain, its keys and the records to publish
    Get {
        /// Its name
        domain: String,
    },
    /// Make a domain, and print the records to publish
    Create {
        /// Its name
        domain: String,
        /// The domain of the return path, at or below it; otherwise `bounces.` before it
        #[arg(long, value_name = "DOMAIN")]
        return_path: Option<String>,
        /// Without DKIM keys: a relay that takes all of its mail signs
        #[arg(long)]
        unsigned: bool,
    },
    /// Look in DNS for the records of a domain, as they are published now, and explain what differs; exit code 1 while it
    /// is not verified
    Verify {
        /// Its name
        domain: String,
    },
    /// Make new DKIM keys, which sign nothing until they are activated, and print the records to publish
    Rotate {
        /// The domain's name
        domain: String,
    },
    /// Let the new keys sign and retire the old ones; after the new records can be seen everywhere
    Activate {
        /// The domain's name
        domain: String,
        /// The selectors of its pending keys, all of them
        #[arg(required = true)]
        selectors: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum SuppressionsCommand {
    /// The list, the newest first
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Suppress addresses; what rests for them is closed
    Add {
        /// The addresses
        #[arg(required = true)]
        emails: Vec<String>,
        #[command(flatten)]
        what: EntryArgs,
    },
    /// Take an address off the list
    Remove {
        /// The address
        email: String,
    },
    /// Suppress what a CSV file names: a column `email`, and as far as they are there `cause`, `scope` and `reason`
    ///
    /// Ends with 1 when entries were refused; the others were taken.
    Import {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        what: EntryArgs,
    },
    /// Write the list as CSV, or with --json as one JSON value a line
    Export {
        #[command(flatten)]
        filter: FilterArgs,
        /// The file to write; otherwise the standard output
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

/// What an entry says; in an import for lines that do not say it.
#[derive(Debug, Args)]
pub struct EntryArgs {
    /// What led to it
    #[arg(long, value_enum, default_value = "manual")]
    pub cause: CauseArg,
    /// What it keeps from the recipient
    #[arg(long, value_enum, default_value = "all")]
    pub scope: ScopeArg,
    /// Why, for people
    #[arg(long, default_value = "")]
    pub reason: String,
}

/// Which entries.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only of this cause
    #[arg(long, value_enum)]
    pub cause: Option<CauseArg>,
    /// Only of this scope
    #[arg(long, value_enum)]
    pub scope: Option<ScopeArg>,
    /// Only those made since: a time such as 2030-01-31T08:00:00Z, or a span back from now such as 2h
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
}

/// What led to a suppression.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CauseArg {
    /// The receiver says that there is no such mailbox
    HardBounce,
    /// The recipient called a mail spam
    Complaint,
    /// The recipient wants no more of it
    Unsubscribe,
    /// Somebody decided so
    Manual,
}

/// What a suppression keeps from the recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScopeArg {
    /// All mail of the tenant
    All,
    /// Bulk mail alone
    Bulk,
}

#[derive(Debug, Subcommand)]
pub enum TenantsCommand {
    /// The tenants by name
    List,
    /// Make a tenant
    Create {
        /// Its name
        name: String,
    },
    /// A tenant, its quotas and how far they are used
    Get {
        /// Its name, or its id
        #[arg(value_name = "TENANT")]
        named: String,
    },
    /// Change a tenant's name or quotas
    Set {
        /// Its name, or its id
        #[arg(value_name = "TENANT")]
        named: String,
        #[command(flatten)]
        what: TenantArgs,
    },
}

/// What changes of a tenant.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub struct TenantArgs {
    /// Its new name
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Recipients an hour (UTC); 0: no limit
    #[arg(long, value_name = "N")]
    pub per_hour: Option<u64>,
    /// Recipients a day (UTC); 0: no limit
    #[arg(long, value_name = "N")]
    pub per_day: Option<u64>,
    /// Messages that may rest at a time; 0: no limit
    #[arg(long, value_name = "N")]
    pub backlog: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// The keys, without their secrets
    List,
    /// Make a key and print it, this once
    Create {
        /// What it is for
        name: String,
        /// What it is good for; may be repeated. A key of the fleet is good for all
        #[arg(long = "scope", value_enum, value_name = "SCOPE")]
        scopes: Vec<KeyScopeArg>,
        /// When it ends: a time such as 2030-01-31T08:00:00Z, or a span from now such as 90days
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// Give a key a new secret and print it, this once; the old one stays good for a while
    Rotate {
        /// Its id
        id: String,
        /// How long the old secret stays good, at most 30 days
        #[arg(long, value_name = "SPAN", default_value = "24h")]
        grace: String,
    },
    /// End a key
    Revoke {
        /// Its id
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum EndpointsCommand {
    /// The endpoints and redeliveries under way: how far each is, and what is wrong
    List,
    /// Make an endpoint, and print what its receiver verifies with, this once
    Create {
        /// Where: https, or http at addresses that the fleet allows
        url: String,
        /// A kind of events, such as delivered or bounced; may be repeated. Without any: all
        #[arg(long = "event", value_name = "KIND")]
        events: Vec<String>,
        /// What it is
        #[arg(long, value_name = "TEXT", default_value = "")]
        description: String,
        /// Sign with Ed25519 instead of a shared secret
        #[arg(long)]
        ed25519: bool,
        /// Begin after this place in the log instead of with what comes from now on
        #[arg(long, value_name = "SEQ")]
        after: Option<u64>,
    },
    /// Change an endpoint; what is not given stays
    Set {
        /// Its id
        id: String,
        /// Where
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// The kinds of events; may be repeated
        #[arg(long = "event", value_name = "KIND", conflicts_with = "all_events")]
        events: Vec<String>,
        /// All kinds of events
        #[arg(long)]
        all_events: bool,
        /// What it is
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Post nothing for now; the endpoint keeps its place
    Pause {
        /// Its id
        id: String,
    },
    /// Post again from where it stopped, at once
    Resume {
        /// Its id
        id: String,
    },
    /// Make a new secret that signs at once, and print what its receiver verifies with; the old ones sign along for a while
    Rotate {
        /// The endpoint's id
        id: String,
        /// Sign with Ed25519 instead of a shared secret
        #[arg(long)]
        ed25519: bool,
        /// How long the old secrets sign along, at most 30 days
        #[arg(long, value_name = "SPAN", default_value = "24h")]
        grace: String,
    },
    /// Post an event `webhook.test`, and tell what came of it
    Test {
        /// The endpoint's id
        id: String,
    },
    /// Post a stretch of the log once more, with the same ids
    Redeliver {
        /// The endpoint's id
        id: String,
        /// Behind this place
        #[arg(long, value_name = "SEQ")]
        after: u64,
        /// Up to this place; without it, the end of the log
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        until: u64,
    },
    /// Try events again at once that the endpoint refused, those that were given up included
    Retry {
        /// The endpoint's id
        id: String,
    },
    /// Remove an endpoint and its place in the log
    Delete {
        /// Its id
        id: String,
    },
}

/// Something that a tenant's key is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KeyScopeArg {
    /// Send and cancel mail, pause and resume its own queues
    Send,
    /// Look at messages, queues and figures
    Read,
    /// Templates
    Templates,
    /// Sending domains
    Domains,
    /// The suppression list
    Suppressions,
    /// Where events are posted to
    Endpoints,
}

#[derive(Debug, Args)]
pub struct MetricsArgs {
    /// From when: a time such as 2030-01-31T08:00:00Z, or a span back from now such as 24h
    #[arg(long, value_name = "TIME", default_value = "24h")]
    pub from: String,
    /// Until when, likewise; otherwise now
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// The time that a row is for
    #[arg(long, value_enum, default_value = "hour")]
    pub bucket: BucketArg,
    /// What rows are told apart by, beside time; several with commas
    #[arg(long, value_enum, value_delimiter = ',')]
    pub by: Vec<DimensionArg>,
    /// Only this campaign
    #[arg(long, value_name = "UUID")]
    pub campaign: Option<String>,
    /// Only mail made from this template
    #[arg(long, value_name = "TEMPLATE")]
    pub template: Option<String>,
    /// Only this lane
    #[arg(long, value_enum)]
    pub lane: Option<LaneArg>,
    /// Only this receiver
    #[arg(long, value_name = "SITE")]
    pub site: Option<String>,
    /// Only this route
    #[arg(long, value_name = "ROUTE")]
    pub route: Option<String>,
    /// Only these events, such as delivered or deferred; several with commas
    #[arg(long, value_name = "EVENT", value_delimiter = ',')]
    pub event: Vec<String>,
}

/// The time that a row is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BucketArg {
    /// A minute
    Minute,
    /// An hour
    Hour,
    /// A day
    Day,
}

/// What rows are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DimensionArg {
    /// The tenant
    Tenant,
    /// The campaign
    Campaign,
    /// The template
    Template,
    /// The lane
    Lane,
    /// The receiver
    Site,
    /// The route
    Route,
}

#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// What failed, the last first
    List {
        /// Only of this campaign
        #[arg(long, value_name = "UUID")]
        campaign: Option<String>,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Send again, each as a new message; once, however often it is asked for
    ///
    /// Ends with 1 when some cannot be sent again.
    Requeue {
        /// The messages' ids
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        messages: Vec<String>,
        /// All that have not been sent again
        #[arg(long)]
        all: bool,
        /// With --all: only of this campaign
        #[arg(long, value_name = "UUID", requires = "all")]
        campaign: Option<String>,
    },
}
