//! `ListMessages`: filters, pages and their tokens.

use crate::{
    Fault, message,
    validate::{Faults, Violation, campaign, email, tag, timestamp},
};
use domain::TenantId;
use prost::Message;
use proto::v1::{ErrorReason, ListMessagesRequest, ListMessagesResponse, MessageState};
use sha2::{Digest, Sha256};
use store::{ListFilter, ListPosition, Store};

/// Messages of a page when the call does not say.
const DEFAULT_PAGE: u32 = 100;
/// Most messages of a page.
const MAX_PAGE: u32 = 500;
/// Digits of a token: call, position, digest of the filters.
const TOKEN: usize = 32 + 8 + 16;

/// One page of a tenant's messages.
pub async fn page(store: &Store, tenant: TenantId, given: &ListMessagesRequest) -> Result<ListMessagesResponse, Fault> {
    let mut faults = Faults::default();
    let limit = match given.page_size {
        0 => DEFAULT_PAGE,
        size @ 1..=MAX_PAGE => size,
        _ => {
            faults.add("page_size", format!("is too large; give at most {MAX_PAGE}"));
            MAX_PAGE
        }
    };
    let filter = filter(&mut faults, given);
    let digest = digest(tenant, given);
    let after = faults.take(position(&given.page_token, &digest));
    let (filter, after) = faults.finish(filter.zip(after))?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (found, next) = store.list_messages(tenant, &filter, after, limit).await?;
    Ok(ListMessagesResponse {
        messages: found.into_iter().map(message::summary).collect(),
        next_page_token: next.map_or_else(String::new, |next| token(next, &digest)),
    })
}

fn filter(faults: &mut Faults, given: &ListMessagesRequest) -> Option<ListFilter> {
    let mut time = |field, given: &Option<prost_types::Timestamp>| match given {
        Some(given) => faults.take(timestamp(field, given)).map(Some),
        None => Some(None),
    };
    let from = time("accepted_from", &given.accepted_from);
    let before = time("accepted_before", &given.accepted_before);
    let recipient = match given.recipient.as_str() {
        "" => Some(None),
        text => faults.take(email("recipient", text)).map(Some),
    };
    let place = match MessageState::try_from(given.state) {
        Ok(state) => Some(message::place(state)),
        Err(_) => {
            faults.add("state", "is not known; give one of MessageState, or none");
            None
        }
    };
    let campaign = faults.take(campaign("campaign_id", &given.campaign_id));
    let tag = faults.take(tag("tag", &given.tag));
    Some(ListFilter {
        campaign: campaign?,
        tag: tag?,
        recipient: recipient?,
        from: from?,
        before: before?,
        place: place?,
    })
}

/// What binds a token to its list: whose it is, and its filters.
fn digest(tenant: TenantId, given: &ListMessagesRequest) -> String {
    let filters = ListMessagesRequest { page_size: 0, page_token: String::new(), ..given.clone() };
    let mut hash = Sha256::new();
    hash.update(tenant.as_uuid().as_bytes());
    hash.update(filters.encode_to_vec());
    hash.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn token(position: ListPosition, digest: &str) -> String {
    format!("{}{:08x}{digest}", position.batch.as_uuid().simple(), position.next)
}

fn position(token: &str, digest: &str) -> Result<Option<ListPosition>, Violation> {
    if token.is_empty() {
        return Ok(None);
    }
    let read = || {
        let is_hex = token.len() == TOKEN && token.bytes().all(|byte| byte.is_ascii_hexdigit());
        let token = Some(token).filter(|_| is_hex)?.strip_suffix(digest)?;
        let (batch, next) = token.split_at(32);
        Some(ListPosition { batch: batch.parse().ok()?, next: u32::from_str_radix(next, 16).ok()? })
    };
    read().map(Some).ok_or_else(|| {
        let text = "is no token of a list with these filters; give next_page_token of the page before, or none";
        Violation::of(ErrorReason::PageTokenInvalid, "page_token", text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::BatchId;

    #[test]
    fn a_token_is_good_for_its_own_list_alone() {
        let tenant = TenantId::new(chrono::DateTime::UNIX_EPOCH);
        let request = |tag: &str| ListMessagesRequest { tag: tag.to_owned(), page_size: 7, ..Default::default() };
        let own = digest(tenant, &request("a"));
        let at = ListPosition { batch: BatchId::new(chrono::DateTime::UNIX_EPOCH), next: 17 };
        let token = token(at, &own);
        assert_eq!(position(&token, &own), Ok(Some(at)));
        let larger = ListMessagesRequest { page_size: 9, page_token: token.clone(), ..request("a") };
        assert_eq!(digest(tenant, &larger), own, "the size of a page may change");
        let other = digest(TenantId::new(chrono::DateTime::UNIX_EPOCH), &request("a"));
        for wrong in [digest(tenant, &request("b")), other] {
            assert_eq!(position(&token, &wrong).expect_err("another list").reason, ErrorReason::PageTokenInvalid);
        }
        for bad in ["x", &token[1..], &token.replace(&token[..1], "\u{e4}"), &format!("{token}0")] {
            assert!(position(bad, &own).is_err(), "{bad}");
        }
    }
}
