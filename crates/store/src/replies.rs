//! The replies that the log keeps: what rules are tried on.

use crate::{Store, StoreError, transaction};
use chrono::{DateTime, Utc};
use domain::{BounceClass, Closing, SiteId};

/// A look: index scans alone, whatever was planned while a table was empty.
const LOOK: &str = "begin read only; set local enable_seqscan = off";

/// A reply that put a message off or ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredReply {
    /// Its place in the log.
    pub seq: i64,
    /// Whose it was.
    pub site: SiteId,
    /// The three digits.
    pub code: u16,
    /// The enhanced status, if there was one, and the words.
    pub words: String,
    /// The class that it was given; `None` when there was none, or one that is not known any more.
    pub class: Option<BounceClass>,
    /// Whether it ended the message.
    pub has_bounced: bool,
}

/// A stretch of the log.
#[derive(Clone, Debug)]
pub struct ReplyPage {
    /// The refusals in it, in order.
    pub replies: Vec<StoredReply>,
    /// Everything up to here has been looked at.
    pub upto: i64,
    /// Where the log ended at the time of the look.
    pub head: i64,
}

impl Store {
    /// A place of the log before everything that happened since `since`, and not long before.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn log_place(&self, since: DateTime<Utc>) -> Result<i64, StoreError> {
        let (first, last) = self.log_range().await?;
        let (mut low, mut high) = (first - 1, last);
        // Entries are numbered as they are folded, nearly in the order of their times.
        while low < high {
            let middle = low + (high - low) / 2;
            let at = transaction!(self, LOOK, conn => {
                sqlx::query_scalar!(
                    r#"select at as "at!" from mailfleet.message_events where seq > $1 order by seq limit 1"#,
                    middle
                )
                .fetch_optional(&mut *conn)
                .await?
            })?;
            if at.is_some_and(|at| at < since) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The refusals (4yz and 5yz) among the `window` entries after `after`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn replies(&self, after: i64, window: u32) -> Result<ReplyPage, StoreError> {
        let (rows, upto, head) = transaction!(self, LOOK, conn => {
            let head = sqlx::query_scalar!("select seq from mailfleet.log_state").fetch_one(&mut *conn).await?;
            let upto = head.min(after.saturating_add(i64::from(window)));
            let rows = sqlx::query!(
                r#"select seq as "seq!", site as "site!", closing, (detail->>'code')::integer as "code!",
                          concat_ws(' ', detail->>'enhanced', detail->>'text') as "words!", detail->>'class' as class
                   from mailfleet.message_events
                   where seq > $1 and seq <= $2 and (detail->>'code')::integer >= 400
                   order by seq"#,
                after,
                upto,
            )
            .fetch_all(&mut *conn)
            .await?;
            (rows, upto, head)
        })?;
        let replies = rows.into_iter().map(|row| StoredReply {
            seq: row.seq,
            site: SiteId::from_stored(row.site),
            code: u16::try_from(row.code).unwrap_or(u16::MAX),
            words: row.words,
            class: row.class.and_then(|word| word.parse().ok()),
            has_bounced: row.closing.and_then(Closing::from_code) == Some(Closing::Bounced),
        });
        Ok(ReplyPage { replies: replies.collect(), upto: upto.max(after), head })
    }
}
