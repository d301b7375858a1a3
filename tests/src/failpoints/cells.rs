//! Which points are crossed with which replies, and how a point is reached.

use std::fmt;

/// What the receiver says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Yes.
    Accept,
    /// 451 to the recipient, then yes.
    TempfailOnce,
    /// 550 to the recipient.
    Unknown,
    /// 554 to the final dot.
    RejectData,
    /// The connection is reset within the body, then yes.
    CutBodyOnce,
    /// Takes it and answers nothing, then yes.
    DropAfterDotOnce,
}

impl Peer {
    const ALL: [Self; 6] =
        [Self::Accept, Self::TempfailOnce, Self::Unknown, Self::RejectData, Self::CutBodyOnce, Self::DropAfterDotOnce];

    /// The local part that makes the sink say so, and its name in the table.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::TempfailOnce => "tempfail-once",
            Self::Unknown => "unknown",
            Self::RejectData => "reject-data",
            Self::CutBodyOnce => "cut-body-once",
            Self::DropAfterDotOnce => "drop-after-dot-once",
        }
    }

    pub(super) fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|peer| peer.word() == word)
    }
}

/// How a point is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By a message, as a transactional one.
    Message,
    /// By a batch of one, which the dispatcher releases.
    Batch,
    /// The dispatcher dies between a release and its publish: repair has something to do.
    LostRelease,
    /// The sender stands still after a claim, past its lease: its claim is doubted.
    StoppedSender,
    /// The streams are gone when the dispatcher publishes: what it released is put back.
    NoStreams,
    /// The sender is told to end after a claim: what it had no time for is given back.
    EndingSender,
}

/// One point and one reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// Where the process is killed.
    pub point: &'static str,
    /// What the receiver says.
    pub peer: Peer,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", self.point, self.peer.word())
    }
}

impl Cell {
    pub(super) fn way(self) -> Way {
        match self.point {
            "dispatcher.doubt_open.before" | "dispatcher.doubt_open.after" => Way::StoppedSender,
            "dispatcher.park.before" | "dispatcher.park.after" => Way::NoStreams,
            "dispatcher.repair.before" | "dispatcher.repair.after" => Way::LostRelease,
            "sender.give_back.before" => Way::EndingSender,
            point if point.starts_with("ingest.") => Way::Message,
            _ => Way::Batch,
        }
    }
}

/// The replies that make a difference at a point. Before the claim none does, but for whether there is a second
/// attempt; from the claim on each does, and where a reply keeps the message from reaching the point, the table says so.
fn peers(point: &str) -> &'static [Peer] {
    use Peer as P;
    match point {
        "sender.give_back.before" => &[P::Accept],
        "dispatcher.doubt_close.before" | "dispatcher.doubt_close.after" => &[P::DropAfterDotOnce],
        "dispatcher.doubt_open.before" | "dispatcher.doubt_open.after" => &[P::Accept],
        "dispatcher.park.before" | "dispatcher.park.after" => &[P::Accept],
        point if point.starts_with("sender.") => &Peer::ALL,
        _ => &[P::Accept, P::TempfailOnce],
    }
}

/// Every cell, so ordered that the same service is not killed twice in a row: who ends again and again is started
/// again ever later.
pub fn cells() -> Vec<Cell> {
    let all = failpoint::NAMES.iter().flat_map(|point| peers(point).iter().map(|peer| Cell { point, peer: *peer }));
    let (sender, others): (Vec<Cell>, Vec<Cell>) = all.partition(|cell| cell.point.starts_with("sender."));
    let turns = sender.len().div_ceil(others.len().max(1)).max(1);
    let mut others = others.into_iter();
    let mut ordered = Vec::new();
    for some in sender.chunks(turns) {
        ordered.extend_from_slice(some);
        ordered.extend(others.next());
    }
    ordered.extend(others);
    ordered
}

/// A few cells, one for each service and the ones about the final dot.
pub fn sample() -> Vec<Cell> {
    const SAMPLE: [(&str, Peer); 6] = [
        ("ingest.accept.after", Peer::Accept),
        ("sender.dot.after", Peer::Accept),
        ("dispatcher.publish.before", Peer::Accept),
        ("renderer.publish.after", Peer::Accept),
        ("analytics.fold.before", Peer::Accept),
        ("sender.record.before", Peer::RejectData),
    ];
    SAMPLE.map(|(point, peer)| Cell { point, peer }).to_vec()
}
