//! `TemplateService`.

use crate::{
    Fault,
    auth::Scope,
    clock::Clock,
    mail::{caller, one_fault},
    names::Names,
    validate::{Faults, TemplateName, Violation, json_object, name},
    wire::timestamp,
};
use content::{Finding, Limits, TemplateSource};
use domain::{ContentId, TemplateId};
use proto::v1::{
    CreateTemplateRequest, CreateTemplateResponse, ErrorReason, GetTemplateRequest, GetTemplateResponse,
    PublishTemplateVersionRequest, PublishTemplateVersionResponse, Template, publish_template_version_request,
    template_service_server::TemplateService,
};
use std::sync::Arc;
use store::Store;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

/// Templates that are compiled at the same time.
const MAX_COMPILES: usize = 2;

/// Keeps templates.
pub struct Templates {
    store: Store,
    clock: Clock,
    names: Arc<Names>,
    limits: Limits,
    compiles: Semaphore,
}

impl Templates {
    /// Keeps templates in this store.
    pub fn new(store: Store, clock: Clock, names: Arc<Names>, limits: Limits) -> Self {
        Self { store, clock, names, limits, compiles: Semaphore::new(MAX_COMPILES) }
    }

    async fn compile(&self, source: TemplateSource) -> Result<content::CompiledTemplate, Fault> {
        let _place = self.compiles.acquire().await.map_err(|_| Fault::Stopping)?;
        let limits = self.limits.clone();
        let compiled = tokio::task::spawn_blocking(move || source.compile(&limits)).await;
        let compiled = compiled.map_err(|error| Fault::Internal(Box::new(error)))?;
        compiled.map_err(|findings| {
            let told = |finding: &Finding| Violation::from_finding(field(finding), finding);
            Fault::Invalid(findings.iter().map(told).collect())
        })
    }
}

/// The field of the API behind a field of the source.
fn field(finding: &Finding) -> String {
    match finding.field.strip_prefix("defaults") {
        Some(rest) => format!("defaults_json{rest}"),
        None => finding.field.clone(),
    }
}

fn source_of(request: PublishTemplateVersionRequest, faults: &mut Faults) -> TemplateSource {
    let (mjml, html) = match request.body {
        Some(publish_template_version_request::Body::Mjml(text)) => (Some(text), None),
        Some(publish_template_version_request::Body::Html(text)) => (None, Some(text)),
        None => (None, None),
    };
    let defaults = match json_object(&request.defaults_json) {
        Err(fault) => {
            let description = fault.description();
            faults.push(Violation::of(ErrorReason::VariablesInvalid, "defaults_json", description));
            serde_json::Map::new()
        }
        Ok(()) => serde_json::from_str(&request.defaults_json).unwrap_or_default(),
    };
    TemplateSource {
        subject: request.subject,
        mjml,
        html,
        text: Some(request.text).filter(|text| !text.is_empty()),
        defaults,
    }
}

fn wire(template: store::Template) -> Template {
    Template {
        template_id: template.id.to_string(),
        name: template.name,
        created_at: Some(timestamp(template.created_at)),
        latest_version: template.latest,
    }
}

#[tonic::async_trait]
impl TemplateService for Templates {
    async fn create_template(
        &self,
        request: Request<CreateTemplateRequest>,
    ) -> Result<Response<CreateTemplateResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Templates)?;
        let name = name("name", &request.get_ref().name).map_err(one_fault)?;
        let now = self.clock.machine_now();
        let id = TemplateId::new(now);
        self.store.create_template(tenant, id, &name, now).await.map_err(Fault::from)?;
        tracing::info!(tenant.id = %tenant, template.id = %id, "created a template");
        let template = wire(store::Template { id, name, created_at: now, latest: 0 });
        Ok(Response::new(CreateTemplateResponse { template: Some(template) }))
    }

    async fn publish_template_version(
        &self,
        request: Request<PublishTemplateVersionRequest>,
    ) -> Result<Response<PublishTemplateVersionResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Templates)?;
        let request = request.into_inner();
        let mut faults = Faults::default();
        let template = faults.take(TemplateName::parse("template", &request.template));
        let source = source_of(request, &mut faults);
        let template = faults.finish(template)?;
        let unknown = || Fault::NotFound { what: "template" };
        let id = match template {
            TemplateName::Id(id) => id,
            TemplateName::Name(name) => {
                let found = self.store.template_named(tenant, &name).await.map_err(Fault::from)?;
                found.ok_or_else(unknown)?.id
            }
        };
        let compiled = self.compile(source).await?;
        let body = serde_json::to_vec(&compiled).map_err(|error| Fault::Internal(Box::new(error)))?;
        let content = ContentId::of(tenant, &[b"template", &body]);
        let now = self.clock.machine_now();
        let version = self.store.publish_template(tenant, id, content, &body, now).await.map_err(Fault::from)?;
        let version = version.ok_or_else(unknown)?;
        self.names.forget_latest(tenant);
        tracing::info!(tenant.id = %tenant, template.id = %id, version, "published a template version");
        let findings = compiled
            .warnings
            .iter()
            .map(|finding| proto::v1::Finding {
                field: field(finding),
                line: finding.line.and_then(|line| u32::try_from(line).ok()).unwrap_or(0),
                problem: finding.problem.clone(),
                fix: finding.fix.clone(),
            })
            .collect();
        Ok(Response::new(PublishTemplateVersionResponse { version, findings }))
    }

    async fn get_template(
        &self,
        request: Request<GetTemplateRequest>,
    ) -> Result<Response<GetTemplateResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Templates)?;
        let name = name("name", &request.get_ref().name).map_err(one_fault)?;
        let found = self.store.template_named(tenant, &name).await.map_err(Fault::from)?;
        let found = found.ok_or(Fault::NotFound { what: "template" })?;
        Ok(Response::new(GetTemplateResponse { template: Some(wire(found)) }))
    }
}
