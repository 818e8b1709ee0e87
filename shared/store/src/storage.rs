//! Errors of any storage.

/// A failed write or read. It had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// The storage can't be used: what is wrong, and what to do.
    #[error("{0}")]
    Unusable(String),
    /// The storage has reached its maximum size.
    #[error("the file has reached its bound ([embedded] max_size)")]
    Full,
    /// The disk is full, or has only the reserve to finish accepted events.
    #[error("the disk is full, or has less than 64 MiB free")]
    DiskFull,
    /// Too many writes are waiting.
    #[error("too many writes are waiting for the disk")]
    Overloaded,
    /// The program is stopping.
    #[error("the file is closed")]
    Closed,
    /// Another error of the storage.
    #[error("cannot read or write the file: {0}")]
    Failed(String),
}
