//! Signed posts, as Standard Webhooks has them: the keys ([`SigningKey`], [`VerifyingKey`]), the signatures of our own
//! ([`outbound`]), and what verifying a post of anybody needs: how old it may be ([`Window`]), and fields that are there
//! once ([`header`]).
//!
//! Nothing here does I/O or reads a clock.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod keys;
mod url;

pub mod header;
pub mod outbound;
pub mod window;

pub use keys::{KeyError, SigningKey, VerifyingKey};
pub use url::{EndpointUrl, EndpointUrlError};
pub use window::{Untimely, Window};

/// The name under which a secret of an endpoint is sealed: only that one opens it.
pub fn secret_name(endpoint: &str, number: i32) -> Vec<u8> {
    format!("endpoint secret {endpoint} {number}").into_bytes()
}
