//! One content with its keys, ready to make mails.

use crate::{PressError, contents::Stock};
use bus::Job;
use content::{Envelope, RenderError, RenderRequest, Rendered, SigningKey};
use domain::Overrides;
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

impl Plate {
    pub(crate) fn new(stock: Arc<Stock>, keys: Arc<[SigningKey]>) -> Self {
        Self { stock, keys }
    }

    /// What the transaction of this job's mail says, if that mail is certainly above so many octets.
    pub fn envelope_above(&self, job: &Job, octets: usize) -> Option<Envelope> {
        let prepared = &self.stock.prepared;
        (prepared.least_octets() > octets).then(|| prepared.envelope(job.message, &job.recipient))
    }

    /// Renders the mail of this job, which is of this plate's content. Computes only.
    ///
    /// # Errors
    /// When the job's variables do not fit the content, a bound is passed, or rendering panics.
    pub fn render(&self, job: &Job) -> Result<Rendered, PressError> {
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
        Ok(rendered.map_err(|_| PressError::Panicked)??)
    }
}

impl std::fmt::Debug for Plate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plate").finish_non_exhaustive()
    }
}
