//! The mailfleet API for Rust services.
//!
//! [`Client`] is a connection with a key. [`Client::send`] and [`Client::send_batch`] give a call an idempotency key
//! unless it has one, and repeat it while that can help: a repeat is answered as the first was, so a lost answer never
//! becomes a second mail. [`Batcher`] takes single recipients from any number of tasks and sends them in batches.
//! Every service of the API is there as its generated client as well.
//!
//! ```no_run
//! # use mailfleet_client::{Batcher, BatcherConfig, Client, v1};
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("http://127.0.0.1:7025").key(&std::fs::read_to_string("key")?).connect().await?;
//! let mail = v1::Mail {
//!     from: Some(v1::Address { email: "hello@example.com".to_owned(), name: "The shop".to_owned() }),
//!     content: Some(v1::mail::Content::Template(v1::TemplateRef { template: "receipt".to_owned(), version: 0 })),
//!     ..Default::default()
//! };
//! let receipts = Batcher::new(client, mail, BatcherConfig::default());
//! let id = receipts
//!     .send(v1::Recipient {
//!         email: "ada@example.org".to_owned(),
//!         variables_json: r#"{"total":"12.50"}"#.to_owned(),
//!         ..Default::default()
//!     })
//!     .await?;
//! println!("accepted as {id}");
//! receipts.close().await;
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod batcher;
mod connection;
mod error;
mod retry;

pub use batcher::{Batcher, BatcherConfig};
pub use connection::{Builder, Client, Guarded};
pub use error::{BuildError, Error, FieldFault, Refused};
pub use proto::v1;
pub use retry::{Retry, retry_delay};
