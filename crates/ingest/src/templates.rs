//! `TemplateService`.

mod diff;
mod library;
mod preview;
mod wire;

use crate::{
    Fault,
    auth::Scope,
    clock::Clock,
    cursor::{self, List},
    mail::{caller, one_fault},
    names::Names,
    validate::{Faults, TemplateName, Violation, name},
    wire::timestamp,
};
use content::{Built, CompiledTemplate, Finding, Library, Limits, Severity, VersionSource};
use diff::Side;
use domain::{ContentId, TemplateId, TenantId};
use library::Stored;
use proto::v1::{
    CreateTemplateRequest, CreateTemplateResponse, DiffTemplateVersionsRequest, DiffTemplateVersionsResponse,
    GetTemplateRequest, GetTemplateResponse, GetTemplateVersionRequest, GetTemplateVersionResponse,
    ListTemplatesRequest, ListTemplatesResponse, PreviewTemplateRequest, PreviewTemplateResponse,
    PublishTemplateVersionRequest, PublishTemplateVersionResponse, Template, TemplateVersionSummary,
    template_service_server::TemplateService,
};
use std::sync::Arc;
use store::{NewTemplateVersion, Store, TemplateContent, TemplateVersionSource};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

/// Templates that are compiled, rendered or compared at the same time.
const MAX_COMPILES: usize = 2;
/// Versions that `GetTemplate` tells.
const MAX_VERSIONS: u32 = 100;
/// Most templates of a page.
pub const MAX_PAGE: u32 = 1_000;
/// Unchanged lines around a change.
const CONTEXT: u32 = 3;
/// Most of these.
const MAX_CONTEXT: u32 = 1_000;

/// Keeps templates.
pub struct Templates {
    store: Store,
    clock: Clock,
    names: Arc<Names>,
    limits: Limits,
    compiles: Arc<Semaphore>,
}

impl Templates {
    /// Keeps templates in this store.
    pub fn new(store: Store, clock: Clock, names: Arc<Names>, limits: Limits) -> Self {
        Self { store, clock, names, limits, compiles: Arc::new(Semaphore::new(MAX_COMPILES)) }
    }

    /// Does what takes milliseconds, away from the reactor and not too much of it at once.
    async fn compute<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Fault> {
        let place = Arc::clone(&self.compiles).acquire_owned().await.map_err(|_| Fault::Stopping)?;
        // The place is taken until the work is done, also when nobody waits for it any more.
        let run = move || {
            let done = work();
            drop(place);
            done
        };
        tokio::task::spawn_blocking(run).await.map_err(|error| Fault::Internal(Box::new(error)))
    }

    async fn build(&self, source: &VersionSource, library: Library) -> Result<Built, Fault> {
        let (source, limits) = (source.clone(), self.limits.clone());
        let built = self.compute(move || source.build(&library, &limits)).await?;
        built.map_err(|findings| {
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
            let told = |finding: &Finding| Violation::from_finding(finding.field.clone(), finding);
            Fault::Invalid(errors.map(told).collect())
        })
    }

    async fn found(&self, tenant: TenantId, name: &TemplateName) -> Result<store::Template, Fault> {
        let found = match name {
            TemplateName::Id(id) => self.store.template(tenant, *id).await?,
            TemplateName::Name(name) => self.store.template_named(tenant, name).await?,
        };
        found.ok_or(Fault::NotFound { what: "template" })
    }

    /// What a version was published from; 0: the newest.
    async fn version(&self, tenant: TenantId, name: &str, version: u32) -> Result<TemplateVersionSource, Fault> {
        let found = self.store.template_sources(tenant, &[(name.to_owned(), version)]).await?;
        found.into_iter().next().ok_or(Fault::NotFound { what: "template version" })
    }
}

fn answer(template: store::Template) -> Template {
    Template {
        template_id: template.id.to_string(),
        name: template.name,
        created_at: Some(timestamp(template.created_at)),
        latest_version: template.latest,
    }
}

/// A version as it is stored.
fn stored(tenant: TenantId, source: &VersionSource, built: &Built) -> Result<NewTemplateVersion, Fault> {
    let internal = |error: serde_json::Error| Fault::Internal(Box::new(error));
    let content = |compiled: &CompiledTemplate| -> Result<TemplateContent, Fault> {
        let body = serde_json::to_vec(compiled).map_err(internal)?;
        Ok(TemplateContent { id: ContentId::of(tenant, &[b"template", &body]), body })
    };
    let mut translations = built
        .translations
        .iter()
        .map(|(language, compiled)| Ok((language.to_string(), content(compiled)?)))
        .collect::<Result<Vec<_>, Fault>>()?;
    translations.sort_by(|(one, _), (two, _)| one.cmp(two));
    let rules = (built.rules != content::Rules::default()).then(|| serde_json::to_vec(&built.rules));
    Ok(NewTemplateVersion {
        content: built.base.as_ref().map(content).transpose()?,
        translations,
        source: serde_json::to_vec(source).map_err(internal)?,
        report: serde_json::to_vec(&built.report).map_err(internal)?,
        rules: rules.transpose().map_err(internal)?,
    })
}

#[tonic::async_trait]
impl TemplateService for Templates {
    async fn create_template(
        &self,
        request: Request<CreateTemplateRequest>,
    ) -> Result<Response<CreateTemplateResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = caller.tenant(Scope::Templates)?;
        let name = name("name", &request.get_ref().name).map_err(one_fault)?;
        let now = self.clock.machine_now();
        let id = TemplateId::new(now);
        let store = caller.acting(&self.store, "TemplateService.CreateTemplate");
        store.create_template(tenant, id, &name, now).await.map_err(Fault::from)?;
        tracing::info!(tenant.id = %tenant, template.id = %id, "created a template");
        let template = answer(store::Template { id, name, created_at: now, latest: 0 });
        Ok(Response::new(CreateTemplateResponse { template: Some(template) }))
    }

    async fn publish_template_version(
        &self,
        request: Request<PublishTemplateVersionRequest>,
    ) -> Result<Response<PublishTemplateVersionResponse>, Status> {
        let caller = caller(&request)?;
        let tenant = caller.tenant(Scope::Templates)?;
        let request = request.into_inner();
        let validate_only = request.validate_only;
        let mut faults = Faults::default();
        let template = faults.take(TemplateName::parse("template", &request.template));
        let source = wire::read(request, &mut faults);
        let template = faults.finish(template)?;
        let template = self.found(tenant, &template).await?;
        let library = library::load(&self.store, tenant, Some(&template.name), &source, &self.limits).await?;
        let built = self.build(&source, library).await?;
        let mut version = 0;
        if !validate_only {
            let new = stored(tenant, &source, &built)?;
            let now = self.clock.machine_now();
            let store = caller.acting(&self.store, "TemplateService.PublishTemplateVersion");
            let published = store.publish_template(tenant, template.id, &new, now).await.map_err(Fault::from)?;
            version = published.ok_or(Fault::NotFound { what: "template" })?;
            self.names.forget_latest(tenant);
            tracing::info!(tenant.id = %tenant, template.id = %template.id, version, "published a template version");
        }
        let findings = wire::findings(&built.report.findings);
        let includes = wire::includes(&built.report);
        Ok(Response::new(PublishTemplateVersionResponse { version, findings, includes }))
    }

    async fn list_templates(
        &self,
        request: Request<ListTemplatesRequest>,
    ) -> Result<Response<ListTemplatesResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Templates)?;
        let ListTemplatesRequest { page_size, page_token } = request.into_inner();
        let mut faults = Faults::default();
        let size = faults.take(cursor::size(page_size, MAX_PAGE));
        let list = List::of("templates", Some(tenant), &());
        let name = |parts: &[&str]| parts.first().map(|name| (*name).to_owned());
        let after = faults.take(list.place(&page_token, name));
        let (size, after) = faults.finish(size.zip(after))?;
        // One more tells whether another page follows.
        let mut templates = self.store.templates(tenant, after.as_deref(), size + 1).await.map_err(Fault::from)?;
        let next_page_token = list.cut(&mut templates, size, |last| vec![last.name.clone()]);
        let templates = templates.into_iter().map(answer).collect();
        Ok(Response::new(ListTemplatesResponse { templates, next_page_token }))
    }

    async fn get_template(
        &self,
        request: Request<GetTemplateRequest>,
    ) -> Result<Response<GetTemplateResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Templates)?;
        let name = TemplateName::parse("name", &request.get_ref().name).map_err(one_fault)?;
        let template = self.found(tenant, &name).await?;
        let versions = self.store.template_versions(tenant, template.id, MAX_VERSIONS).await.map_err(Fault::from)?;
        let summary = |one: store::TemplateVersionSummary| TemplateVersionSummary {
            version: one.version,
            published_at: Some(timestamp(one.published_at)),
            purpose: wire::purpose(one.is_partial).into(),
            languages: one.languages,
        };
        let versions = versions.into_iter().map(summary).collect();
        Ok(Response::new(GetTemplateResponse { template: Some(answer(template)), versions }))
    }

    async fn get_template_version(
        &self,
        request: Request<GetTemplateVersionRequest>,
    ) -> Result<Response<GetTemplateVersionResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Templates)?;
        let GetTemplateVersionRequest { template, version } = request.into_inner();
        let template = TemplateName::parse("template", &template).map_err(one_fault)?;
        let template = self.found(tenant, &template).await?;
        let row = self.version(tenant, &template.name, version).await?;
        let Stored { source, report } = library::read(&row)?;
        Ok(Response::new(GetTemplateVersionResponse {
            template_id: row.id.to_string(),
            version: row.version,
            published_at: Some(timestamp(row.published_at)),
            source: Some(wire::write(&row.name, source)),
            includes: wire::includes(&report),
            findings: wire::findings(&report.findings),
            required_variables: report.wanted,
            name: row.name,
        }))
    }

    async fn diff_template_versions(
        &self,
        request: Request<DiffTemplateVersionsRequest>,
    ) -> Result<Response<DiffTemplateVersionsResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Templates)?;
        let DiffTemplateVersionsRequest { template, from_version, to_version, context_lines } = request.into_inner();
        let mut faults = Faults::default();
        let template = faults.take(TemplateName::parse("template", &template));
        let context = context_lines.unwrap_or(CONTEXT);
        if context > MAX_CONTEXT {
            faults.add("context_lines", format!("is too large; give at most {MAX_CONTEXT}"));
        }
        let template = faults.finish(template)?;
        let template = self.found(tenant, &template).await?;
        let to = self.version(tenant, &template.name, to_version).await?;
        let from_version = match (from_version, to.version) {
            (0, 1) => return Err(Fault::field("from_version", "is the version before the first; give one").into()),
            (0, to) => to - 1,
            (from, _) => from,
        };
        let from = self.version(tenant, &template.name, from_version).await?;
        let (from_version, to_version) = (from.version, to.version);
        let side = |row: TemplateVersionSource| {
            let Stored { source, report } = library::read(&row)?;
            Ok::<_, Fault>(Side { name: format!("{}@{}", row.name, row.version), source, included: report.included })
        };
        let (from, to) = (side(from)?, side(to)?);
        let context = usize::try_from(context).unwrap_or(usize::MAX);
        let parts = self.compute(move || diff::differences(&from, &to, context)).await?;
        Ok(Response::new(DiffTemplateVersionsResponse { from_version, to_version, parts }))
    }

    async fn preview_template(
        &self,
        request: Request<PreviewTemplateRequest>,
    ) -> Result<Response<PreviewTemplateResponse>, Status> {
        let tenant = caller(&request)?.tenant(Scope::Templates)?;
        Ok(Response::new(self.preview(tenant, request.into_inner()).await?))
    }
}
