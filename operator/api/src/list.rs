//! The one form of a list.

use serde::Serialize;
use utoipa::ToSchema;
use zentra_store::journal::list::Page;
use zentra_store::stored::Listing;

use crate::delivery::Listed;

/// A list, or a page of one.
#[derive(Serialize, ToSchema)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
    /// Cursor of the next page; null at the end, and for lists without pages.
    pub(crate) next: Option<String>,
    /// Names of entries that a newer version of Zentra wrote. This one cannot show them. Absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unreadable: Vec<String>,
}

impl<D, T: From<D>> From<Vec<D>> for List<T> {
    fn from(items: Vec<D>) -> Self {
        Self::from(Listing { items, newer: Vec::new() })
    }
}

impl<D, T: From<D>> From<Listing<D>> for List<T> {
    fn from(listing: Listing<D>) -> Self {
        let items = listing.items.into_iter().map(T::from).collect();
        Self { items, next: None, unreadable: listing.newer }
    }
}

impl From<Page> for List<Listed> {
    fn from(page: Page) -> Self {
        Self { next: page.next, ..Self::from(page.items) }
    }
}
