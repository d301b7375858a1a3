//! The DMARC record that counts for a domain.

use crate::{Dns, NoAnswer};
use domain::DomainName;

/// Most domains above the sender's that are asked for a DMARC record (RFC 9989, the tree walk).
const MOST_PARENTS: usize = 8;

/// What is published for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The name of the record, and its text.
    One(String, String),
    /// A name with more than one record, and their count: receivers act as if there were none.
    Several(String, usize),
    /// Nothing, there or above.
    None,
}

/// The DMARC record of the domain, or of the nearest domain above it that has one.
///
/// # Errors
/// When DNS does not answer.
pub async fn policy(dns: &Dns, domain: &DomainName) -> Result<Policy, NoAnswer> {
    let mut domain = domain.as_str();
    for _ in 0..MOST_PARENTS {
        let name = format!("_dmarc.{domain}");
        let mut texts = dns.txt(&name).await?;
        texts.retain(|text| text.split(';').next().is_some_and(|version| version.trim() == "v=DMARC1"));
        match (texts.len(), texts.pop()) {
            (1, Some(text)) => return Ok(Policy::One(name, text)),
            (0, _) | (_, None) => {}
            (count, _) => return Ok(Policy::Several(name, count)),
        }
        match domain.split_once('.') {
            Some((_, parent)) if parent.contains('.') => domain = parent,
            _ => break,
        }
    }
    Ok(Policy::None)
}
