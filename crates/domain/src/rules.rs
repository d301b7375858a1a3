//! The rules that turn a reply into a class: data, first match wins. Texts are matched in lower case.
//!
//! Words come before codes, since receivers are more careful with the former; among the words those that
//! overrule a code come first.

use crate::{BounceClass, BounceClass::*, EnhancedStatus};

/// How long a failure lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lasts {
    /// As the first digit says.
    AsCoded,
    /// For now, whatever the first digit says.
    ForNow,
}

/// One rule. Every condition that is given must hold.
#[derive(Clone, Copy, Debug)]
struct Rule {
    /// The first digit, or all three; empty: any.
    codes: &'static [u16],
    /// Subject and details of the enhanced status; no details: any. No class: 4.1.1 and 5.1.1 are one.
    status: Option<(u16, &'static [u16])>,
    /// Any of these; empty: whatever the words.
    texts: &'static [&'static str],
    class: BounceClass,
    lasts: Lasts,
}

/// Words that mean `class`.
const fn says(class: BounceClass, texts: &'static [&'static str]) -> Rule {
    Rule { codes: &[], status: None, texts, class, lasts: Lasts::AsCoded }
}

/// An enhanced status that means `class`.
const fn status(subject: u16, details: &'static [u16], class: BounceClass) -> Rule {
    Rule { codes: &[], status: Some((subject, details)), texts: &[], class, lasts: Lasts::AsCoded }
}

/// Codes that mean `class`.
const fn code(codes: &'static [u16], class: BounceClass) -> Rule {
    Rule { codes, status: None, texts: &[], class, lasts: Lasts::AsCoded }
}

impl Rule {
    const fn with_codes(self, codes: &'static [u16]) -> Self {
        Self { codes, ..self }
    }

    const fn with_status(self, subject: u16, details: &'static [u16]) -> Self {
        Self { status: Some((subject, details)), ..self }
    }

    const fn for_now(self) -> Self {
        Self { lasts: Lasts::ForNow, ..self }
    }

    fn matches(&self, code: u16, enhanced: Option<EnhancedStatus>, words: &str) -> bool {
        let coded = self.codes.is_empty() || self.codes.iter().any(|one| *one == code || *one == code / 100);
        let stated = self.status.is_none_or(|(subject, details)| {
            enhanced.is_some_and(|status| {
                status.subject() == subject && (details.is_empty() || details.contains(&status.detail()))
            })
        });
        coded && stated && (self.texts.is_empty() || self.texts.iter().any(|text| words.contains(text)))
    }
}

const RULES: &[Rule] = &[
    // What says "for good" and means "for now".
    code(&[421], TransientFailure).with_status(4, &[7]),
    says(
        RateLimited,
        &[
            "receiving mail at a rate",
            "receiving rate",
            "unusual rate of",
            "rate that prevents additional",
            "frequency limited",
            "frequency of",
            "sending frequency",
            "connection frequency",
            "connection limited",
            "too many connections",
            "too many concurrent",
            "too many messages",
            "too many mails",
            "too much mail",
            "too many emails",
            "trop de connexions",
            "rate limit",
            "ratelimit",
            "rate-limit",
            "throttl",
            "sending quota",
            "daily quota",
            "sending limit",
            "server busy",
            "exceeded the rate",
            "sending too fast",
            "too fast",
            "mi:dmc",
            "mi:sfq",
            "mi:nrf",
            "rp:mlm",
            "[ts01]",
            "[ts02]",
            "[ts03]",
            "messages temporarily deferred due to",
        ],
    )
    .for_now(),
    status(5, &[3], TooManyRecipients).for_now(),
    says(TooManyRecipients, &["too many recipients", "too many rcpt"]).for_now(),
    says(Greylisted, &["greylist", "graylist", "greylisted", "grey-list", "gray-list", "postgrey"]).for_now(),
    // Ours to mend, not the recipient's end: credentials of a relay, a missing STARTTLS.
    code(&[530, 534, 535, 538], BadConfiguration).for_now(),
    // Authentication of the sender. Microsoft's 5.7.515 is about us, whatever it says of access.
    says(
        AuthenticationFailed,
        &[
            "does not pass dmarc",
            "dmarc",
            "dkim",
            " spf",
            "(spf",
            "unauthenticated email",
            "unauthenticated mail",
            "not authenticated",
            "authentication level",
            "authentication-results",
            "sender verify failed",
            "ptr record",
            "reverse dns",
            "rdns",
            "cannot find your hostname",
            "tls is required",
            "must issue a starttls",
        ],
    )
    .with_codes(&[4, 5]),
    status(7, &[20, 21, 22, 23, 24, 25, 26, 27, 30, 515, 509, 518], AuthenticationFailed),
    // Reputation: names of blocklists and the receivers' own codes.
    says(
        SpamBlock,
        &[
            "spamhaus",
            "spamcop",
            "barracudacentral",
            " sorbs",
            "surbl",
            "uribl",
            "cloudmark",
            "invaluement",
            "blocklist",
            "blacklist",
            "block list",
            "black list",
            "blocked using",
            "listed at",
            "listed on",
            "dnsbl",
            " rbl",
            "hl:ipb",
            "s3140",
            "s3150",
            "(s3",
            "part of their network is on our",
            "poor reputation",
            "low reputation",
            "bad reputation",
            "ip reputation",
            "domain reputation",
            "reputation of the sending",
            "[tss04]",
            "[tss05]",
            "[bs02]",
            "[hcm1]",
            "banned sending ip",
            "banned your ip",
            "ip has been blocked",
            "ip address has been blocked",
            "your ip is blocked",
            "access denied, banned",
        ],
    ),
    // Content.
    says(VirusRelated, &[" virus", "malware", "infected", "trojan", "phishing"]),
    says(ProhibitedAttachment, &["attachment", "file type", "executable"]),
    says(
        SpamContent,
        &[
            "detected that this message",
            "likely unsolicited",
            "looks like spam",
            "considered spam",
            "identified as spam",
            "classified as spam",
            "message contains spam",
            "spam message",
            "spam content",
            "content rejected",
            "content denied",
            "spam score",
            "high spam",
            "suspected spam",
            "bulk mail",
            "mi:spb",
            "dt:spm",
        ],
    ),
    // Too large or full; before the unknown users, since "mailbox ... full" often says "unavailable" too.
    says(
        InactiveMailbox,
        &["over quota and inactive", "permanently over quota", "overquotaperm", "over-quota and has been inactive"],
    )
    .with_codes(&[5]),
    says(
        QuotaIssues,
        &[
            "mailbox full",
            "mailbox is full",
            "mail box full",
            "inbox is full",
            "inbox full",
            "over quota",
            "overquota",
            "overquotatemp",
            "quota exceeded",
            "exceeded quota",
            "exceeds quota",
            "exceeded storage",
            "exceeded its quota",
            "exceeding quota",
            "out of storage",
            "storage space",
            "insufficient storage",
            "not enough storage",
            "not enough space",
            "mailbox size limit",
            "quota",
            "message too large",
            "message size exceeds",
            "size limit",
            "too big",
            "boite pleine",
            "casella piena",
            "postfach voll",
            "postfach ist voll",
            "buzon lleno",
        ],
    ),
    says(
        RelayDenied,
        &[
            "relay access denied",
            "relaying denied",
            "unable to relay",
            "not permitted to relay",
            "relay not permitted",
            "relaying not allowed",
        ],
    ),
    // The recipient. Microsoft's 5.1.4 with "access denied" is policy, not an unknown user.
    // Its 5.4.1 is how it says that there is no such mailbox.
    says(InvalidRecipient, &["recipient address rejected: access denied"]).with_status(4, &[1]),
    says(PolicyRelated, &["access denied", "as(201806281)", "not accept mail from", "administratively prohibited"]),
    says(
        InvalidSender,
        &[
            "sender address rejected",
            "sender rejected",
            "sender address has null mx",
            "invalid sender",
            "sender domain",
            "domain of sender",
        ],
    ),
    says(
        BadDomain,
        &[
            "host unknown",
            "domain not found",
            "no such domain",
            "unknown domain",
            "domain does not exist",
            "domain does not accept mail",
            "null mx",
            "unrouteable",
            "unroutable",
        ],
    ),
    says(
        InactiveMailbox,
        &[
            "disabled mailbox",
            "mailbox disabled",
            "mailbox is disabled",
            "mailbox has been disabled",
            "account disabled",
            "account is disabled",
            "account has been disabled",
            "account that you tried to reach is disabled",
            "account that you tried to reach is inactive",
            "user disabled",
            "user is disabled",
            "account suspended",
            "account is suspended",
            "mailbox inactive",
            "mailbox is inactive",
            "account inactive",
            "account is inactive",
            "inactive user",
            "inactive account",
            "user has been suspended",
            "no longer active",
            "no longer available",
            "account closed",
            "deactivated",
            "inactive mailbox",
            "mailbox has been blocked",
            "account expired",
            "is no longer with",
        ],
    ),
    says(
        InvalidRecipient,
        &[
            "user unknown",
            "unknown user",
            "no such user",
            "no such recipient",
            "no such mailbox",
            "no such address",
            "no such account",
            "no such person",
            "does not exist",
            "doesn't exist",
            "not exist",
            "user not found",
            "recipient not found",
            "mailbox not found",
            "account not found",
            "address not found",
            "user doesn't have a",
            "unknown recipient",
            "recipient unknown",
            "unknown mailbox",
            "unknown address",
            "unknown local",
            "unknown or illegal",
            "invalid recipient",
            "invalid mailbox",
            "invalid address",
            "invalid user",
            "recipient rejected",
            "not a valid mailbox",
            "not a valid recipient",
            "no mailbox here",
            "no mailbox by that name",
            "mailbox unavailable",
            "recipient address rejected: undeliverable",
            "isn't a known",
            "not our customer",
            "not known at this site",
            "no valid recipient",
            "utilisateur inconnu",
            "adresse inconnue",
            "destinataire inconnu",
            "adresse d au moins un destinataire invalide",
            "benutzer unbekannt",
            "unbekannter empf",
            "empfaenger unbekannt",
            "usuario desconocido",
            "usuario inexistente",
            "no existe",
            "utente sconosciuto",
            "utente non",
            "indirizzo inesistente",
            "usuario nao existe",
            "gebruiker onbekend",
            "nieznany uzytkownik",
        ],
    )
    .with_codes(&[550, 551, 553, 554, 450, 451, 501, 511]),
    // The path.
    says(SpamRelated, &["spam", "unsolicited", "junk mail"]),
    says(RelayDenied, &["relay"]),
    says(RoutingErrors, &["mail loop", "too many hops", "hop count", "loops back"]),
    says(DnsFailure, &["dns", "resolve"]).with_codes(&[4]),
    says(RateLimited, &["try again later", "too busy", "load too high", "system load"]).with_codes(&[421]),
    // Enhanced status.
    status(1, &[1, 2, 3, 4], InvalidRecipient),
    status(1, &[6], InactiveMailbox),
    status(1, &[7, 8], InvalidSender),
    status(1, &[10], BadDomain),
    status(2, &[1], InactiveMailbox),
    status(2, &[2, 3], QuotaIssues),
    status(2, &[4], InvalidRecipient),
    status(3, &[1, 4], QuotaIssues),
    status(3, &[2], TransientFailure),
    status(3, &[3, 5], BadConfiguration),
    status(4, &[1], NoAnswerFromHost),
    status(4, &[2], BadConnection),
    status(4, &[3], DnsFailure),
    status(4, &[4, 6], RoutingErrors),
    status(4, &[5], RateLimited),
    status(4, &[7], MessageExpired),
    status(5, &[], ProtocolErrors),
    status(6, &[], ContentRelated),
    status(7, &[], PolicyRelated),
    // The code alone.
    code(&[421, 450, 451], TransientFailure),
    code(&[452, 552], QuotaIssues),
    code(&[550, 551], Uncategorized),
    code(&[521, 556], BadDomain),
    code(&[500, 501, 502, 503, 504, 555], ProtocolErrors),
    code(&[4], TransientFailure),
];

/// The class of a failure, and whether it lasts. `words` are in lower case, each after a space, without
/// addresses.
pub(crate) fn find(code: u16, enhanced: Option<EnhancedStatus>, words: &str) -> (BounceClass, bool) {
    let rule = RULES.iter().find(|rule| rule.matches(code, enhanced, words));
    let for_now = code / 100 == 4 || rule.is_some_and(|rule| rule.lasts == Lasts::ForNow);
    (rule.map_or(Uncategorized, |rule| rule.class), !for_now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_can_match_and_is_written_in_lower_case() {
        for rule in RULES {
            assert!(!(rule.codes.is_empty() && rule.status.is_none() && rule.texts.is_empty()), "{rule:?}");
            for text in rule.texts {
                assert_eq!(text.to_lowercase(), *text);
            }
        }
    }
}
