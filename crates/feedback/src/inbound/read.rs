//! Reads the mails that came in.

use super::Inbound;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(crate) async fn run(_inbound: Arc<Inbound>, token: CancellationToken) {
    token.cancelled().await;
}
