//! The one form of a list in JSON.

use serde::Serialize;
use zentra_store::stored::Listing;

/// A list, or a page of one.
#[derive(Debug, Serialize)]
pub struct List<T> {
    pub items: Vec<T>,
    /// Cursor of the next page; null at the end, and for lists without pages.
    pub next: Option<String>,
    /// Names of entries that a newer version of Zentra wrote.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
}

impl<T> From<Vec<T>> for List<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items, next: None, unreadable: Vec::new() }
    }
}

impl<T> From<Listing<T>> for List<T> {
    fn from(listing: Listing<T>) -> Self {
        Self { items: listing.items, next: None, unreadable: listing.newer }
    }
}
