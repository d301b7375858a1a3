//! `PreviewTemplate`: the road of a mail up to its signature, which it does not get.

use super::{
    Templates,
    library::{self, Stored},
    wire,
};
use crate::{
    Fault,
    intake::mail_source,
    languages::told,
    mail::one_fault,
    names::Identity,
    validate::{self, Faults, MailDraft, Shared, TemplateName, Violation, api_field},
};
use content::{
    Body, CompiledTemplate, ContentError, Finding, Language, Limits, Prepared, Preview, RenderError, RenderRequest,
    Rules,
};
use domain::{ContentId, DomainName, Labels, Lane, MessageId, TenantId};
use proto::v1::{
    self, ErrorReason, PreviewTemplateRequest, PreviewTemplateResponse, Recipient, TemplateRef, mail::Content,
    preview_template_request::What,
};

/// Who a preview is for when the call names nobody.
const RECIPIENT: &str = "recipient@example.com";
/// Where a preview comes from when the tenant has no sending domain.
const DOMAIN: &str = "example.com";
/// What the author's mailbox is called when the call names none.
const AUTHOR: &str = "preview";

/// What is rendered: compiled, in the language that was chosen.
struct Chosen {
    version: u32,
    language: Option<Language>,
    template: CompiledTemplate,
    rules: Rules,
    findings: Vec<Finding>,
}

impl Templates {
    /// Renders a mail and sends nothing.
    ///
    /// # Errors
    /// As accepting the mail would be refused, and when it cannot be rendered.
    pub(super) async fn preview(
        &self,
        tenant: TenantId,
        request: PreviewTemplateRequest,
    ) -> Result<PreviewTemplateResponse, Fault> {
        let PreviewTemplateRequest { what, recipient, mail } = request;
        let what = what.ok_or_else(|| Fault::field("what", "is missing; give template or source"))?;
        let recipient = read_recipient(recipient.unwrap_or_default(), &self.limits)?;
        let chosen = match what {
            What::Template(reference) => self.published(tenant, &reference, recipient.language.as_ref()).await?,
            What::Source(source) => self.unpublished(tenant, source, recipient.language.as_ref()).await?,
        };
        if let Err(misfit) = chosen.rules.declared.check(&recipient.variables) {
            return Err(Fault::Invalid(vec![told("recipient.variables_json", &misfit)]));
        }
        let (draft, identity) = self.around(tenant, mail).await?;
        // Never looked up: the template is at hand.
        let source =
            mail_source(&draft, Body::Template { content: ContentId::of(tenant, &[b"preview"]) }, identity, Vec::new());
        let message_id = MessageId::new(self.clock.machine_now());
        let limits = self.limits.clone();
        let Chosen { version, language, template, mut findings, .. } = chosen;
        let campaign = draft.campaign;
        let render = move || {
            let wrong = source.validate(&limits);
            if !wrong.is_empty() {
                let told =
                    |finding: &Finding| Violation::from_finding(api_field(&finding.field, &draft.content), finding);
                return Err(Fault::Invalid(wrong.iter().map(told).collect()));
            }
            let prepared = Prepared::new(&source, Some(&template), None, &limits).map_err(unprepared)?;
            let request = RenderRequest {
                message_id,
                tenant,
                campaign,
                recipient: &recipient.mailbox,
                variables: &recipient.variables,
                overrides: recipient.overrides.as_ref(),
                keys: &[],
            };
            prepared.preview(request).map_err(|error| unrendered(&error))
        };
        let Preview { subject, html, text, mail } = self.compute(render).await??;
        findings.extend(html.as_deref().and_then(content::clipped_finding));
        Ok(PreviewTemplateResponse {
            version,
            language: language.map(String::from).unwrap_or_default(),
            subject,
            html: html.unwrap_or_default(),
            text: text.unwrap_or_default(),
            eml: mail.mime,
            findings: wire::findings(&findings),
        })
    }

    async fn published(
        &self,
        tenant: TenantId,
        reference: &TemplateRef,
        language: Option<&Language>,
    ) -> Result<Chosen, Fault> {
        let name = TemplateName::parse("template.template", &reference.template).map_err(one_fault)?;
        let template = self.found(tenant, &name).await?;
        let row = self.version(tenant, &template.name, reference.version).await?;
        let version = self.names.version(tenant, &TemplateName::Id(template.id), row.version).await?;
        let Stored { source, report } = library::read(&row)?;
        let translation = language.and_then(|language| source.choose(language));
        let content = self.store.content(version.content_for(language)).await?;
        let content = content.ok_or(Fault::NotFound { what: "template version" })?;
        let compiled = serde_json::from_slice(&content.body).map_err(|error| Fault::Internal(Box::new(error)))?;
        Ok(Chosen {
            version: row.version,
            language: translation.map(|index| source.translations[index].language.clone()),
            template: compiled,
            rules: version.rules.clone(),
            findings: report.findings,
        })
    }

    async fn unpublished(
        &self,
        tenant: TenantId,
        request: v1::PublishTemplateVersionRequest,
        language: Option<&Language>,
    ) -> Result<Chosen, Fault> {
        let mut faults = Faults::default();
        let name = match request.template.as_str() {
            "" => Some(None),
            name => faults.take(TemplateName::parse("source.template", name)).map(Some),
        };
        let source = wire::read(request, &mut faults);
        let of = match faults.finish(name)? {
            Some(name) => Some(self.found(tenant, &name).await?.name),
            None => None,
        };
        let library = library::load(&self.store, tenant, of.as_deref(), &source, &self.limits).await?;
        let mut built = self.build(&source, library).await?;
        let base = built.base.ok_or(Fault::TemplatePartial)?;
        let translation = language.and_then(|language| source.choose(language));
        let (language, template) = match translation {
            Some(index) => {
                let (language, template) = built.translations.swap_remove(index);
                (Some(language), template)
            }
            None => (None, base),
        };
        Ok(Chosen { version: 0, language, template, rules: built.rules, findings: built.report.findings })
    }

    /// The mail around the template: the one of the call, or a plain one.
    async fn around(&self, tenant: TenantId, mail: Option<v1::Mail>) -> Result<(MailDraft, Identity), Fault> {
        let mut faults = Faults::default();
        let (mut mail, plain) = match mail {
            Some(mail) => (mail, None),
            None => {
                let identity = self.any_identity(tenant).await?;
                let email = format!("{AUTHOR}@{}", identity.signing);
                let from = Some(v1::Address { email, name: String::new() });
                (v1::Mail { from, ..v1::Mail::default() }, Some(identity))
            }
        };
        if mail.content.is_some() {
            faults.add("mail.content", "cannot stand beside what is previewed; leave it out");
        }
        if !mail.attachments.is_empty() {
            faults.add("mail.attachments", "are not part of a preview; leave them out");
        }
        mail.content = Some(Content::Template(TemplateRef { template: AUTHOR.to_owned(), version: 0 }));
        let draft = validate::mail(&mut faults, Some(mail), Lane::Transactional, self.clock.now());
        let draft = faults.finish(draft)?;
        let identity = match plain {
            Some(identity) => identity,
            None => self.names.identity(tenant, &draft.from.mailbox.domain()).await?,
        };
        Ok((draft, identity))
    }

    async fn any_identity(&self, tenant: TenantId) -> Result<Identity, Fault> {
        let names = self.store.sending_domain_names(tenant).await?;
        let first = names.iter().min().and_then(|name| name.parse::<DomainName>().ok());
        match first {
            Some(domain) => self.names.identity(tenant, &domain).await,
            None => {
                let domain = |error| Fault::Internal(Box::new(error));
                let signing: DomainName = DOMAIN.parse().map_err(domain)?;
                Ok(Identity { return_path: signing.clone(), signing })
            }
        }
    }
}

fn read_recipient(mut given: Recipient, limits: &Limits) -> Result<validate::Accepted, Fault> {
    if given.email.is_empty() {
        RECIPIENT.clone_into(&mut given.email);
    }
    let shared = Shared { labels: &Labels::default(), is_raw: false, limits };
    let mut looked = validate::recipients(vec![given], 1, shared).map_err(one_fault)?;
    let refused = looked.refused.into_iter().map(|(_, violation)| {
        let field = violation.field.replacen("recipients[0]", "recipient", 1);
        Violation { field, ..violation }
    });
    looked.accepted.pop().ok_or_else(|| Fault::Invalid(refused.collect()))
}

fn unprepared(error: ContentError) -> Fault {
    Fault::Internal(Box::new(error))
}

/// Why the mail cannot be rendered, as its caller can mend it.
fn unrendered(error: &RenderError) -> Fault {
    let (reason, field) = match error {
        RenderError::MissingVariable { .. } => (ErrorReason::VariableMissing, "recipient.variables_json"),
        RenderError::Variables(_) => (ErrorReason::VariablesInvalid, "recipient.variables_json"),
        RenderError::Template { .. } | RenderError::Limit { .. } | RenderError::Header { .. } | RenderError::Sign => {
            (ErrorReason::ContentInvalid, "what")
        }
    };
    let text = format!("{error}; correct the variables or the template");
    Fault::Invalid(vec![Violation::of(reason, field, text)])
}
