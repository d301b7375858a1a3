//! Contents: immutable, named by the hash of what they hold.

use crate::{Store, StoreError, call};
use domain::{ContentId, TenantId};
use uuid::Uuid;

/// What a content's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentKind {
    /// What an accepted call says of a mail.
    Mail,
    /// A compiled template version.
    Template,
    /// Raw MIME.
    Raw,
    /// A file that goes along with mails.
    Attachment,
}

impl ContentKind {
    /// The code in Postgres.
    pub const fn code(self) -> i16 {
        match self {
            Self::Mail => 1,
            Self::Template => 2,
            Self::Raw => 3,
            Self::Attachment => 4,
        }
    }

    const fn from_code(code: i16) -> Option<Self> {
        match code {
            1 => Some(Self::Mail),
            2 => Some(Self::Template),
            3 => Some(Self::Raw),
            4 => Some(Self::Attachment),
            _ => None,
        }
    }
}

/// A stored content.
#[derive(Clone, Debug)]
pub struct Content {
    /// Whose it is.
    pub tenant: TenantId,
    /// What the body is.
    pub kind: ContentKind,
    /// The body as it was stored.
    pub body: Vec<u8>,
}

impl Store {
    /// A content, or `None` when there is none of this name.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn content(&self, id: ContentId) -> Result<Option<Content>, StoreError> {
        let row = call!(self, conn => {
            sqlx::query!("select tenant_id, kind, body from mailfleet.contents where content_id = $1", id.as_uuid())
                .fetch_optional(conn)
                .await?
        })?;
        row.map(|row| {
            let kind = ContentKind::from_code(row.kind).ok_or_else(|| StoreError::Corrupt {
                table: "contents",
                column: "kind",
                id: id.to_string(),
            })?;
            Ok(Content { tenant: TenantId::from_uuid(row.tenant_id), kind, body: row.body })
        })
        .transpose()
    }

    /// How many octets these contents have, with what they bring along; those that are not stored are absent.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn content_sizes(&self, ids: &[ContentId]) -> Result<Vec<(ContentId, u64)>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(ContentId::as_uuid).collect();
        let rows = call!(self, conn => {
            sqlx::query!(
                r#"select content_id, octet_length(body) + carried as "size!" from mailfleet.contents
                   where content_id = any ($1)"#,
                &ids
            )
            .fetch_all(conn)
            .await?
        })?;
        Ok(rows
            .into_iter()
            .map(|row| (ContentId::from_uuid(row.content_id), u64::try_from(row.size).unwrap_or(0)))
            .collect())
    }
}
