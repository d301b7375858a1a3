//! The mail that all recipients of a call share.

use super::{Faults, Times, Violation, campaign, email, free_text, labels, name, times};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use content::{NameAddr, Unsubscribe};
use domain::{CampaignId, Labels, Lane, TemplateId, TrackingChoice};
use proto::v1::{self, mail::Content};
use std::{collections::BTreeMap, str::FromStr};

/// Most addresses in one address header.
pub const MAX_HEADER_ADDRESSES: usize = 50;
/// Most custom headers.
pub const MAX_HEADERS: usize = 50;
/// Longest display name, in characters.
pub const MAX_DISPLAY_NAME: usize = 200;

/// What a mail says.
#[derive(Debug, PartialEq)]
pub enum ContentDraft {
    /// A template version; 0: the latest one.
    Template {
        /// Which template.
        template: TemplateName,
        /// Which version.
        version: u32,
    },
    /// Subject and parts.
    Inline {
        /// The subject.
        subject: String,
        /// The HTML part.
        html: Option<String>,
        /// The text part.
        text: Option<String>,
    },
    /// A finished mail.
    Raw(Bytes),
}

/// How a call names a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TemplateName {
    /// By id.
    Id(TemplateId),
    /// By name.
    Name(String),
}

impl TemplateName {
    /// Reads a name or an id.
    ///
    /// # Errors
    /// The fault.
    pub fn parse(field: &str, text: &str) -> Result<Self, Violation> {
        match TemplateId::from_str(text) {
            Ok(id) => Ok(Self::Id(id)),
            Err(_) => name(field, text).map(Self::Name),
        }
    }
}

/// A mail whose fields have been looked at; what it names in the database has not.
#[derive(Debug, PartialEq)]
pub struct MailDraft {
    /// The author.
    pub from: NameAddr,
    /// Where answers go.
    pub reply_to: Vec<NameAddr>,
    /// Shown as To.
    pub to_header: Option<Vec<NameAddr>>,
    /// Shown as Cc.
    pub cc_header: Vec<NameAddr>,
    /// Custom header fields.
    pub headers: Vec<(String, String)>,
    /// What it says.
    pub content: ContentDraft,
    /// How to leave the list.
    pub unsubscribe: Option<Unsubscribe>,
    /// The list.
    pub list_id: Option<String>,
    /// How urgent it is.
    pub lane: Lane,
    /// Its campaign.
    pub campaign: Option<CampaignId>,
    /// When it goes and ends.
    pub times: Times,
    /// Files that go along.
    pub files: Vec<FileDraft>,
    /// What the caller calls it.
    pub labels: Labels,
    /// Whether opens and clicks are told.
    pub tracking: TrackingChoice,
}

/// A file that goes along; its form is the content crate's rule.
#[derive(Clone, Debug, PartialEq)]
pub struct FileDraft {
    /// Its name.
    pub name: String,
    /// Its media type.
    pub media_type: String,
    /// Under which name the HTML part shows it.
    pub shown_as: Option<String>,
    /// What it holds.
    pub octets: Bytes,
}

/// Looks at all fields of a mail; `None` when one is at fault.
pub fn mail(faults: &mut Faults, given: Option<v1::Mail>, default_lane: Lane, now: DateTime<Utc>) -> Option<MailDraft> {
    let Some(given) = given else {
        faults.add("mail", "is missing; say what to send");
        return None;
    };
    let is_raw = matches!(given.content, Some(Content::RawMime(_)));
    if is_raw {
        refuse_headers_of_raw(faults, &given);
    }
    let lane = match v1::Lane::try_from(given.lane) {
        Ok(v1::Lane::Unspecified) => Some(default_lane),
        Ok(v1::Lane::Transactional) => Some(Lane::Transactional),
        Ok(v1::Lane::Bulk) => Some(Lane::Bulk),
        Err(_) => {
            faults.add("mail.lane", "is not known; give LANE_TRANSACTIONAL or LANE_BULK");
            None
        }
    };
    let from = match given.from {
        None => {
            faults.add("mail.from", "is missing; give the author's address, in a sending domain of yours");
            None
        }
        Some(from) => faults.take(address("mail.from", from)),
    };
    let reply_to: Vec<_> =
        given.reply_to.into_iter().filter_map(|one| faults.take(address("mail.reply_to", one))).collect();
    let to_header = addresses(faults, "mail.header_to", given.header_to);
    let cc_header = addresses(faults, "mail.header_cc", given.header_cc);
    let headers = headers(faults, given.headers);
    let content = content(faults, given.content);
    // Their form is looked at by the content crate, which knows that they may be templates.
    let unsubscribe = given.list_unsubscribe.map(|given| Unsubscribe {
        mailto: filled(given.mailto),
        url: filled(given.url),
        one_click: given.one_click,
        hosted: given.hosted,
    });
    let list_id = filled(given.list_id);
    let campaign = faults.take(campaign("mail.campaign_id", &given.campaign_id));
    let times = times(faults, given.send_at.as_ref(), given.time_to_live.as_ref(), lane.unwrap_or(default_lane), now);
    let files = given
        .attachments
        .into_iter()
        .map(|file| FileDraft {
            name: file.file_name,
            media_type: file.content_type,
            shown_as: filled(file.content_id),
            octets: file.data,
        })
        .collect();
    let tracking = tracking(given.tracking);
    let tags = faults.take(labels::tags("mail.tags", given.tags, &[]));
    let metadata = faults.take(labels::metadata("mail.metadata", given.metadata, &BTreeMap::new()));
    Some(MailDraft {
        from: from?,
        reply_to,
        to_header: (!to_header.is_empty()).then_some(to_header),
        cc_header,
        headers,
        content: content?,
        unsubscribe,
        list_id,
        lane: lane?,
        campaign: campaign?,
        times: times?,
        files,
        labels: Labels { tags: tags?, metadata: metadata?, sandbox: given.sandbox, own_tags: false },
        tracking,
    })
}

/// What a call or a template says about tracking.
pub fn tracking(given: Option<v1::Tracking>) -> TrackingChoice {
    given.map_or_else(TrackingChoice::default, |v1::Tracking { opens, clicks }| TrackingChoice { opens, clicks })
}

/// Refuses what a fleet without a site for opens, clicks and unsubscriptions cannot do.
pub fn refuse_tracking(faults: &mut Faults, draft: &MailDraft) {
    const FIX: &str = "needs a fleet that is configured with fleet.tracking; leave it out";
    if draft.tracking.asks() {
        faults.add("mail.tracking", FIX);
    }
    if draft.unsubscribe.as_ref().is_some_and(|given| given.hosted) {
        faults.add("mail.list_unsubscribe.hosted", FIX);
    }
}

fn refuse_headers_of_raw(faults: &mut Faults, given: &v1::Mail) {
    let set = [
        ("mail.reply_to", given.reply_to.is_some()),
        ("mail.header_to", !given.header_to.is_empty()),
        ("mail.header_cc", !given.header_cc.is_empty()),
        ("mail.headers", !given.headers.is_empty()),
        ("mail.attachments", !given.attachments.is_empty()),
        ("mail.tracking", tracking(given.tracking).asks()),
    ];
    for (field, _) in set.into_iter().filter(|(_, is_set)| *is_set) {
        faults.add(field, "cannot stand beside raw_mime; write it into the finished mail");
    }
}

fn address(field: &str, given: v1::Address) -> Result<NameAddr, Violation> {
    let mailbox = email(format!("{field}.email"), &given.email)
        .map_err(|violation| Violation::new(violation.field, violation.description))?;
    free_text(&format!("{field}.name"), &given.name, MAX_DISPLAY_NAME)?;
    let name = Some(given.name).filter(|name| !name.trim().is_empty());
    Ok(NameAddr { name, mailbox })
}

fn addresses(faults: &mut Faults, field: &str, given: Vec<v1::Address>) -> Vec<NameAddr> {
    if given.len() > MAX_HEADER_ADDRESSES {
        faults.add(field, format!("has {} entries; give at most {MAX_HEADER_ADDRESSES}", given.len()));
        return Vec::new();
    }
    let indexed = given.into_iter().enumerate();
    indexed.filter_map(|(at, one)| faults.take(address(&format!("{field}[{at}]"), one))).collect()
}

/// The shape alone: which names are taken is the content crate's rule.
fn headers(faults: &mut Faults, given: Vec<v1::Header>) -> Vec<(String, String)> {
    if given.len() > MAX_HEADERS {
        faults.add("mail.headers", format!("has {} entries; give at most {MAX_HEADERS}", given.len()));
        return Vec::new();
    }
    given.into_iter().map(|header| (header.name, header.value)).collect()
}

fn content(faults: &mut Faults, given: Option<Content>) -> Option<ContentDraft> {
    match given {
        None => {
            faults.add("mail.content", "is missing; give one of template, inline and raw_mime");
            None
        }
        Some(Content::Template(reference)) => {
            let template = faults.take(TemplateName::parse("mail.template.template", &reference.template))?;
            if i32::try_from(reference.version).is_err() {
                faults.add("mail.template.version", "is not a version; give one from 1, or 0 for the latest");
                return None;
            }
            Some(ContentDraft::Template { template, version: reference.version })
        }
        Some(Content::Inline(inline)) => {
            if inline.subject.trim().is_empty() {
                faults.add("mail.inline.subject", "is empty; give a subject");
            }
            let (html, text) = (filled(inline.html), filled(inline.text));
            if html.is_none() && text.is_none() {
                faults.add("mail.inline.html", "is empty, and so is text; give at least one of them");
            }
            Some(ContentDraft::Inline { subject: inline.subject, html, text })
        }
        Some(Content::RawMime(octets)) => {
            if octets.is_empty() {
                faults.add("mail.raw_mime", "is empty; give a finished mail (RFC 5322)");
                return None;
            }
            Some(ContentDraft::Raw(octets))
        }
    }
}

fn filled(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// The field of the API that a field of `content::MailSource` came from.
pub fn api_field(field: &str, draft: &ContentDraft) -> String {
    if field == "from.mailbox" {
        return "mail.from.email".to_owned();
    }
    let head = field.split(['.', '[']).next().unwrap_or(field);
    let rest = &field[head.len()..];
    let path = match head {
        "body" => match draft {
            ContentDraft::Template { .. } => "template",
            ContentDraft::Inline { .. } => return format!("mail.inline{rest}"),
            ContentDraft::Raw(_) => "raw_mime",
        },
        "subject" | "html" | "text" => match draft {
            ContentDraft::Inline { .. } => return format!("mail.inline.{field}"),
            ContentDraft::Template { .. } => "template",
            ContentDraft::Raw(_) => "raw_mime",
        },
        "to_header" => "header_to",
        "cc_header" => "header_cc",
        "unsubscribe" => "list_unsubscribe",
        "reply_to" => return format!("mail.reply_to{}", rest.trim_start_matches("[0]")),
        "raw" | "raw_mime" => "raw_mime",
        other => other,
    };
    format!("mail.{path}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_790_000_000, 0).expect("is a time")
    }

    fn good() -> v1::Mail {
        v1::Mail {
            from: Some(v1::Address { email: "news@example.com".to_owned(), name: "News".to_owned() }),
            content: Some(Content::Inline(v1::InlineContent {
                subject: "Hello {{ name }}".to_owned(),
                html: "<p>Hello</p>".to_owned(),
                text: String::new(),
            })),
            ..Default::default()
        }
    }

    fn faults_of(given: v1::Mail) -> Vec<String> {
        let mut faults = Faults::default();
        mail(&mut faults, Some(given), Lane::Bulk, now());
        faults.into_vec().into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn a_good_mail_is_taken_with_the_lane_of_its_call() {
        let mut faults = Faults::default();
        let draft = mail(&mut faults, Some(good()), Lane::Bulk, now()).expect("is good");
        assert!(faults.is_empty());
        assert_eq!((draft.lane, draft.campaign, draft.times.send_at), (Lane::Bulk, None, None));
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let given = v1::Mail {
            from: Some(v1::Address { email: "a@b\r\n.example".to_owned(), name: String::new() }),
            header_to: vec![v1::Address { email: "a@example.com".to_owned(), name: "x\r\nBcc: y".to_owned() }],
            lane: 17,
            campaign_id: "x".to_owned(),
            time_to_live: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..Default::default()
        };
        assert_eq!(
            faults_of(given),
            [
                "mail.lane",
                "mail.from.email",
                "mail.header_to[0].name",
                "mail.content",
                "mail.campaign_id",
                "mail.time_to_live",
            ]
        );
    }

    #[test]
    fn a_finished_mail_brings_its_own_header() {
        let raw = || Some(Content::RawMime(Bytes::from_static(b"x")));
        assert!(faults_of(v1::Mail { content: raw(), ..good() }).is_empty());
        let headers = vec![v1::Header { name: "X-A".to_owned(), value: "b".to_owned() }];
        assert_eq!(faults_of(v1::Mail { content: raw(), headers, ..good() }), ["mail.headers"]);
        let asks = |opens| Some(v1::Tracking { opens: Some(opens), clicks: None });
        assert_eq!(faults_of(v1::Mail { content: raw(), tracking: asks(true), ..good() }), ["mail.tracking"]);
        assert!(faults_of(v1::Mail { content: raw(), tracking: asks(false), ..good() }).is_empty());
    }

    #[test]
    fn a_fleet_without_a_site_refuses_what_needs_one() {
        let refused = |given: v1::Mail| {
            let mut faults = Faults::default();
            let draft = mail(&mut faults, Some(given), Lane::Bulk, now()).expect("is good");
            refuse_tracking(&mut faults, &draft);
            faults.into_vec().into_iter().map(|violation| violation.field).collect::<Vec<_>>()
        };
        let hosted = v1::ListUnsubscribe { hosted: true, ..v1::ListUnsubscribe::default() };
        let tracking = v1::Tracking { opens: Some(false), clicks: Some(true) };
        let asking = v1::Mail { list_unsubscribe: Some(hosted), tracking: Some(tracking), ..good() };
        assert_eq!(refused(asking), ["mail.tracking", "mail.list_unsubscribe.hosted"]);
        let no = v1::Tracking { opens: Some(false), clicks: Some(false) };
        assert!(refused(v1::Mail { tracking: Some(no), ..good() }).is_empty());
    }

    #[test]
    fn findings_of_the_content_are_told_under_the_fields_of_the_api() {
        let inline = ContentDraft::Inline { subject: String::new(), html: None, text: None };
        for (found, told) in [
            ("subject", "mail.inline.subject"),
            ("body.html", "mail.inline.html"),
            ("headers[2].name", "mail.headers[2].name"),
            ("to_header[1].name", "mail.header_to[1].name"),
            ("reply_to[0].name", "mail.reply_to.name"),
            ("unsubscribe.url", "mail.list_unsubscribe.url"),
            ("from.name", "mail.from.name"),
        ] {
            assert_eq!(api_field(found, &inline), told);
        }
    }
}
