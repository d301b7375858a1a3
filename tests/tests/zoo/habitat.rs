//! A fleet that meets receivers, and what was seen of it.

use crate::species::{Habitat, Mail, Name, Outcome, Species};
use domain::{MessageId, RetrySchedule};
use mailfleet_tests::{
    Fleet, Kind, Post, Settings,
    dns::{DnsServer, Table},
    mail,
};
use proto::v1::{GetMessageResponse, MessageEvent, MessageState, mail::Content};
use sender::{AddressPolicy, Deadlines, DirectConfig, LeaseConfig, RelayConfig, RouteConfig};
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};
use testkit::{
    LIMIT, eventually,
    peer::{Conversation, Copy, End, Peer},
    until,
};

/// The fleet patiently waits so long for each phase of a conversation.
const PATIENCE: Duration = Duration::from_secs(5);
/// And so long for DNS, whose silence keeps letters of others of the same chunk waiting as well.
const DNS_PATIENCE: Duration = Duration::from_secs(1);
/// Messages of one call.
const CALL: usize = 50;

/// What came of all that was sent to one receiver.
pub struct Observed {
    /// Its messages.
    pub letters: Vec<Letter>,
    /// What its hosts wrote down.
    pub hosts: BTreeMap<String, (Vec<Conversation>, Vec<Copy>)>,
}

/// One message.
pub struct Letter {
    /// Which of the file's mails it is.
    pub mail: usize,
    /// Its id.
    pub id: MessageId,
    /// What the API shows of it in the end.
    pub view: GetMessageResponse,
}

impl Letter {
    /// The events that are attempts.
    pub fn attempts(&self) -> impl DoubleEndedIterator<Item = &MessageEvent> {
        const KINDS: [&str; 4] = ["deferred", "in_doubt", "delivered", "bounced"];
        self.view.timeline.iter().filter(|event| KINDS.contains(&event.event.as_str()))
    }

    /// Attempts that ended in doubt.
    pub fn doubts(&self) -> usize {
        self.attempts().filter(|event| event.event == "in_doubt").count()
    }

    /// Where it is.
    pub fn outcome(&self) -> Option<Outcome> {
        use MessageState as S;
        match self.view.state() {
            S::Delivered => Some(Outcome::Delivered),
            S::Bounced => Some(Outcome::Bounced),
            S::Unknown => Some(Outcome::Unknown),
            S::Queued | S::Released | S::Sending | S::InDoubt => Some(Outcome::Waiting),
            S::Unspecified | S::Expired | S::Cancelled | S::Suppressed | S::Failed => None,
        }
    }
}

impl Observed {
    /// The copies of a message, at whatever host.
    pub fn copies(&self, id: MessageId) -> impl Iterator<Item = &Copy> {
        let id = id.as_uuid().simple().to_string();
        self.hosts.values().flat_map(|(_, copies)| copies).filter(move |copy| copy.fleet_id.as_deref() == Some(&*id))
    }

    /// Every connection, to whatever host.
    pub fn conversations(&self) -> impl Iterator<Item = &Conversation> {
        self.hosts.values().flat_map(|(conversations, _)| conversations)
    }
}

/// For people who read a failure.
impl fmt::Display for Observed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for letter in &self.letters {
            writeln!(
                f,
                "  {} {:?}, {} copies",
                letter.view.recipient,
                letter.view.state(),
                self.copies(letter.id).count()
            )?;
            for event in letter.attempts() {
                let MessageEvent { event, smtp_code, enhanced_status, bounce_class, text, host, .. } = event;
                writeln!(f, "    {event} {smtp_code} {enhanced_status} {bounce_class} {text:?} {host}")?;
            }
        }
        for (name, (conversations, copies)) in &self.hosts {
            for Conversation { heard, told, tls, end, .. } in conversations.iter().take(6) {
                writeln!(f, "  {name}: {end:?} tls={tls} told={told} {heard:?}")?;
            }
            writeln!(f, "  {name}: {} conversations, {} copies", conversations.len(), copies.len())?;
        }
        Ok(())
    }
}

/// One receiver while the fleet runs.
struct Cage<'a> {
    species: &'a Species,
    peers: BTreeMap<String, Peer>,
    sent: Vec<(usize, MessageId)>,
}

/// Sends mail to these receivers, all at once, with one fleet, until each message has come to where it is said to go
/// or time is over.
pub async fn visit(zoo: &[Species]) -> Vec<Observed> {
    let addresses = addresses(zoo);
    let dns = DnsServer::start(table(zoo, &addresses)).await;
    let habitat = zoo[0].fleet;
    let mut fleet =
        Fleet::builder().without(Kind::Sender).settings(|settings| set_up(settings, zoo, &dns)).start().await;
    let port = fleet.sink.addr().port();
    let mut cages = Vec::new();
    for species in zoo {
        let mut peers = BTreeMap::new();
        for (name, script) in &species.host {
            let address = SocketAddr::new(addresses[&(species.name.clone(), name.clone())], port);
            let hostname = format!("{name}.{}", species.domain());
            peers.insert(name.clone(), Peer::start(address, &hostname, script.clone()).await.unwrap());
        }
        cages.push(Cage { species, peers, sent: Vec::new() });
    }
    if let (Habitat::Relay(tls), Some(relay)) = (habitat, cages[0].peers.values().next()) {
        let (host, port) = (relay.address().ip().to_string(), relay.address().port());
        let relay = RelayConfig { host, port, tls, ..RelayConfig::default() };
        fleet.settings.sender.route = Some(RouteConfig::Relay(relay));
    }
    fleet.launch(Kind::Sender, Kind::Sender.name()).await;
    fleet.ready().await;
    for cage in &mut cages {
        for (index, mail) in cage.species.mail.iter().enumerate() {
            let addresses: Vec<String> =
                (0..mail.count).map(|n| format!("{}.{n}@{}", mail.to, cage.species.domain())).collect();
            for some in addresses.chunks(CALL) {
                let ids = fleet.submit_all(post(mail).to_all(some)).await;
                cage.sent.extend(ids.into_iter().map(|id| (index, id)));
            }
        }
    }
    settle(&fleet, &cages).await;
    // From here on nothing changes any more: what was deferred stays so, what is under way comes to its end.
    fleet.stop(Kind::Dispatcher.name()).await;
    fleet.stop(Kind::Sender.name()).await;
    let mut observed = Vec::new();
    for cage in &cages {
        observed.push(cage.observed(&fleet).await);
    }
    close(fleet, cages.iter().map(|cage| cage.sent.len()).sum()).await;
    observed
}

impl Cage<'_> {
    async fn observed(&self, fleet: &Fleet) -> Observed {
        let over = async || self.peers.values().all(|peer| peer.conversations().iter().all(|one| one.end != End::Open));
        until(&format!("{}: the fleet has left", self.species.name), over).await;
        let mut letters = Vec::new();
        for (mail, id) in &self.sent {
            letters.push(Letter { mail: *mail, id: *id, view: fleet.get(*id).await });
        }
        let hosts = self.peers.iter().map(|(name, peer)| (name.clone(), (peer.conversations(), peer.copies())));
        Observed { letters, hosts: hosts.collect() }
    }
}

/// Waits until every message is closed, or has had the attempts after which it is to wait.
async fn settle(fleet: &Fleet, cages: &[Cage<'_>]) {
    let mut open: Vec<(&Mail, usize, MessageId)> = Vec::new();
    for cage in cages {
        open.extend(cage.sent.iter().map(|(index, id)| (&cage.species.mail[*index], *index, *id)));
    }
    // What does not settle shows in its verdict, together with the others'.
    let _ = eventually(LIMIT, async || {
        let mut rest = Vec::new();
        for (mail, index, id) in open.drain(..) {
            let letter = Letter { mail: index, id, view: fleet.get(id).await };
            let waits = letter.outcome() == Some(Outcome::Waiting);
            let rests = letter.view.state() == MessageState::Queued
                && mail.expect.outcome == Outcome::Waiting
                && letter.attempts().count() >= mail.expect.attempts[0];
            if waits && !rests {
                rest.push((mail, index, id));
            }
        }
        open = rest;
        open.is_empty().then_some(())
    })
    .await;
}

/// Everything adds up, and every service drains.
async fn close(mut fleet: Fleet, sent: usize) {
    let mut last = None;
    let folded = eventually(LIMIT, async || {
        last = fleet.store.audit().await.ok();
        last.as_ref().is_some_and(|audit| audit.facts == 0).then_some(())
    });
    assert!(folded.await.is_some(), "facts are not folded: {last:?}");
    let audit = last.unwrap();
    assert!(audit.is_clean(), "{audit:?}");
    assert_eq!(audit.messages, i64::try_from(sent).unwrap());
    for kind in [Kind::Renderer, Kind::Analytics, Kind::Ingest] {
        fleet.stop(kind.name()).await;
    }
    bus::topology::wipe(&fleet.bus).await.unwrap();
    fleet.store.close().await;
}

fn set_up(settings: &mut Settings, zoo: &[Species], dns: &DnsServer) {
    let policy = if zoo[0].fleet == Habitat::Public { AddressPolicy::Public } else { AddressPolicy::Any };
    settings.sender.route = Some(RouteConfig::Direct(DirectConfig {
        helo: "fleet.test".to_owned(),
        resolvers: vec![dns.address()],
        addresses: policy,
        dns_timeout: DNS_PATIENCE,
        ..DirectConfig::default()
    }));
    settings.sender.deadlines = Deadlines {
        connect: PATIENCE,
        greeting: PATIENCE,
        starttls: PATIENCE,
        envelope: PATIENCE,
        data: PATIENCE,
        body: PATIENCE,
        dot: PATIENCE,
    };
    // No sender dies here, so none needs to be replaced soon: on a busy machine a short lease ends by itself.
    settings.sender.lease = LeaseConfig::default();
    // Three more tries soon, and then none before all is over.
    let steps = [200, 400, 800, 3_600_000].map(Duration::from_millis);
    settings.sender.retry = RetrySchedule::of_steps(steps.into()).unwrap().into();
    settings.dispatcher.resend_bulk = false;
    let limits = zoo.iter().map(|species| (species.domain(), serde_json::to_value(&species.limits).unwrap()));
    let sites: serde_json::Map<String, serde_json::Value> = limits.collect();
    settings.shape(serde_json::json!({
        "default": { "rate": "none", "connection_rate": "none", "max_connections": 4 },
        "sites": sites,
    }));
}

/// An address of loopback for each host.
fn addresses(zoo: &[Species]) -> BTreeMap<(String, String), IpAddr> {
    let hosts = zoo.iter().flat_map(|species| species.host.keys().map(|name| (species.name.clone(), name.clone())));
    let numbered = hosts.enumerate().map(|(number, host)| {
        let (high, low) = (number / 200, number % 200 + 1);
        (host, IpAddr::V4(Ipv4Addr::new(127, 0, 10 + u8::try_from(high).unwrap(), u8::try_from(low).unwrap())))
    });
    numbered.collect()
}

/// What DNS knows of all of them.
fn table(zoo: &[Species], addresses: &BTreeMap<(String, String), IpAddr>) -> Table {
    let mut table = Table::default();
    for species in zoo {
        let domain = species.domain();
        let told = |name: &str| species.dns.iter().any(|entry| entry.name == name);
        for name in species.host.keys().filter(|name| !told(name)) {
            table = table.host(&format!("{name}.{domain}"), addresses[&(species.name.clone(), name.clone())]);
        }
        if !told("@") {
            for (preference, name) in (10..).step_by(10).zip(species.host.keys()) {
                table = table.mx(&domain, &[(preference, &format!("{name}.{domain}."))]);
            }
        }
        for entry in &species.dns {
            for number in 1..=entry.repeat {
                table = enter(table, entry, number, &domain, |host| {
                    let own = addresses.get(&(species.name.clone(), host.to_owned())).copied();
                    own.unwrap_or_else(|| host.parse().unwrap_or_else(|_| panic!("{domain}: {host} is no host of it")))
                });
            }
        }
    }
    table
}

fn enter(mut table: Table, entry: &Name, number: u16, domain: &str, address: impl Fn(&str) -> IpAddr) -> Table {
    let numbered = |text: &str| text.replace('#', &number.to_string());
    let below = |text: &str| match numbered(text).as_str() {
        "@" => format!("{domain}."),
        absolute if absolute.ends_with('.') => absolute.to_owned(),
        relative => format!("{relative}.{domain}."),
    };
    let name = below(&entry.name);
    table = table.name(&name);
    for mx in &entry.mx {
        let (preference, host) = mx.split_once(' ').unwrap_or_else(|| panic!("{domain}: {mx:?} is no MX"));
        table = table.mx(&name, &[(preference.parse().unwrap(), &below(host))]);
    }
    for text in &entry.a {
        table = table.host(&name, address(&numbered(text)));
    }
    if let Some(target) = &entry.alias {
        table = table.alias(&name, &below(target));
    }
    match entry.trouble {
        Some(trouble) => table.troubled(&name, trouble),
        None => table,
    }
}

/// A mail as its file describes it.
fn post(described: &Mail) -> Post {
    let mut post = mail();
    if let Some(lane) = described.lane {
        post = post.lane(lane);
    }
    if described.octets == 0 {
        return post;
    }
    let lines = "A line of plain words that goes on for a while and then ends.\r\n".repeat(described.octets / 60);
    let raw = format!("From: News <news@example.com>\r\nSubject: large\r\n\r\n{lines}");
    post.with(|mail| mail.content = Some(Content::RawMime(raw.into())))
}
