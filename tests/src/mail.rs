//! Mails as a caller of the API writes them.

use crate::faults;
use domain::Lane;
use proto::v1::{self, mail::Content};
use std::time::Duration;

/// A call that sends mail.
#[derive(Clone)]
pub struct Post {
    /// What is sent.
    pub mail: v1::Mail,
    /// To whom.
    pub recipients: Vec<v1::Recipient>,
    /// Makes it repeatable.
    pub key: String,
}

/// A small mail with a variable `name` in it.
pub fn mail() -> Post {
    let inline = v1::InlineContent {
        subject: "Hello {{ name }}".to_owned(),
        html: "<p>Hello <b>{{ name }}</b>, this is for you.</p>".to_owned(),
        text: String::new(),
    };
    let mail = v1::Mail {
        from: Some(v1::Address { email: "news@example.com".to_owned(), name: "News".to_owned() }),
        content: Some(Content::Inline(inline)),
        ..v1::Mail::default()
    };
    Post { mail, recipients: Vec::new(), key: String::new() }
}

/// A recipient with the variable `name`.
pub fn recipient(email: &str) -> v1::Recipient {
    v1::Recipient {
        email: email.to_owned(),
        variables_json: r#"{"name":"you"}"#.to_owned(),
        ..v1::Recipient::default()
    }
}

impl Post {
    /// One more recipient.
    pub fn to(mut self, email: &str) -> Self {
        self.recipients.push(recipient(email));
        self
    }

    /// More recipients.
    pub fn to_all<S: AsRef<str>>(mut self, emails: impl IntoIterator<Item = S>) -> Self {
        self.recipients.extend(emails.into_iter().map(|email| recipient(email.as_ref())));
        self
    }

    /// One more recipient with variables of its own.
    pub fn to_with(mut self, email: &str, variables: serde_json::Value) -> Self {
        self.recipients.push(v1::Recipient {
            email: email.to_owned(),
            variables_json: variables.to_string(),
            ..v1::Recipient::default()
        });
        self
    }

    /// In this lane.
    pub fn lane(mut self, lane: Lane) -> Self {
        let lane = match lane {
            Lane::Transactional => v1::Lane::Transactional,
            Lane::Bulk => v1::Lane::Bulk,
        };
        self.mail.set_lane(lane);
        self
    }

    /// Of this campaign.
    pub fn campaign(mut self, id: &str) -> Self {
        id.clone_into(&mut self.mail.campaign_id);
        self
    }

    /// Not before this time.
    pub fn at(mut self, when: chrono::DateTime<chrono::Utc>) -> Self {
        self.mail.send_at =
            Some(prost_types::Timestamp { seconds: when.timestamp(), nanos: when.timestamp_subsec_nanos() as i32 });
        self
    }

    /// For so long.
    pub fn time_to_live(mut self, span: Duration) -> Self {
        self.mail.time_to_live = Some(prost_types::Duration { seconds: span.as_secs() as i64, nanos: 0 });
        self
    }

    /// With an idempotency key.
    pub fn key(mut self, key: &str) -> Self {
        key.clone_into(&mut self.key);
        self
    }

    /// Changes the mail.
    pub fn with(mut self, change: impl FnOnce(&mut v1::Mail)) -> Self {
        change(&mut self.mail);
        self
    }

    /// As `SendMessage` takes it.
    pub fn message(self) -> v1::SendMessageRequest {
        let idempotency_key = faults::key_for(self.key);
        v1::SendMessageRequest { mail: Some(self.mail), recipients: self.recipients, idempotency_key }
    }

    /// As `SendBatch` takes it.
    pub fn batch(self) -> v1::SendBatchRequest {
        let idempotency_key = faults::key_for(self.key);
        v1::SendBatchRequest { mail: Some(self.mail), recipients: self.recipients, idempotency_key }
    }
}
