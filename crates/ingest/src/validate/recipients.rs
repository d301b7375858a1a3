//! Recipients: each is good or at fault by itself.

use super::{Violation, email, json_object, language};
use content::Language;
use domain::Mailbox;
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
pub fn recipients(given: Vec<Recipient>, max: usize) -> Result<Recipients, Violation> {
    if given.is_empty() {
        return Err(Violation::new("recipients", "is empty; give at least one recipient"));
    }
    if given.len() > max {
        return Err(Violation::new("recipients", format!("has {} entries; give at most {max}", given.len())));
    }
    let mut looked = Recipients { accepted: Vec::with_capacity(given.len()), refused: Vec::new() };
    for (position, recipient) in (0_u32..).zip(given) {
        match one(position, recipient) {
            Ok(recipient) => looked.accepted.push(recipient),
            Err(violation) => looked.refused.push((position, violation)),
        }
    }
    refuse_repeated(&mut looked);
    Ok(looked)
}

fn one(position: u32, recipient: Recipient) -> Result<Accepted, Violation> {
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
    let variables = if recipient.variables_json.is_empty() { "{}".to_owned() } else { recipient.variables_json };
    Ok(Accepted { position, mailbox, variables, language })
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
        let looked = recipients(given, MAX_BATCH).expect("neither none nor too many");
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
        assert!(recipients(Vec::new(), MAX_MESSAGE).is_err());
        let many = vec![recipient("a@example.com", ""); 100_000];
        assert_eq!(recipients(many, MAX_BATCH).expect_err("too many").field, "recipients");
    }
}
