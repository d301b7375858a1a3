//! `ListMessages`: filters, and places in it.

use crate::{
    Fault,
    cursor::{self, List},
    message,
    validate::{Faults, campaign, email, tag, timestamp},
};
use domain::TenantId;
use proto::v1::{ListMessagesRequest, ListMessagesResponse, MessageState};
use store::{ListFilter, ListPosition, Store};

/// Most messages of a page.
pub const MAX_PAGE: u32 = 500;

/// One page of a tenant's messages.
pub async fn page(store: &Store, tenant: TenantId, given: &ListMessagesRequest) -> Result<ListMessagesResponse, Fault> {
    let mut faults = Faults::default();
    let limit = faults.take(cursor::size(given.page_size, MAX_PAGE));
    let filter = filter(&mut faults, given);
    let filters = ListMessagesRequest { page_size: 0, page_token: String::new(), ..given.clone() };
    let list = List::of("messages", Some(tenant), &filters);
    let after = faults.take(list.place(&given.page_token, place));
    let ((filter, after), limit) = faults.finish(filter.zip(after).zip(limit))?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let (found, next) = store.list_messages(tenant, &filter, after, limit).await?;
    Ok(ListMessagesResponse {
        messages: found.into_iter().map(message::summary).collect(),
        next_page_token: next.map_or_else(String::new, |next| list.token(&parts(next))),
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

fn place(parts: &[&str]) -> Option<ListPosition> {
    let [batch, next] = parts else { return None };
    Some(ListPosition { batch: batch.parse().ok()?, next: next.parse().ok()? })
}

fn parts(next: ListPosition) -> [String; 2] {
    [next.batch.to_string(), next.next.to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::BatchId;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        let at = ListPosition { batch: BatchId::new(chrono::DateTime::UNIX_EPOCH), next: 17 };
        let written = parts(at);
        assert_eq!(place(&[&written[0], &written[1]]), Some(at));
        for bad in [&["x", "1"][..], &[written[0].as_str(), "-1"], &[written[0].as_str()], &[]] {
            assert_eq!(place(bad), None, "{bad:?}");
        }
    }
}
