//! The one form of a list.

use serde::Serialize;
use utoipa::ToSchema;
use zentra_store::journal::list::Page;

use crate::delivery::Listed;

/// A list, or a page of one.
#[derive(Serialize, ToSchema)]
pub(crate) struct List<T> {
    pub(crate) items: Vec<T>,
    /// Cursor of the next page; null at the end, and for lists without pages.
    pub(crate) next: Option<String>,
}

impl<D, T: From<D>> From<Vec<D>> for List<T> {
    fn from(items: Vec<D>) -> Self {
        Self { items: items.into_iter().map(T::from).collect(), next: None }
    }
}

impl From<Page> for List<Listed> {
    fn from(page: Page) -> Self {
        Self { items: page.items.into_iter().map(Listed::from).collect(), next: page.next }
    }
}
