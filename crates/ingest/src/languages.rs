//! What of a template each recipient is sent: by language, and only when its variables fit.
//!
//! The choice is made once, when a call is accepted: a message names the content in its recipient's language, and
//! whatever renders it later knows nothing of languages.

use crate::{
    Fault,
    intake::Intake,
    names::Version,
    validate::{Accepted, ContentDraft, MailDraft, Recipients, Violation},
};
use content::Misfit;
use domain::{ContentId, TemplateId, TenantId};
use proto::v1::ErrorReason;

/// Variables above this are looked at off the reactor, since that takes milliseconds.
const LARGE: usize = 256 * 1024;

/// What the recipients of a call are sent.
pub struct Chosen {
    /// The recipients; those whose variables do not fit are refused.
    pub recipients: Recipients,
    /// The template.
    pub template: Option<TemplateId>,
    /// The compiled templates, each once; `None` for a mail without.
    pub templates: Vec<Option<ContentId>>,
    /// Which of these each accepted recipient gets; beyond its end, the first.
    pub of: Vec<usize>,
}

impl Intake {
    /// Looks at the recipients as the mail's template wants it.
    ///
    /// # Errors
    /// When the tenant has no such template version, or it cannot be sent.
    pub async fn choose(&self, tenant: TenantId, draft: &MailDraft, recipients: Recipients) -> Result<Chosen, Fault> {
        let ContentDraft::Template { template, version } = &draft.content else {
            return Ok(Chosen { recipients, template: None, templates: vec![None], of: Vec::new() });
        };
        let version = self.names.version(tenant, template, *version).await?;
        let size: usize = recipients.accepted.iter().map(|one| one.variables.len()).sum();
        if size > LARGE && !version.rules.declared.is_empty() {
            let work = move || choose(&version, recipients);
            return tokio::task::spawn_blocking(work).await.map_err(|error| Fault::Internal(Box::new(error)));
        }
        Ok(choose(&version, recipients))
    }
}

fn choose(version: &Version, recipients: Recipients) -> Chosen {
    let recipients = refuse_misfits(version, recipients);
    let template = Some(version.template);
    if version.translations.is_empty() {
        return Chosen { recipients, template, templates: vec![Some(version.content)], of: Vec::new() };
    }
    let mut templates = Vec::new();
    let of = recipients.accepted.iter().map(|recipient| {
        let content = Some(version.content_for(recipient.language.as_ref()));
        templates.iter().position(|known| *known == content).unwrap_or_else(|| {
            templates.push(content);
            templates.len() - 1
        })
    });
    let of = of.collect();
    Chosen { recipients, template, templates, of }
}

fn refuse_misfits(version: &Version, mut recipients: Recipients) -> Recipients {
    let declared = &version.rules.declared;
    if declared.is_empty() {
        return recipients;
    }
    let refused = &mut recipients.refused;
    let before = refused.len();
    recipients.accepted.retain(|one| match declared.check(&one.variables) {
        Ok(()) => true,
        Err(misfit) => {
            refused.push((one.position, violation(one, &misfit)));
            false
        }
    });
    if refused.len() > before {
        refused.sort_by_key(|(position, _)| *position);
    }
    recipients
}

fn violation(recipient: &Accepted, misfit: &Misfit) -> Violation {
    told(&format!("recipients[{}].variables_json", recipient.position), misfit)
}

/// A variable that does not fit, in this field.
pub fn told(field: &str, misfit: &Misfit) -> Violation {
    let reason = if misfit.missing { ErrorReason::VariableMissing } else { ErrorReason::VariableMismatch };
    Violation::of(reason, format!("{field}.{}", misfit.path), misfit.description())
}
