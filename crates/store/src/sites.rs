//! The destination sites behind recipient domains.

use crate::{Store, StoreError, call};
use chrono::{DateTime, Utc};
use domain::{DomainName, SiteId};
use std::collections::HashMap;

impl Store {
    /// The learned sites of these domains; what is unknown or out of date is absent.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn sites(&self, domains: &[String]) -> Result<HashMap<String, SiteId>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                "select domain, site from mailfleet.sites where domain = any ($1) and expires_at > mailfleet.clock()",
                domains
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(rows.into_iter().map(|row| (row.domain, SiteId::from_stored(row.site))).collect())
    }

    /// Keeps what an MX look-up taught.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn learn_site(
        &self,
        domain: &DomainName,
        site: &SiteId,
        expires_at: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        call!(self, conn => {
            sqlx::query!(
                "insert into mailfleet.sites (domain, site, expires_at) values ($1, $2, $3)
                 on conflict (domain) do update set site = excluded.site, expires_at = excluded.expires_at",
                domain.as_str(),
                site.as_str(),
                expires_at,
            )
            .execute(conn)
            .await?;
        })
    }
}
