//! Reports about a domain's mail as a whole: DMARC (RFC 7489, RFC 9990) and TLS-RPT (RFC 8460).

use super::{Kind, Limits, ReadError, Reading, Returned, letter::Letter};
use chrono::{DateTime, Utc};
use domain::text::sanitise;
use mail_auth::report::{self as theirs, tlsrpt};
use mail_parser::MimeHeaders;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Longest text that is kept of a field, in characters.
const MAX_TEXT: usize = 255;
/// Failures that are kept of one policy of a TLS report.
const MAX_FAILURES: usize = 1_000;

/// What a receiver did with mail that claimed to come from a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmarcReport {
    /// Who reports.
    pub org: String,
    /// Names it among the reports of this organisation.
    pub report_id: String,
    /// About which domain.
    pub domain: String,
    /// From when.
    pub begins: DateTime<Utc>,
    /// Until when.
    pub ends: DateTime<Utc>,
    /// The policy that was found: `none`, `quarantine` or `reject`.
    pub policy: String,
    /// The same for domains below.
    pub subdomain_policy: String,
    /// What came from where.
    pub rows: Vec<DmarcRow>,
    /// Rows beyond those that are kept.
    pub left_out: usize,
}

/// Mails of one kind from one address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DmarcRow {
    /// Where they came from.
    pub source: Option<IpAddr>,
    /// How many.
    pub count: u32,
    /// What was done with them: `none`, `quarantine`, `reject`, `pass`.
    pub disposition: String,
    /// Whether an aligned signature held.
    pub dkim: bool,
    /// Whether aligned SPF held.
    pub spf: bool,
    /// The domain in `From`.
    pub header_from: String,
    /// The domain of the envelope sender.
    pub envelope_from: String,
    /// The signing domains, each with its selector and result: `example.com/s1=pass`.
    pub dkim_results: Vec<String>,
    /// The domains that SPF looked at, each with its result: `example.com=pass`.
    pub spf_results: Vec<String>,
    /// Why the policy was not followed.
    pub reasons: Vec<String>,
}

/// How TLS went from one organisation to a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsReport {
    /// Who reports.
    pub org: String,
    /// Names it among the reports of this organisation.
    pub report_id: String,
    /// From when.
    pub begins: DateTime<Utc>,
    /// Until when.
    pub ends: DateTime<Utc>,
    /// By policy.
    pub policies: Vec<TlsPolicy>,
}

/// How TLS went under one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsPolicy {
    /// About which domain.
    pub domain: String,
    /// `sts`, `tlsa` or `no-policy-found`.
    pub kind: String,
    /// Sessions that went well.
    pub successes: u32,
    /// Sessions that did not.
    pub failures: u32,
    /// Why, each with the host and the number: `certificate-expired at mx.example.com: 3`.
    pub reasons: Vec<String>,
}

/// The report that a mail brings, if it is one of these.
///
/// # Errors
/// It says that it brings one, which cannot be read.
pub(super) fn read(mail: &[u8], letter: &Letter<'_>, limits: &Limits) -> Result<Option<Reading>, ReadError> {
    let signs = Signs::of(letter, limits);
    if !(signs.tls || signs.dmarc || signs.packed) {
        return Ok(None);
    }
    let mut reading = Reading {
        kind: Kind::DmarcReport,
        findings: Vec::new(),
        returned: Returned::default(),
        reporting_mta: None,
        feedback_type: None,
        subject: Some(sanitise(letter.subject(), MAX_TEXT)),
        dmarc: None,
        tls: None,
    };
    if !signs.tls {
        match theirs::Report::parse_rfc5322(mail, limits.unpacked) {
            Ok(report) => {
                reading.dmarc = Some(dmarc(report, limits));
                return Ok(Some(reading));
            }
            Err(error) if signs.dmarc => return Err(ReadError::Report(words(&error))),
            Err(_) => {}
        }
    }
    match tlsrpt::TlsReport::parse_rfc5322(mail, limits.unpacked) {
        Ok(report) => {
            reading.kind = Kind::TlsReport;
            reading.tls = Some(tls(report, limits));
            Ok(Some(reading))
        }
        Err(error) if signs.tls => Err(ReadError::Report(words(&error))),
        // Something else that somebody packed.
        Err(_) => Ok(None),
    }
}

/// What a mail looks like from outside.
#[derive(Default)]
struct Signs {
    /// It says that it is a DMARC report.
    dmarc: bool,
    /// It says that it is a TLS report.
    tls: bool,
    /// It brings something packed that is called as such reports are.
    packed: bool,
}

impl Signs {
    fn of(letter: &Letter<'_>, limits: &Limits) -> Self {
        let subject = letter.subject().to_lowercase();
        let mut signs = Self {
            dmarc: subject.contains("report domain:") && subject.contains("submitter:"),
            tls: letter.header("TLS-Report-Domain").is_some(),
            packed: false,
        };
        for part in letter.mail.parts.iter().take(limits.parts) {
            let Some(kind) = part.content_type() else { continue };
            let subtype = kind.subtype().unwrap_or_default().to_ascii_lowercase();
            signs.tls |= subtype.starts_with("tlsrpt+");
            let name = part.attachment_name().unwrap_or_default().to_ascii_lowercase();
            let named = name.matches('!').count() >= 2;
            let is_packed = ["gzip", "x-gzip", "zip", "x-zip-compressed", "xml", "json", "octet-stream"];
            signs.packed |= named && is_packed.contains(&subtype.as_str());
        }
        // What says so and brings nothing is somebody's mail about reports.
        signs.dmarc &= letter.mail.parts.len() > 1 || !letter.mail.is_content_type("text", "plain");
        signs
    }
}

fn words(error: &theirs::Error) -> String {
    match error {
        theirs::Error::MailParseError => "it is no mail".to_owned(),
        theirs::Error::ReportParseError(text) => format!("it has another form: {}", sanitise(text, MAX_TEXT)),
        theirs::Error::UncompressError(text) => format!("it cannot be unpacked: {}", sanitise(text, MAX_TEXT)),
        theirs::Error::ReportTooLarge => "it is too large once unpacked".to_owned(),
        theirs::Error::NoReportsFound => "there is none in the mail".to_owned(),
    }
}

fn short(text: impl AsRef<str>) -> String {
    sanitise(text.as_ref(), MAX_TEXT)
}

fn moment(seconds: u64) -> DateTime<Utc> {
    i64::try_from(seconds).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0)).unwrap_or_default()
}

/// The word of a value of theirs, as it stands in reports.
fn word(value: impl Serialize) -> String {
    let text = serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_lowercase));
    text.filter(|text| text != "unspecified").unwrap_or_default()
}

fn dmarc(report: theirs::Report, limits: &Limits) -> DmarcReport {
    let (metadata, policy) = (report.report_metadata, report.policy_published);
    let left_out = report.record.len().saturating_sub(limits.rows);
    let row = |record: theirs::Record| {
        let evaluated = record.row.policy_evaluated;
        DmarcRow {
            source: record.row.source_ip,
            count: record.row.count,
            disposition: word(evaluated.disposition),
            dkim: evaluated.dkim == theirs::DmarcResult::Pass,
            spf: evaluated.spf == theirs::DmarcResult::Pass,
            header_from: short(record.identifiers.header_from),
            envelope_from: short(record.identifiers.envelope_from),
            dkim_results: record
                .auth_results
                .dkim
                .iter()
                .take(20)
                .map(|one| short(format!("{}/{}={}", one.domain, one.selector, word(one.result))))
                .collect(),
            spf_results: record
                .auth_results
                .spf
                .iter()
                .take(20)
                .map(|one| short(format!("{}={}", one.domain, word(one.result))))
                .collect(),
            reasons: evaluated
                .reason
                .iter()
                .take(20)
                .map(|one| short(format!("{} {}", word(one.type_), one.comment.as_deref().unwrap_or_default())))
                .collect(),
        }
    };
    DmarcReport {
        org: short(metadata.org_name),
        report_id: short(metadata.report_id),
        domain: short(policy.domain).to_lowercase(),
        begins: moment(metadata.date_range.begin),
        ends: moment(metadata.date_range.end),
        policy: word(policy.p),
        subdomain_policy: word(policy.sp),
        rows: report.record.into_iter().take(limits.rows).map(row).collect(),
        left_out,
    }
}

fn tls(report: tlsrpt::TlsReport, limits: &Limits) -> TlsReport {
    let policy = |policy: tlsrpt::Policy| {
        let reason = |failure: &tlsrpt::FailureDetails| {
            let host = failure.receiving_mx_hostname.as_deref().unwrap_or("an unnamed host");
            short(format!("{} at {host}: {}", word(failure.result_type), failure.failed_session_count))
        };
        TlsPolicy {
            domain: short(policy.policy.policy_domain).to_lowercase(),
            kind: word(policy.policy.policy_type),
            successes: policy.summary.total_success,
            failures: policy.summary.total_failure,
            reasons: policy.failure_details.iter().take(MAX_FAILURES).map(reason).collect(),
        }
    };
    TlsReport {
        org: short(report.organization_name.unwrap_or_default()),
        report_id: short(report.report_id),
        begins: DateTime::from_timestamp(report.date_range.start_datetime.to_timestamp(), 0).unwrap_or_default(),
        ends: DateTime::from_timestamp(report.date_range.end_datetime.to_timestamp(), 0).unwrap_or_default(),
        policies: report.policies.into_iter().take(limits.rows).map(policy).collect(),
    }
}
