//! What is sent: personalised mails of one template, the same for every system.

use anyhow::Context;
use bytes::Bytes;
use content::{
    Body, CompiledTemplate, Limits, MailSource, NameAddr, Prepared, RenderRequest, ReturnPath, TemplateSource,
};
use domain::{BatchId, ContentId, EnvelopeSender, Lane, Mailbox, MessageId, TenantId};
use service::clock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The domain of the authors of signed mail.
pub const SIGNED: &str = "bench.test";
/// The domain of the authors of mail that the fleet does not sign.
pub const PLAIN: &str = "plain.test";
/// The subject of every mail.
pub const SUBJECT: &str = "{{ name }}, your order {{ order }} is on its way";
/// The sink tells of each copy for this domain.
pub const WATCHED: &str = "watched.test";

const VARIABLES: [&str; 9] = ["order", "city", "street", "item", "size", "colour", "price", "date", "clerk"];
const FILLER: &str = "Thank you for your order. It has left our house this morning and will be with you soon. ";
/// Recipients of one run differ from those of every other: the sink counts a second copy as a duplicate.
static RUNS: AtomicU32 = AtomicU32::new(0);

/// Who gets mail.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many.
    pub count: usize,
    /// Of how many domains.
    pub domains: usize,
    /// Of a hundred, how many get a 451 the first time.
    pub share_4xx: u8,
    /// All of them of the domain that is watched.
    pub watched: bool,
    run: u32,
    batch: BatchId,
}

impl Plan {
    /// Recipients that no other plan has.
    pub fn new(count: usize, domains: usize, share_4xx: u8) -> Self {
        Self {
            count,
            domains: domains.max(1),
            share_4xx,
            watched: false,
            run: RUNS.fetch_add(1, Ordering::Relaxed),
            batch: BatchId::new(clock::now()),
        }
    }

    /// Recipients whose copies the sink tells of.
    pub fn watched(count: usize) -> Self {
        Self { watched: true, ..Self::new(count, 1, 0) }
    }

    /// The address of one of them.
    pub fn recipient(&self, index: usize) -> String {
        let name = if self.is_deferred(index) { "tempfail-once" } else { "r" };
        let run = self.run;
        match self.watched {
            true => format!("{name}{index}.{run}@{WATCHED}"),
            false => format!("{name}{index}.{run}@receiver{}.test", index % self.domains),
        }
    }

    /// How many get a 451.
    pub fn deferrals(&self) -> usize {
        (0..self.count).filter(|index| self.is_deferred(*index)).count()
    }

    fn is_deferred(&self, index: usize) -> bool {
        // Prime to 100, so that they are spread evenly.
        index * 37 % 100 < usize::from(self.share_4xx)
    }
}

/// The variables of one recipient, ten of them.
pub fn variables(index: usize) -> String {
    format!(
        r#"{{"name":"Ada {index}","order":"B-{index}","city":"Turku","street":"Quay 7","item":"Lamp","size":"M","colour":"blue","price":"19.90","date":"2 May","clerk":"Noor"}}"#
    )
}

/// A finished mail.
#[derive(Clone, Debug)]
pub struct Finished {
    /// MAIL FROM.
    pub sender: EnvelopeSender,
    /// RCPT TO.
    pub recipient: Mailbox,
    /// Header and body.
    pub mime: Bytes,
}

/// The template, and what makes mails of it for those who cannot.
pub struct Letter {
    /// The HTML part with its variables.
    pub html: String,
    prepared: Prepared,
}

impl Letter {
    /// A template whose mails have about so many octets before they are signed.
    pub fn of_size(octets: usize) -> anyhow::Result<Self> {
        let size = |sentences| -> anyhow::Result<usize> {
            Ok(Self::with(sentences)?.finish(&Plan::new(1, 1, 0), 0)?.mime.len())
        };
        let (none, some) = (size(0)?, size(10)?);
        let each = (some - none).max(10) / 10;
        Self::with(octets.saturating_sub(none).div_ceil(each))
    }

    fn with(sentences: usize) -> anyhow::Result<Self> {
        let mut html = String::from("<html><body style=\"font-family:sans-serif\"><h1>Hello {{ name }}</h1>");
        for (index, variable) in VARIABLES.iter().enumerate() {
            let here = (sentences + index) / VARIABLES.len();
            html.push_str(&format!("<h2>{index}. {{{{ {variable} }}}}</h2><p>{}</p>", FILLER.repeat(here)));
        }
        html.push_str("</body></html>");
        let source =
            TemplateSource { subject: SUBJECT.to_owned(), html: Some(html.clone()), ..TemplateSource::default() };
        let template = source.compile(&Limits::default()).map_err(|findings| anyhow::anyhow!("{findings:?}"))?;
        Ok(Self { prepared: prepared(&template)?, html })
    }

    /// Renders one recipient's mail, unsigned, as the fleet would.
    pub fn finish(&self, plan: &Plan, index: usize) -> anyhow::Result<Finished> {
        let recipient: Mailbox = plan.recipient(index).parse()?;
        let request = RenderRequest {
            message_id: MessageId::of_batch(plan.batch, u32::try_from(index)?),
            tenant: TenantId::new(clock::now()),
            campaign: None,
            recipient: &recipient,
            variables: &variables(index),
            overrides: None,
            keys: &[],
        };
        let rendered = self.prepared.render(request).context("the benchmark's own template does not render")?;
        Ok(Finished { sender: rendered.envelope.sender, mime: rendered.mime, recipient })
    }
}

fn prepared(template: &CompiledTemplate) -> anyhow::Result<Prepared> {
    let source = MailSource {
        from: NameAddr { name: Some("Bench".to_owned()), mailbox: format!("shop@{SIGNED}").parse()? },
        reply_to: Vec::new(),
        to_header: None,
        cc_header: Vec::new(),
        headers: Vec::new(),
        body: Body::Template { content: ContentId::of(TenantId::new(clock::now()), &[b"bench"]) },
        unsubscribe: None,
        list_id: None,
        feedback_id: None,
        lane: Lane::Bulk,
        return_path: ReturnPath::PerMessage(format!("bounces.{SIGNED}").parse()?),
        signing_domain: SIGNED.parse()?,
        attachments: Vec::new(),
        sandbox: false,
        tracking: Default::default(),
    };
    Ok(Prepared::new(&source, Some(template), None, &Limits::default())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mails_have_the_size_that_was_asked_for() {
        for octets in [3_000, 10_000, 50_000] {
            let made =
                Letter::of_size(octets).expect("is a template").finish(&Plan::new(1, 1, 0), 7).expect("renders").mime;
            let text = std::str::from_utf8(&made).expect("is text");
            assert!(text.contains("Ada 7") && text.contains("B-7"));
            assert!(made.len().abs_diff(octets) < 300, "{} for {octets}", made.len());
        }
    }

    #[test]
    fn no_two_plans_share_a_recipient_and_the_share_is_kept() {
        let (one, two) = (Plan::new(1_000, 8, 20), Plan::new(1_000, 8, 20));
        assert_eq!(one.deferrals(), 200);
        let all: std::collections::HashSet<String> =
            (0..1_000).flat_map(|index| [one.recipient(index), two.recipient(index)]).collect();
        assert_eq!(all.len(), 2_000);
    }
}
