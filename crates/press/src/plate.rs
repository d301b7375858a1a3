//! One content with its keys, ready to make mails.

use crate::{PressError, contents::Stock};
use bus::Job;
use bytes::Bytes;
use content::{RenderError, RenderRequest, SigningKey};
use domain::{EnvelopeSender, Overrides};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// What the mails of one content have in common. Cheap to clone.
#[derive(Clone)]
pub struct Plate {
    stock: Arc<Stock>,
    keys: Arc<[SigningKey]>,
}

/// One finished mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pressed {
    /// MAIL FROM.
    pub sender: EnvelopeSender,
    /// The signed mail, its lines ended by CRLF.
    pub mime: Bytes,
    /// Whether the transaction needs SMTPUTF8.
    pub smtputf8: bool,
    /// Whether the transaction needs 8BITMIME; only raw mail ever does.
    pub eight_bit: bool,
    /// Whether it is only tried, and to be sent to nobody.
    pub sandbox: bool,
}

impl Plate {
    pub(crate) fn new(stock: Arc<Stock>, keys: Arc<[SigningKey]>) -> Self {
        Self { stock, keys }
    }

    /// Renders the mail of this job, which is of this plate's content. Computes only.
    ///
    /// # Errors
    /// When the job's variables do not fit the content, a bound is passed, or rendering panics.
    pub fn render(&self, job: &Job) -> Result<Pressed, PressError> {
        // Nothing here is changed by rendering, so nothing is left half done by a panic.
        let rendered = catch_unwind(AssertUnwindSafe(|| {
            let variables =
                str::from_utf8(&job.variables).map_err(|_| RenderError::Variables("are not UTF-8".to_owned()))?;
            let overrides: Option<Overrides> = match &job.overrides[..] {
                [] => None,
                json => Some(
                    serde_json::from_slice(json)
                        .map_err(|_| RenderError::Variables("beside those of the mail cannot be read".to_owned()))?,
                ),
            };
            self.stock.prepared.render(RenderRequest {
                message_id: job.message,
                tenant: job.tenant,
                campaign: job.campaign,
                recipient: &job.recipient,
                variables,
                overrides: overrides.as_ref(),
                keys: &self.keys,
            })
        }));
        let rendered = rendered.map_err(|_| PressError::Panicked)??;
        Ok(Pressed {
            sender: rendered.envelope_sender,
            mime: rendered.mime,
            smtputf8: rendered.smtputf8,
            eight_bit: rendered.eight_bit,
            sandbox: rendered.sandbox,
        })
    }
}

impl std::fmt::Debug for Plate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plate").finish_non_exhaustive()
    }
}
