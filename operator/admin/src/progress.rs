//! How far a long use case is, for whoever waits.

/// Shows progress, in a few words, from time to time.
pub trait Progress: Send + Sync {
    /// Shows it.
    fn show(&self, text: String);

    /// It is over; others may write where it was shown.
    fn done(&self) {}
}

/// Nobody waits.
impl Progress for () {
    fn show(&self, _: String) {}
}
