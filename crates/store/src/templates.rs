//! Templates: names over immutable, published versions.

use crate::{PLAIN, Store, StoreError, audit_log, call, contents::ContentKind, transaction};
use chrono::{DateTime, Utc};
use domain::{ContentId, TemplateId, TenantId};
use uuid::Uuid;

/// A template and its newest version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its id.
    pub id: TemplateId,
    /// Its name, unique in its tenant.
    pub name: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// The newest published version, from 1; 0 when none is published.
    pub latest: u32,
}

/// A compiled template in one language.
#[derive(Clone, Debug)]
pub struct TemplateContent {
    /// Its name: the hash of what it holds.
    pub id: ContentId,
    /// What it holds.
    pub body: Vec<u8>,
}

/// A version to publish. What is octets here is the content crate's JSON.
#[derive(Clone, Debug)]
pub struct NewTemplateVersion {
    /// The compiled parts; `None`: it is for other templates alone.
    pub content: Option<TemplateContent>,
    /// The compiled parts in other languages, in the order of the languages.
    pub translations: Vec<(String, TemplateContent)>,
    /// What it is published from.
    pub source: Vec<u8>,
    /// What is told of it.
    pub report: Vec<u8>,
    /// What accepting a mail checks, if anything.
    pub rules: Option<Vec<u8>>,
}

/// What a mail of a version is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateVersion {
    /// The version's number.
    pub version: u32,
    /// The content; `None`: it is for other templates alone.
    pub content: Option<ContentId>,
    /// What accepting a mail checks, if anything.
    pub rules: Option<Vec<u8>>,
    /// The contents in other languages, in the order of the languages.
    pub translations: Vec<(String, ContentId)>,
}

/// A version in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateVersionSummary {
    /// Its number.
    pub version: u32,
    /// Since when.
    pub published_at: DateTime<Utc>,
    /// Whether it is for other templates alone.
    pub is_partial: bool,
    /// The languages of its translations.
    pub languages: Vec<String>,
}

/// What a version was published from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateVersionSource {
    /// Its template.
    pub id: TemplateId,
    /// The template's name.
    pub name: String,
    /// The number that was asked for; 0: the newest.
    pub asked: u32,
    /// The number of the newest version.
    pub latest: u32,
    /// Its number.
    pub version: u32,
    /// Since when.
    pub published_at: DateTime<Utc>,
    /// What it was published from.
    pub source: Vec<u8>,
    /// What is told of it.
    pub report: Option<Vec<u8>>,
    /// The content; `None`: it is for other templates alone.
    pub content: Option<ContentId>,
}

impl Store {
    /// Makes a template without versions.
    ///
    /// # Errors
    /// `Exists` when the tenant has one of this name; otherwise when the database does not answer.
    pub async fn create_template(
        &self,
        tenant: TenantId,
        id: TemplateId,
        name: &str,
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        transaction!(self, PLAIN, conn => {
            sqlx::query!(
                "insert into mailfleet.templates (template_id, tenant_id, name, created_at) values ($1, $2, $3, $4)",
                id.as_uuid(),
                tenant.as_uuid(),
                name,
                now,
            )
            .execute(&mut *conn)
            .await
            .map_err(|error| StoreError::or_exists(error, "a template of this name"))?;
            audit_log::enter(self, conn, Some(tenant), &format!("templates/{id}")).await?;
        })
    }

    /// Publishes the next version; publishing what the newest version holds gives that version again.
    /// `None` when the tenant has no such template.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn publish_template(
        &self,
        tenant: TenantId,
        id: TemplateId,
        new: &NewTemplateVersion,
        now: DateTime<Utc>,
    ) -> Result<Option<u32>, StoreError> {
        let version = transaction!(self, PLAIN, conn => {
            let held = sqlx::query_scalar!(
                "select template_id from mailfleet.templates where template_id = $1 and tenant_id = $2 for update",
                id.as_uuid(),
                tenant.as_uuid(),
            )
            .fetch_optional(&mut *conn)
            .await?;
            if held.is_none() {
                None
            } else {
                let latest = sqlx::query!(
                    r#"select v.version, v.content_id, v.source, v.report, v.rules, coalesce(t.contents, '{}') as "contents!"
                       from mailfleet.template_versions v
                       cross join lateral (
                           select array_agg(content_id order by language collate "C") as contents
                           from mailfleet.template_translations t
                           where t.template_id = v.template_id and t.version = v.version
                       ) t
                       where v.template_id = $1
                       order by v.version desc
                       limit 1"#,
                    id.as_uuid()
                )
                .fetch_optional(&mut *conn)
                .await?;
                let contents: Vec<Uuid> = new.translations.iter().map(|(_, content)| content.id.as_uuid()).collect();
                let same = latest.as_ref().is_some_and(|latest| {
                    latest.content_id == new.content.as_ref().map(|content| content.id.as_uuid())
                        && latest.source.as_ref() == Some(&new.source)
                        && latest.contents == contents
                        && latest.rules == new.rules
                        // What a piece takes in stands there alone.
                        && (new.content.is_some() || latest.report.as_ref() == Some(&new.report))
                });
                match latest {
                    Some(latest) if same => Some(latest.version),
                    latest => {
                        let version = latest.map_or(1, |latest| latest.version + 1);
                        insert_version(conn, tenant, id, version, new, now).await?;
                        audit_log::enter(self, conn, Some(tenant), &format!("templates/{id}/versions/{version}")).await?;
                        Some(version)
                    }
                }
            }
        })?;
        Ok(version.and_then(|version| u32::try_from(version).ok()))
    }

    /// A page of a tenant's templates in the order of their names: those after `after`, at most `limit`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn templates(
        &self,
        tenant: TenantId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Template>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                r#"select template_id, name, created_at,
                          (select coalesce(max(version), 0) from mailfleet.template_versions v
                           where v.template_id = t.template_id) as "latest!"
                   from mailfleet.templates t
                   where tenant_id = $1 and name > $2
                   order by name
                   limit $3"#,
                tenant.as_uuid(),
                after.unwrap_or_default(),
                i64::from(limit),
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(rows.into_iter().map(|row| template((row.template_id, row.name, row.created_at, row.latest))).collect())
    }

    /// A tenant's template by id.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn template(&self, tenant: TenantId, id: TemplateId) -> Result<Option<Template>, StoreError> {
        let row = call!(self, conn => {
            sqlx::query!(
                r#"select template_id, name, created_at,
                          (select coalesce(max(version), 0) from mailfleet.template_versions v
                           where v.template_id = t.template_id) as "latest!"
                   from mailfleet.templates t where tenant_id = $1 and template_id = $2"#,
                tenant.as_uuid(),
                id.as_uuid(),
            )
            .fetch_optional(conn)
            .await?
        })?;
        Ok(row.map(|row| template((row.template_id, row.name, row.created_at, row.latest))))
    }

    /// A tenant's template by name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn template_named(&self, tenant: TenantId, name: &str) -> Result<Option<Template>, StoreError> {
        let row = call!(self, conn => {
            sqlx::query!(
                r#"select template_id, name, created_at,
                          (select coalesce(max(version), 0) from mailfleet.template_versions v
                           where v.template_id = t.template_id) as "latest!"
                   from mailfleet.templates t where tenant_id = $1 and name = $2"#,
                tenant.as_uuid(),
                name,
            )
            .fetch_optional(conn)
            .await?
        })?;
        Ok(row.map(|row| template((row.template_id, row.name, row.created_at, row.latest))))
    }

    /// What a mail of this version (0: the newest published one) of a tenant's template is made from.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn template_version(
        &self,
        tenant: TenantId,
        id: TemplateId,
        version: u32,
    ) -> Result<Option<TemplateVersion>, StoreError> {
        let row = call!(self, conn => {
            sqlx::query!(
                r#"select v.version, v.content_id, v.rules, coalesce(l.languages, '{}') as "languages!",
                          coalesce(l.contents, '{}') as "contents!"
                   from mailfleet.templates t
                   join mailfleet.template_versions v using (template_id)
                   cross join lateral (
                       select array_agg(language order by language collate "C") as languages,
                              array_agg(content_id order by language collate "C") as contents
                       from mailfleet.template_translations l
                       where l.template_id = v.template_id and l.version = v.version
                   ) l
                   where t.tenant_id = $1 and t.template_id = $2 and ($3 = 0 or v.version = $3)
                   order by v.version desc limit 1"#,
                tenant.as_uuid(),
                id.as_uuid(),
                number(version),
            )
            .fetch_optional(conn)
            .await?
        })?;
        Ok(row.map(|row| TemplateVersion {
            version: u32::try_from(row.version).unwrap_or(0),
            content: row.content_id.map(ContentId::from_uuid),
            rules: row.rules,
            translations: row.languages.into_iter().zip(row.contents.into_iter().map(ContentId::from_uuid)).collect(),
        }))
    }

    /// The newest versions of a tenant's template, at most `limit`, the newest first.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn template_versions(
        &self,
        tenant: TenantId,
        id: TemplateId,
        limit: u32,
    ) -> Result<Vec<TemplateVersionSummary>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                r#"select v.version, v.created_at, v.content_id is null as "is_partial!",
                          coalesce((select array_agg(language order by language collate "C")
                                    from mailfleet.template_translations l
                                    where l.template_id = v.template_id and l.version = v.version), '{}') as "languages!"
                   from mailfleet.templates t
                   join mailfleet.template_versions v using (template_id)
                   where t.tenant_id = $1 and t.template_id = $2
                   order by v.version desc
                   limit $3"#,
                tenant.as_uuid(),
                id.as_uuid(),
                i64::from(limit),
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(rows
            .into_iter()
            .map(|row| TemplateVersionSummary {
                version: u32::try_from(row.version).unwrap_or(0),
                published_at: row.created_at,
                is_partial: row.is_partial,
                languages: row.languages,
            })
            .collect())
    }

    /// What versions of a tenant's templates were published from: for each name and number (0: the newest), those
    /// that there are, in no order.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn template_sources(
        &self,
        tenant: TenantId,
        wanted: &[(String, u32)],
    ) -> Result<Vec<TemplateVersionSource>, StoreError> {
        let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
        let numbers: Vec<i32> = wanted.iter().map(|(_, version)| number(*version)).collect();
        let rows = call!(self, conn => {
            sqlx::query!(
                r#"select t.template_id, t.name, w.asked as "asked!", n.latest as "latest!", v.version, v.created_at,
                          coalesce(v.source, convert_to('{"parts":' || convert_from(c.body, 'UTF8') || '}', 'UTF8'))
                              as "source!",
                          v.report, v.content_id
                   from unnest($2::text[], $3::integer[]) as w(name, asked)
                   join mailfleet.templates t on t.tenant_id = $1 and t.name = w.name
                   cross join lateral (
                       select max(version) as latest from mailfleet.template_versions n
                       where n.template_id = t.template_id
                   ) n
                   join mailfleet.template_versions v
                       on v.template_id = t.template_id
                       and v.version = case when w.asked = 0 then n.latest else w.asked end
                   left join mailfleet.contents c on v.source is null and c.content_id = v.content_id"#,
                tenant.as_uuid(),
                &names,
                &numbers,
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(rows
            .into_iter()
            .map(|row| TemplateVersionSource {
                id: TemplateId::from_uuid(row.template_id),
                name: row.name,
                asked: u32::try_from(row.asked).unwrap_or(0),
                latest: u32::try_from(row.latest).unwrap_or(0),
                version: u32::try_from(row.version).unwrap_or(0),
                published_at: row.created_at,
                source: row.source,
                report: row.report,
                content: row.content_id.map(ContentId::from_uuid),
            })
            .collect())
    }
}

fn template((id, name, created_at, latest): (Uuid, String, DateTime<Utc>, i32)) -> Template {
    Template { id: TemplateId::from_uuid(id), name, created_at, latest: u32::try_from(latest).unwrap_or(0) }
}

fn number(version: u32) -> i32 {
    i32::try_from(version).unwrap_or(i32::MAX)
}

async fn insert_version(
    conn: &mut sqlx::PgConnection,
    tenant: TenantId,
    id: TemplateId,
    version: i32,
    new: &NewTemplateVersion,
    now: DateTime<Utc>,
) -> Result<(), StoreError> {
    let mut contents: Vec<&TemplateContent> =
        new.content.iter().chain(new.translations.iter().map(|(_, content)| content)).collect();
    contents.sort_by_key(|content| content.id);
    contents.dedup_by_key(|content| content.id);
    sqlx::query!(
        "insert into mailfleet.contents (content_id, tenant_id, kind, body, created_at)
         select id, $1, $2, body, $5 from unnest($3::uuid[], $4::bytea[]) as c(id, body)
         on conflict do nothing",
        tenant.as_uuid(),
        ContentKind::Template.code(),
        &contents.iter().map(|content| content.id.as_uuid()).collect::<Vec<_>>(),
        &contents.iter().map(|content| content.body.clone()).collect::<Vec<_>>(),
        now,
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "insert into mailfleet.template_versions (template_id, version, content_id, created_at, source, report, rules)
         values ($1, $2, $3, $4, $5, $6, $7)",
        id.as_uuid(),
        version,
        new.content.as_ref().map(|content| content.id.as_uuid()),
        now,
        &new.source,
        &new.report,
        new.rules.as_deref(),
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "insert into mailfleet.template_translations (template_id, version, language, content_id)
         select $1, $2, language, content from unnest($3::text[], $4::uuid[]) as t(language, content)",
        id.as_uuid(),
        version,
        &new.translations.iter().map(|(language, _)| language.clone()).collect::<Vec<_>>(),
        &new.translations.iter().map(|(_, content)| content.id.as_uuid()).collect::<Vec<_>>(),
    )
    .execute(conn)
    .await?;
    Ok(())
}
