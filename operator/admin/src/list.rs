//! The one form of a list in JSON.

use serde::Serialize;

/// A list, or a page of one.
#[derive(Debug, Serialize)]
pub struct List<T> {
    pub items: Vec<T>,
    /// Cursor of the next page; null at the end, and for lists without pages.
    pub next: Option<String>,
}

impl<T> From<Vec<T>> for List<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}
