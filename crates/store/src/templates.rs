//! Templates: names over immutable, published versions.

use crate::{PLAIN, Store, StoreError, call, contents::ContentKind, transaction};
use chrono::{DateTime, Utc};
use domain::{ContentId, TemplateId, TenantId};

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
        call!(self, conn => {
            sqlx::query!(
                "insert into mailfleet.templates (template_id, tenant_id, name, created_at) values ($1, $2, $3, $4)",
                id.as_uuid(),
                tenant.as_uuid(),
                name,
                now,
            )
            .execute(conn)
            .await
            .map_err(|error| StoreError::or_exists(error, "a template of this name"))?;
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
        content: ContentId,
        body: &[u8],
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
                sqlx::query!(
                    "insert into mailfleet.contents (content_id, tenant_id, kind, body, created_at)
                     values ($1, $2, $3, $4, $5) on conflict do nothing",
                    content.as_uuid(),
                    tenant.as_uuid(),
                    ContentKind::Template.code(),
                    body,
                    now,
                )
                .execute(&mut *conn)
                .await?;
                let latest = sqlx::query!(
                    "select version, content_id from mailfleet.template_versions
                     where template_id = $1 order by version desc limit 1",
                    id.as_uuid()
                )
                .fetch_optional(&mut *conn)
                .await?;
                match latest {
                    Some(latest) if latest.content_id == content.as_uuid() => Some(latest.version),
                    latest => {
                        let version = latest.map_or(1, |latest| latest.version + 1);
                        sqlx::query!(
                            "insert into mailfleet.template_versions (template_id, version, content_id, created_at)
                             values ($1, $2, $3, $4)",
                            id.as_uuid(),
                            version,
                            content.as_uuid(),
                            now,
                        )
                        .execute(&mut *conn)
                        .await?;
                        Some(version)
                    }
                }
            }
        })?;
        Ok(version.and_then(|version| u32::try_from(version).ok()))
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
        Ok(row.map(|row| Template {
            id: TemplateId::from_uuid(row.template_id),
            name: row.name,
            created_at: row.created_at,
            latest: u32::try_from(row.latest).unwrap_or(0),
        }))
    }

    /// The content of a version (0: the newest published one) of a tenant's template, with its number.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn template_version(
        &self,
        tenant: TenantId,
        id: TemplateId,
        version: u32,
    ) -> Result<Option<(u32, ContentId)>, StoreError> {
        let row = call!(self, conn => {
            sqlx::query!(
                "select v.version, v.content_id from mailfleet.templates t
                 join mailfleet.template_versions v using (template_id)
                 where t.tenant_id = $1 and t.template_id = $2 and ($3 = 0 or v.version = $3)
                 order by v.version desc limit 1",
                tenant.as_uuid(),
                id.as_uuid(),
                i32::try_from(version).unwrap_or(i32::MAX),
            )
            .fetch_optional(conn)
            .await?
        })?;
        Ok(row.map(|row| (u32::try_from(row.version).unwrap_or(0), ContentId::from_uuid(row.content_id))))
    }
}
