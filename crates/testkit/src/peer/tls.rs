//! Certificates that nobody should trust.

use super::{Certificate, PeerError};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use std::sync::Arc;

/// A server's side of TLS with such a certificate.
pub(super) fn server(kind: Certificate, hostname: &str) -> Result<Arc<ServerConfig>, PeerError> {
    let name = match kind {
        Certificate::SelfSigned | Certificate::Expired => hostname,
        Certificate::WrongName => "somebody-else.test",
    };
    let mut params = CertificateParams::new([name.to_owned()]).map_err(PeerError::Certificate)?;
    if kind == Certificate::Expired {
        (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
    }
    let key = KeyPair::generate().map_err(PeerError::Certificate)?;
    let certificate = params.self_signed(&key).map_err(PeerError::Certificate)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::from(key))
        })
        .map_err(PeerError::Tls)?;
    Ok(Arc::new(config))
}
