//! What mails bear so that they can be heard of again: signed links, an image, an address to unsubscribe at, and the
//! tokens in return path and header.
//!
//! All of it derives from the message and the keys, so that a mail which is rendered twice has the same octets.

use crate::inspect::GMAIL_CLIPS_AT;
use crate::links::{Spot, Spots, host_of};
use domain::token::HONEYPOT_PLACE;
use domain::{BaseUrl, DomainName, Lane, MessageId, Token, TokenKeys, TrackingChoice, TrackingSite, verp};
use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

/// What a fleet's mails are signed with, and where their links lead. One for all contents.
#[derive(Clone, Debug)]
pub struct Tracker {
    keys: TokenKeys,
    site: Option<TrackingSite>,
}

impl Tracker {
    /// Keys, and the site if the fleet has one; without it mails are signed and not tracked.
    pub const fn new(keys: TokenKeys, site: Option<TrackingSite>) -> Self {
        Self { keys, site }
    }

    /// The keys.
    pub const fn keys(&self) -> &TokenKeys {
        &self.keys
    }
}

/// What a content says about tracking.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) lane: Lane,
    pub(crate) call: TrackingChoice,
    pub(crate) template: TrackingChoice,
    /// Whether its HTML has links that are kept as they are.
    pub(crate) marked: bool,
}

/// What the mails of one content bear.
pub(crate) struct Marks {
    tracker: Arc<Tracker>,
    /// Where the links of this content lead; `None` without a site.
    base: Option<BaseUrl>,
    opens: bool,
    clicks: bool,
    marked: bool,
    /// What there is to change in an HTML part that is the same for all.
    shared: Option<Spots>,
}

/// What is not led through us in one mail, and who it goes to.
#[derive(Clone, Copy)]
pub(crate) struct Addressee<'a> {
    pub(crate) message: MessageId,
    /// Whether the recipient is not tracked.
    pub(crate) untracked: bool,
    /// The addresses at which the recipient unsubscribes.
    pub(crate) leave: [Option<&'a str>; 2],
}

impl Marks {
    /// What the mails of a content bear; `constant` is its HTML part if that is the same for all.
    pub(crate) fn new(tracker: Arc<Tracker>, wish: &Wish, signing: &DomainName, constant: Option<&str>) -> Self {
        let (mut opens, mut clicks, mut base) = (false, false, None);
        if let Some(site) = &tracker.site {
            (opens, clicks) = TrackingChoice::decide(site, wish.lane, wish.call, wish.template);
            base = Some(site.base_for(signing).clone());
        }
        let shared = constant.filter(|_| opens || clicks || wish.marked).map(Spots::of);
        Self { tracker, base, opens, clicks, marked: wish.marked, shared }
    }

    pub(crate) fn keys(&self) -> &TokenKeys {
        &self.tracker.keys
    }

    /// The address at which the recipient of this message unsubscribes.
    pub(crate) fn leave(&self, message: MessageId) -> Option<String> {
        let base = self.base.as_ref()?;
        Some(format!("{base}/u/{}", self.keys().seal(&Token::Unsubscribe(message))))
    }

    /// The address at which he does so by mail, where the fleet has it taken in.
    pub(crate) fn leave_by_mail(&self, message: MessageId, domain: &DomainName) -> Option<String> {
        self.tracker.site.as_ref().filter(|site| site.mailto)?;
        let mailbox = verp::unsubscribe_address(message, domain, self.keys())?;
        // `+` stands for itself in a mailto address (RFC 6068, 5).
        Some(format!("mailto:{mailbox}?subject=unsubscribe"))
    }

    /// Puts links and image into an HTML part.
    pub(crate) fn put_into<'a>(&self, html: Cow<'a, str>, to: Addressee<'_>) -> Cow<'a, str> {
        let tracked = self.base.as_ref().filter(|_| !to.untracked);
        let (opens, clicks) = (self.opens && tracked.is_some(), self.clicks && tracked.is_some());
        if !opens && !clicks && !self.marked {
            return html;
        }
        let own;
        let spots = match &self.shared {
            Some(spots) => spots,
            None => {
                own = Spots::of(&html);
                &own
            }
        };
        let mut out = String::with_capacity(html.len() + html.len() / 8 + spots.spots.len() * 256 + 512);
        let mut pen = Pen { marks: self, to, base: tracked, html: &html, done: 0, place: 0, out: &mut out };
        // Gmail shows no more than so much of a mail: what stands at its end is not fetched then.
        let early = html.len() + spots.spots.len() * 128 > GMAIL_CLIPS_AT;
        let after = if early { spots.body } else { spots.end };
        let mut due = opens || (clicks && self.has_honeypot());
        for spot in &spots.spots {
            let (Spot::Link(at, _) | Spot::Mark(at)) = spot;
            if due && at.start >= after {
                pen.copy(after);
                pen.unseen(opens, clicks);
                due = false;
            }
            match spot {
                Spot::Link(at, url) => pen.link(at.clone(), url, clicks),
                Spot::Mark(at) => pen.skip(at.clone()),
            }
        }
        if due {
            pen.copy(after);
            pen.unseen(opens, clicks);
        }
        pen.copy(html.len());
        Cow::Owned(out)
    }

    fn has_honeypot(&self) -> bool {
        self.tracker.site.as_ref().is_some_and(|site| site.honeypot)
    }

    fn is_own(&self, url: &str) -> bool {
        let host = host_of(url).unwrap_or_default();
        let mut bases = self.tracker.site.iter().flat_map(TrackingSite::bases);
        bases.any(|base| base.host().eq_ignore_ascii_case(host))
    }
}

/// An HTML part that nothing tracks, as its readers get it: without our marks.
pub(crate) fn unmarked(html: Cow<'_, str>) -> Cow<'_, str> {
    let mut out = String::with_capacity(html.len());
    let mut done = 0;
    for spot in Spots::of(&html).spots {
        if let Spot::Mark(at) = spot {
            out.push_str(&html[done..at.start]);
            done = at.end;
        }
    }
    out.push_str(&html[done..]);
    Cow::Owned(out)
}

/// Writes one HTML part anew.
struct Pen<'a> {
    marks: &'a Marks,
    to: Addressee<'a>,
    base: Option<&'a BaseUrl>,
    html: &'a str,
    /// How much of it is written.
    done: usize,
    /// The place of the next link.
    place: u16,
    out: &'a mut String,
}

impl Pen<'_> {
    fn copy(&mut self, until: usize) {
        self.out.push_str(&self.html[self.done..until]);
        self.done = until;
    }

    fn skip(&mut self, at: std::ops::Range<usize>) {
        self.copy(at.start);
        self.done = at.end;
    }

    fn link(&mut self, at: std::ops::Range<usize>, url: &str, clicks: bool) {
        let Some(base) = self.base.filter(|_| clicks && self.place < HONEYPOT_PLACE) else { return };
        if self.to.leave.contains(&Some(url)) || self.marks.is_own(url) {
            return;
        }
        let token = Token::Click { message: self.to.message, place: self.place, url: url.to_owned() };
        self.skip(at);
        self.out.push_str(base.as_str());
        self.out.push_str("/c/");
        self.out.push_str(&self.marks.keys().seal(&token));
        self.place += 1;
    }

    /// The image, and the link for programs.
    fn unseen(&mut self, opens: bool, clicks: bool) {
        let Some(base) = self.base else { return };
        let (message, keys) = (self.to.message, self.marks.keys());
        // Writing to a String does not fail.
        if clicks && self.marks.has_honeypot() {
            let url = format!("{base}/");
            let token = keys.seal(&Token::Click { message, place: HONEYPOT_PLACE, url });
            let style = "display:none;max-height:0;overflow:hidden";
            let _written = write!(
                self.out,
                "<a href=\"{base}/c/{token}\" style=\"{style}\" tabindex=\"-1\" aria-hidden=\"true\" rel=\"nofollow\"></a>"
            );
        }
        if opens {
            let token = keys.seal(&Token::Open(message));
            let style = "display:block;width:1px;height:1px;border:0;overflow:hidden";
            let _written = write!(
                self.out,
                "<img src=\"{base}/o/{token}\" width=\"1\" height=\"1\" alt=\"\" role=\"presentation\" aria-hidden=\"true\" style=\"{style}\">"
            );
        }
    }
}
