//! Progress of a long use case.

/// Receives progress from time to time.
pub trait Progress: Send + Sync {
    /// Shows a few words.
    fn show(&self, text: String);

    /// Called at the end.
    fn done(&self) {}
}

/// No progress is shown.
impl Progress for () {
    fn show(&self, _: String) {}
}
