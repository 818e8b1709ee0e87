//! The one form of a list, in JSON for people and programs.

use serde::Serialize;
use utoipa::ToSchema;

/// A list, or a page of one.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    pub items: Vec<T>,
    /// Where the next page begins, for the parameter `cursor`; null at the end, and where there are no
    /// pages.
    pub next: Option<String>,
}

impl<T> From<Vec<T>> for List<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}
