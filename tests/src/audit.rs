//! What must hold at the end of every test.

use crate::{Fleet, Kind};
use domain::{
    Closing, MessageId,
    fact::FactKind,
    history::{self, Step},
};
use futures_util::{StreamExt, stream};
use std::collections::{BTreeMap, HashMap};
use store::Whereabouts;
use testkit::{LIMIT, eventually};

/// Messages that are looked up at the same time.
const LOOKS: usize = 4;

/// How the messages of a test ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages by ending.
    pub endings: BTreeMap<&'static str, usize>,
    /// Doubts of all messages together.
    pub doubts: usize,
    /// Copies at the sink beyond the first of each message.
    pub surplus: usize,
    /// Messages that had been deferred before they ended.
    pub deferred: usize,
}

impl Verdict {
    /// Messages that ended so.
    pub fn of(&self, ending: Closing) -> usize {
        self.endings.get(ending.as_str()).copied().unwrap_or(0)
    }
}

impl Fleet {
    /// Waits until every message has come to its end and everything is counted; then proves the promises:
    /// - every accepted message has exactly one closing fact, and there are no other messages;
    /// - the log has no gaps, and the roll-ups equal its recount;
    /// - a delivered message is at the sink unless it was only tried, and no message is there more than once beyond
    ///   its doubts;
    /// - nothing is at the sink that was not accepted;
    /// - every history is a path of the declared automaton;
    /// - no task of a service failed, and every service drains.
    pub async fn assert_sound(mut self) -> Verdict {
        if !self.runs(Kind::Analytics) {
            self.launch(Kind::Analytics, Kind::Analytics.name()).await;
        }
        let mut last = None;
        let quiet = eventually(LIMIT, async || {
            last = self.store.audit().await.ok();
            last.as_ref().is_some_and(|audit| audit.open == 0 && audit.facts == 0).then_some(())
        });
        if quiet.await.is_none() {
            panic!("does not come to rest: {last:?}; for example {:#?}", self.open().await);
        }
        let verdict = self.count().await;
        self.end().await;
        verdict
    }

    /// Proves what can be proved while messages are still open, and ends the fleet.
    pub async fn assert_sound_so_far(self) -> Verdict {
        let verdict = self.count().await;
        self.end().await;
        verdict
    }

    /// Some messages that are open, for a failure's text.
    async fn open(&self) -> Vec<store::MessageView> {
        let known: Vec<MessageId> = self.known.lock().unwrap().iter().copied().collect();
        let mut open = Vec::new();
        for id in known {
            let view = self.store.message(None, id).await.unwrap();
            open.extend(view.filter(|view| !matches!(view.whereabouts, Whereabouts::Closed(_))));
            if open.len() == 3 {
                break;
            }
        }
        open
    }

    /// A message; asked again when the answer was that asking again helps.
    async fn look(&self, id: MessageId) -> Option<store::MessageView> {
        let found = eventually(LIMIT, async || match self.store.message(None, id).await {
            Err(error) if error.is_retryable() => None,
            answer => Some(answer.unwrap()),
        });
        found.await.expect("the database answers")
    }

    async fn count(&self) -> Verdict {
        let audit = eventually(LIMIT, async || self.store.audit().await.ok()).await.expect("the database answers");
        assert!(audit.is_clean(), "{audit:?}");
        let known: Vec<MessageId> = self.known.lock().unwrap().iter().copied().collect();
        assert_eq!(audit.messages, known.len() as i64, "messages that were accepted, and no others");
        let mut copies: HashMap<String, (usize, String)> = HashMap::new();
        for mail in self.sink.mails() {
            let id = mail.fleet_id.clone().expect("every mail bears its id");
            let entry = copies.entry(id).or_insert_with(|| (0, mail.recipient.clone()));
            assert_eq!(entry.1, mail.recipient, "one message, one recipient");
            entry.0 += 1;
        }
        let views: Vec<_> = stream::iter(known).map(|id| self.look(id)).buffered(LOOKS).collect().await;
        let mut verdict = Verdict::default();
        for view in views {
            let view = view.expect("what was accepted is stored");
            let (at_sink, recipient) =
                copies.remove(&view.id.as_uuid().simple().to_string()).unwrap_or((0, view.recipient.to_string()));
            assert_eq!(recipient.to_lowercase(), view.recipient.to_string().to_lowercase());
            if let Err(error) = history::check(&history_of(&view)) {
                panic!("not a path of the automaton: {error}; {view:#?}");
            }
            let doubts = view.events.iter().filter(|event| event.kind == FactKind::Doubt).count();
            assert!(at_sink <= 1 + doubts, "{at_sink} copies with {doubts} doubts: {view:#?}");
            assert!(at_sink == 0 || !view.labels.sandbox, "only tried, and sent: {view:#?}");
            if let Whereabouts::Closed(ending) = view.whereabouts {
                let expected = ending != Closing::Delivered || view.labels.sandbox || at_sink > 0;
                assert!(expected, "delivered to nobody: {view:#?}");
                *verdict.endings.entry(ending.as_str()).or_default() += 1;
            }
            verdict.doubts += doubts;
            verdict.surplus += at_sink.saturating_sub(1);
            verdict.deferred += usize::from(view.events.iter().any(|event| event.kind == FactKind::Deferred));
        }
        assert!(copies.is_empty(), "{} messages at the sink that were never accepted", copies.len());
        verdict
    }
}

/// What the log tells of a message, in its order. What is not folded yet comes after it and is left out.
fn history_of(view: &store::MessageView) -> Vec<Step> {
    let mut logged: Vec<(i64, Step)> = view
        .events
        .iter()
        .filter_map(|event| {
            let step = Step { kind: event.kind, ordinal: event.ordinal, release: None, closing: event.closing };
            Some((event.seq?, step))
        })
        .collect();
    logged.sort_unstable_by_key(|(seq, _)| *seq);
    logged.into_iter().map(|(_, step)| step).collect()
}
