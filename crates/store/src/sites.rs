//! The destination sites behind recipient domains.

use crate::{Store, StoreError, call};
use chrono::{DateTime, Utc};
use domain::{
    Closing, DomainName, SiteId,
    fact::{FactKind, word},
};
use std::collections::HashMap;

/// How often something happened at a site by a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteEvents {
    /// The route; empty before one was taken.
    pub route: String,
    /// The word of the event.
    pub event: &'static str,
    /// How often.
    pub count: i64,
}

impl Store {
    /// What the last hour has brought at a site, by route and event.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn site_hour(&self, site: &SiteId) -> Result<Vec<SiteEvents>, StoreError> {
        let rows = call!(self, conn => {
            sqlx::query!(
                r#"select route, kind, closing, sum(events)::bigint as "count!" from mailfleet.rollup_minute
                   where bucket > mailfleet.clock() - interval '1 hour' and site = $1
                   group by route, kind, closing
                   order by route, kind, closing"#,
                site.as_str(),
            )
            .fetch_all(conn)
            .await?
        })?;
        let event = rows.into_iter().filter_map(|row| {
            let kind = FactKind::from_code(row.kind)?;
            Some(SiteEvents { route: row.route, event: word(kind, Closing::from_code(row.closing)), count: row.count })
        });
        Ok(event.collect())
    }

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
