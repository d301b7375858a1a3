//! Recipients: each is good or at fault by itself.

use super::{Violation, email, json_object, labels, language};
use content::{Language, Limits};
use domain::{Labels, Mailbox, Overrides};
use proto::v1::{ErrorReason, Recipient};
use std::{borrow::Cow, collections::HashSet};

/// Most recipients of `SendMessage`.
pub const MAX_MESSAGE: usize = 50;
/// Most recipients of `SendBatch`.
pub const MAX_BATCH: usize = 10_000;

/// A recipient that can be accepted.
#[derive(Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Its position in the request.
    pub position: u32,
    /// The envelope recipient.
    pub mailbox: Mailbox,
    /// A JSON object.
    pub variables: String,
    /// What the recipient reads.
    pub language: Option<Language>,
    /// What it has instead of, or beside, what the mail says to all.
    pub overrides: Option<Overrides>,
}

/// What is known of the mail when its recipients are looked at.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// What the mail is called.
    pub labels: &'a Labels,
    /// Whether it is a finished one, which nothing can be replaced in.
    pub is_raw: bool,
    /// Bounds on subjects and header fields.
    pub limits: &'a Limits,
}

/// The recipients of a request, good and at fault.
#[derive(Debug, Default)]
pub struct Recipients {
    /// Those that can be accepted, in the request's order.
    pub accepted: Vec<Accepted>,
    /// The others, with their position.
    pub refused: Vec<(u32, Violation)>,
}

/// Looks at all recipients.
///
/// # Errors
/// When there are none, or more than `max`; nothing else is looked at then.
pub fn recipients(given: Vec<Recipient>, max: usize, shared: Shared<'_>) -> Result<Recipients, Violation> {
    if given.is_empty() {
        return Err(Violation::new("recipients", "is empty; give at least one recipient"));
    }
    if given.len() > max {
        return Err(Violation::new("recipients", format!("has {} entries; give at most {max}", given.len())));
    }
    let mut looked = Recipients { accepted: Vec::with_capacity(given.len()), refused: Vec::new() };
    for (position, recipient) in (0_u32..).zip(given) {
        match one(position, recipient, shared) {
            Ok(recipient) => looked.accepted.push(recipient),
            Err(violation) => looked.refused.push((position, violation)),
        }
    }
    refuse_repeated(&mut looked);
    Ok(looked)
}

fn one(position: u32, recipient: Recipient, shared: Shared<'_>) -> Result<Accepted, Violation> {
    let mailbox = match recipient.email.parse() {
        Ok(mailbox) => mailbox,
        Err(_) => {
            return Err(email(format!("recipients[{position}].email"), &recipient.email).expect_err("fails again"));
        }
    };
    json_object(&recipient.variables_json).map_err(|fault| {
        let field = format!("recipients[{position}].variables_json");
        Violation::of(ErrorReason::VariablesInvalid, field, fault.description())
    })?;
    let language = match recipient.language.as_str() {
        "" => None,
        text => language(&format!("recipients[{position}].language"), text)?,
    };
    let Recipient { variables_json, subject, headers, tags, metadata, untracked, .. } = recipient;
    let variables = if variables_json.is_empty() { "{}".to_owned() } else { variables_json };
    let has_words = !subject.is_empty() || !headers.is_empty() || !tags.is_empty() || !metadata.is_empty();
    let overrides = if !has_words && !untracked {
        None
    } else {
        let headers = headers.into_iter().map(|header| (header.name, header.value)).collect();
        let subject = Some(subject).filter(|subject| !subject.is_empty());
        let own = Overrides { subject, headers, tags, metadata, untracked };
        Some(overrides(position, own, shared)?).filter(|own| !own.is_empty())
    };
    Ok(Accepted { position, mailbox, variables, language, overrides })
}

/// What a recipient has of his own, bound as what the mail says to all.
fn overrides(position: u32, own: Overrides, shared: Shared<'_>) -> Result<Overrides, Violation> {
    let path = |field: &str| format!("recipients[{position}].{field}");
    if shared.is_raw {
        for (field, is_set) in [("subject", own.subject.is_some()), ("headers", !own.headers.is_empty())] {
            if is_set {
                let text = "cannot stand beside raw_mime; the finished mail is the same for all";
                return Err(Violation::new(path(field), text));
            }
        }
    }
    if let Some(finding) = content::validate_overrides(&own, shared.limits).first() {
        return Err(Violation::from_finding(path(&finding.field), finding));
    }
    let Overrides { subject, headers, tags, metadata, untracked } = own;
    let tags = labels::tags(&path("tags"), tags, &shared.labels.tags)?;
    let metadata = labels::metadata(&path("metadata"), metadata, &shared.labels.metadata)?;
    Ok(Overrides { subject, headers, tags, metadata, untracked })
}

/// Two messages of one call to one mailbox are a mistake of the list's: the first stays.
fn refuse_repeated(looked: &mut Recipients) {
    let mut repeated = Vec::new();
    {
        let mut seen = HashSet::with_capacity(looked.accepted.len());
        for (index, recipient) in looked.accepted.iter().enumerate() {
            if !seen.insert(folded(&recipient.mailbox)) {
                repeated.push(index);
            }
        }
    }
    if repeated.is_empty() {
        return;
    }
    let mut next = repeated.into_iter().peekable();
    let mut index = 0;
    looked.accepted.retain(|recipient| {
        let is_repeated = next.next_if_eq(&index).is_some();
        index += 1;
        if is_repeated {
            let field = format!("recipients[{}].email", recipient.position);
            let text = "stands earlier in the same call; give each address once";
            looked.refused.push((recipient.position, Violation::of(ErrorReason::RecipientRepeated, field, text)));
        }
        !is_repeated
    });
    looked.refused.sort_by_key(|(position, _)| *position);
}

/// The address by which a recipient is known: the local part in lower case; the domain is that already.
fn folded(mailbox: &Mailbox) -> Cow<'_, str> {
    if mailbox.as_str().bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        Cow::Borrowed(mailbox.as_str())
    } else {
        Cow::Owned(mailbox.as_str().to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipient(email: &str, variables_json: &str) -> Recipient {
        Recipient { email: email.to_owned(), variables_json: variables_json.to_owned(), ..Recipient::default() }
    }

    fn looked_at(given: Vec<Recipient>, max: usize, is_raw: bool) -> Result<Recipients, Violation> {
        let labels = Labels { tags: vec!["shared".to_owned()], ..Labels::default() };
        recipients(given, max, Shared { labels: &labels, is_raw, limits: &Limits::default() })
    }

    #[test]
    fn what_a_recipient_has_of_his_own_is_bound_as_what_all_have() {
        let header = |name: &str, value: &str| proto::v1::Header { name: name.to_owned(), value: value.to_owned() };
        let own = |change: &dyn Fn(&mut Recipient)| {
            let mut one = recipient("a@example.com", "");
            change(&mut one);
            one
        };
        let fault = |one: Recipient, is_raw| {
            let looked = looked_at(vec![one], MAX_BATCH, is_raw).expect("neither none nor too many");
            looked.refused.into_iter().map(|(_, fault)| fault.field).next().unwrap_or_default()
        };
        assert_eq!(fault(own(&|one| one.subject = "a\r\nBcc: b@c.test".to_owned()), false), "recipients[0].subject");
        assert_eq!(
            fault(own(&|one| one.headers = vec![header("X-A", "a\nb")]), false),
            "recipients[0].headers[0].value"
        );
        assert_eq!(fault(own(&|one| one.headers = vec![header("From", "a")]), false), "recipients[0].headers[0].name");
        assert_eq!(fault(own(&|one| one.tags = vec!["a b".to_owned()]), false), "recipients[0].tags[0]");
        assert_eq!(fault(own(&|one| one.subject = "s".to_owned()), true), "recipients[0].subject");
        assert_eq!(fault(own(&|one| one.headers = vec![header("X-A", "a")]), true), "recipients[0].headers");
        assert_eq!(fault(own(&|one| one.tags = vec!["t".to_owned()]), true), "");
        let same = own(&|one| one.tags = vec!["shared".to_owned()]);
        let looked = looked_at(vec![same], MAX_BATCH, false).expect("neither none nor too many");
        assert_eq!(looked.accepted[0].overrides, None, "what all have is no recipient's own");
        let looked =
            looked_at(vec![own(&|one| one.untracked = true)], MAX_BATCH, true).expect("neither none nor too many");
        assert_eq!(looked.accepted[0].overrides, Some(Overrides { untracked: true, ..Overrides::default() }));
    }

    #[test]
    fn bad_recipients_are_refused_and_the_good_ones_go() {
        let given = vec![
            recipient("a@example.com", ""),
            recipient("b@example.com\r\nDATA", "{}"),
            recipient("c@example.com", "[]"),
            recipient("A@EXAMPLE.com", ""),
            recipient("d@example.com", r#"{"name":"D"}"#),
            Recipient { language: "german".to_owned(), ..recipient("e@example.com", "") },
        ];
        let looked = looked_at(given, MAX_BATCH, false).expect("neither none nor too many");
        assert_eq!(looked.accepted.iter().map(|one| one.position).collect::<Vec<_>>(), [0, 4]);
        assert_eq!(looked.accepted[0].variables, "{}");
        let refused: Vec<_> =
            looked.refused.iter().map(|(at, fault)| (*at, fault.field.as_str(), fault.reason)).collect();
        assert_eq!(
            refused,
            [
                (1, "recipients[1].email", ErrorReason::RecipientInvalid),
                (2, "recipients[2].variables_json", ErrorReason::VariablesInvalid),
                (3, "recipients[3].email", ErrorReason::RecipientRepeated),
                (5, "recipients[5].language", ErrorReason::LanguageInvalid),
            ]
        );
    }

    #[test]
    fn none_and_too_many_are_refused_as_a_whole() {
        assert!(looked_at(Vec::new(), MAX_MESSAGE, false).is_err());
        let many = vec![recipient("a@example.com", ""); 100_000];
        assert_eq!(looked_at(many, MAX_BATCH, false).expect_err("too many").field, "recipients");
    }
}
