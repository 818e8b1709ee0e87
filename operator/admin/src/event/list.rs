//! Lists of deliveries, newest first.

use zentra_store::journal::DeliveryStore;
use zentra_store::journal::list::{Listed, Page, Query};

use crate::deliveries;
use crate::error::AdminError;

/// Those that the query takes, at most `limit`, from a cursor on.
///
/// # Errors
/// [`crate::ErrorCode::InvalidCursor`], and those of the store.
pub async fn list(
    histories: &impl DeliveryStore,
    query: &Query,
    mut cursor: Option<String>,
    limit: usize,
) -> Result<Page, AdminError> {
    let mut all = Page::default();
    loop {
        let left = limit - all.items.len();
        let page = histories.list(query, cursor.as_deref(), left).await?;
        all.items.extend(page.items);
        all.next = page.next;
        if all.items.len() >= limit || all.next.is_none() {
            return Ok(all);
        }
        cursor.clone_from(&all.next);
    }
}

/// Of one event's deliveries, those that the query takes.
///
/// # Errors
/// Those of the store.
pub async fn of_event(
    histories: &impl DeliveryStore,
    pairs: &[(&str, &str)],
    query: &Query,
    id: &str,
) -> Result<Page, AdminError> {
    let found = deliveries::known(histories, pairs, id).await?.into_iter();
    let listed = found.map(|delivery| {
        let first_claimed_at = delivery.history.first().map(|entry| entry.at).unwrap_or_default();
        Listed { first_claimed_at, delivery }
    });
    Ok(Page { items: listed.filter(|listed| query.takes(listed)).collect(), next: None })
}
