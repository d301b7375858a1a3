//! The fleet of the sweep, and what is done with one cell.

use super::{Cell, Outcome, cells::Way};
use crate::{Line, home::Folder, mail, processes::ProcessFleet};
use bus::{Bus, BusConfig, topology};
use chrono::{DateTime, Utc};
use domain::{Lane, ShardCount};
use proto::v1::{self, MessageState, mail_service_client::MailServiceClient, recipient_result::Outcome as Item};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use store::{Store, StoreConfig};
use testkit::{LIMIT, VirtualClock, eventually, sink::read_index};

/// Leases, repairs and redeliveries at a fifth to a tenth of their defaults; a journal file for each dot. Doubt waits
/// for a sender that is started again, however late, and reads its journal.
const SETTINGS: [(&str, &str); 16] = [
    // Other tests keep every core busy at the same time.
    ("MAILFLEET_RENDERER__PRESS__BULK_NICENESS", "0"),
    ("MAILFLEET_SENDER__LEASE__TERM", "2s"),
    ("MAILFLEET_SENDER__LEASE__RENEW_EVERY", "400ms"),
    ("MAILFLEET_SENDER__LEASE__MARGIN", "300ms"),
    ("MAILFLEET_SENDER__LEASE__LOOK_EVERY", "100ms"),
    ("MAILFLEET_DISPATCHER__LEASE__TERM", "2s"),
    ("MAILFLEET_DISPATCHER__LEASE__RENEW_EVERY", "400ms"),
    ("MAILFLEET_DISPATCHER__LEASE__SAFETY", "300ms"),
    ("MAILFLEET_DISPATCHER__REPAIR_AFTER", "5s"),
    ("MAILFLEET_DISPATCHER__DOUBT_GRACE", "20s"),
    ("MAILFLEET_ANALYTICS__LEASE__TERM", "2s"),
    ("MAILFLEET_ANALYTICS__LEASE__RENEW_EVERY", "400ms"),
    ("MAILFLEET_ANALYTICS__LEASE__SAFETY", "300ms"),
    ("MAILFLEET_NATS__ACK_WAIT", "3s"),
    ("MAILFLEET_SENDER__DESK__HOLD", "1s"),
    ("MAILFLEET_SENDER__JOURNAL__SEGMENT_BYTES", "1"),
];
/// A message that rests longer than this is helped on by the database's clock.
const LONG_REST: Duration = Duration::from_secs(20);

/// A fleet whose processes are killed where it says.
pub struct Stage {
    fleet: ProcessFleet,
    points: Folder,
    mailbox: PathBuf,
    mails: MailServiceClient<Line>,
    store: Store,
    clock: VirtualClock,
    bus: Bus,
    number: usize,
}

impl Stage {
    /// Starts one.
    pub async fn start() -> Self {
        let points = Folder::new();
        let mut settings = SETTINGS.to_vec();
        settings.push(("MAILFLEET_FAILPOINTS", points.path().to_str().unwrap()));
        let fleet = ProcessFleet::start(&settings).await;
        let state = fleet.state().unwrap();
        let mails = fleet.mails().await;
        let config = StoreConfig { url: fleet.url("postgres"), max_connections: 2, ..StoreConfig::default() };
        let store = Store::connect(&config).await.unwrap();
        let bus = Bus::connect(BusConfig { url: fleet.url("nats"), ..BusConfig::default() }).await.unwrap();
        let clock = VirtualClock::of(&store);
        Self { fleet, points, mailbox: state.mailbox, mails, store, clock, bus, number: 0 }
    }

    /// Kills the process at the cell's point on the road of one message, and follows the message to its end.
    ///
    /// # Panics
    /// When the message does not come to its end, or a promise is broken.
    pub async fn play(&mut self, cell: Cell) -> Outcome {
        self.settle().await;
        self.number += 1;
        let recipient = format!("{}@cell{}.test", cell.peer.word(), self.number);
        let way = cell.way();
        match way {
            Way::Message | Way::Batch | Way::NoStreams => {}
            Way::LostRelease => failpoint::put(self.points.path(), "dispatcher.release.after", "kill"),
            Way::StoppedSender => failpoint::put(self.points.path(), "sender.claim.after", "stop"),
            Way::EndingSender => failpoint::put(self.points.path(), "sender.claim.after", "sleep 1500ms"),
        }
        failpoint::put(self.points.path(), cell.point, "kill");
        let id = self.send(way, &recipient).await;
        match way {
            Way::Message | Way::Batch | Way::LostRelease => {}
            Way::StoppedSender => {
                self.taken(cell.point).await;
                self.fleet.thaw("sender").await;
            }
            Way::NoStreams => {
                let gone = eventually(LIMIT, async || {
                    // Whoever puts them back may be at it this very moment.
                    let _ = topology::wipe(&self.bus).await;
                    self.is_taken(cell.point).then_some(())
                });
                assert!(gone.await.is_some(), "{cell}: nothing is put back");
            }
            Way::EndingSender => {
                self.taken("sender.claim.after").await;
                self.fleet.terminate("sender").await;
            }
        }
        self.ended(cell, &id).await;
        self.judge(cell, id).await
    }

    /// Ends the fleet in order.
    pub async fn end(self) {
        self.settle().await;
        self.store.close().await;
        self.fleet.stop().await;
    }

    /// Waits until every process is back, everything is owned, and the streams are there.
    async fn settle(&self) {
        let mut wanted = vec![dispatcher::LEASE.to_owned(), analytics::LEASE.to_owned()];
        wanted.extend(ShardCount::default().all().map(|shard| shard.lease_name()));
        let back = eventually(LIMIT, async || {
            let running = self.fleet.state()?.processes.iter().all(|process| process.pid.is_some());
            let leases = self.store.leases().await.ok()?;
            let owned = wanted.iter().all(|name| leases.iter().any(|lease| lease.live && lease.name == *name));
            let sight = topology::look(&self.bus, ShardCount::default()).await.ok()?;
            (running && owned && sight.missing.is_empty()).then_some(())
        });
        assert!(back.await.is_some(), "the fleet does not come back: {:?}", self.store.leases().await);
    }

    fn is_taken(&self, point: &str) -> bool {
        !self.points.path().join(point).exists()
    }

    async fn taken(&self, point: &str) {
        let taken = eventually(LIMIT, async || self.is_taken(point).then_some(()));
        assert!(taken.await.is_some(), "{point} is not reached");
    }

    /// Sends one mail, again and again under one key until it is answered.
    async fn send(&mut self, way: Way, recipient: &str) -> String {
        let mut mails = self.mails.clone();
        let post = mail().to(recipient).key(recipient);
        let id = if way == Way::Message {
            let request = post.lane(Lane::Transactional).message();
            let sent = eventually(LIMIT, async || mails.send_message(request.clone()).await.ok()).await;
            sent.map(|sent| sent.into_inner().message_ids[0].clone())
        } else {
            let request = post.lane(Lane::Bulk).batch();
            let sent = eventually(LIMIT, async || mails.send_batch(request.clone()).await.ok()).await;
            sent.and_then(|sent| match sent.into_inner().results.remove(0).outcome {
                Some(Item::MessageId(id)) => Some(id),
                _ => None,
            })
        };
        id.expect("the mail is accepted")
    }

    /// Waits for the message's end; a long rest is passed over by the clock.
    async fn ended(&mut self, cell: Cell, id: &str) {
        let mut last = None;
        let request = v1::GetMessageRequest { message_id: id.to_owned() };
        let ended = eventually(2 * LIMIT, async || {
            let seen = self.mails.get_message(request.clone()).await.ok()?.into_inner();
            let rest = match (seen.state(), &seen.next_attempt_at) {
                (MessageState::Queued, Some(next)) => {
                    let next = DateTime::<Utc>::from_timestamp(next.seconds, 0).unwrap_or_default();
                    (next - self.store.now().await.ok()?).to_std().unwrap_or_default()
                }
                _ => Duration::ZERO,
            };
            if rest > LONG_REST {
                self.clock.advance(rest).await;
            }
            let over = seen.timeline.iter().any(|event| is_closing(&event.event));
            last = Some(seen);
            over.then_some(())
        });
        assert!(ended.await.is_some(), "{cell}: does not end: {last:#?}");
    }

    /// The promises, and what the table is to say.
    async fn judge(&mut self, cell: Cell, message_id: String) -> Outcome {
        let mut last = None;
        let quiet = eventually(LIMIT, async || {
            last = self.store.audit().await.ok();
            last.as_ref().is_some_and(|audit| audit.open == 0 && audit.facts == 0 && audit.is_clean()).then_some(())
        });
        assert!(quiet.await.is_some(), "{cell}: {last:?}");
        // What a reply kept from being reached must not hit the next message.
        let reached = std::fs::remove_file(self.points.path().join(cell.point)).is_err();
        let request = v1::GetMessageRequest { message_id };
        let seen = eventually(LIMIT, async || self.mails.get_message(request.clone()).await.ok()).await;
        let seen = seen.expect("the message is told of").into_inner();
        let count = |name: &str| seen.timeline.iter().filter(|event| event.event == name).count();
        let endings = seen.timeline.iter().filter(|event| is_closing(&event.event)).count();
        assert_eq!(endings, 1, "{cell}: {seen:#?}");
        let state = seen.state().as_str_name().trim_start_matches("MESSAGE_STATE_").to_ascii_lowercase();
        let doubts = count("in_doubt");
        let copies = copies(&self.mailbox, &seen.recipient);
        assert!(copies <= 1 + doubts, "{cell}: {copies} copies with {doubts} doubts: {seen:#?}");
        assert!(state != "delivered" || copies > 0, "{cell}: delivered to nobody: {seen:#?}");
        Outcome { reached, state, doubts, deferrals: count("deferred"), lost: count("lost_release"), copies }
    }
}

fn is_closing(event: &str) -> bool {
    matches!(event, "delivered" | "bounced" | "expired" | "cancelled" | "suppressed" | "failed" | "unknown")
}

fn copies(mailbox: &Path, recipient: &str) -> usize {
    read_index(mailbox).unwrap().iter().filter(|line| line.recipient == recipient).count()
}
