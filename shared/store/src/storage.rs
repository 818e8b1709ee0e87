//! Why a storage did not do what was asked, whatever it is.

/// A failed write or read. Nothing of it has taken effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StorageError {
    /// It can't be used as it is: what is wrong, and what to do.
    #[error("{0}")]
    Unusable(String),
    /// It has reached its bound.
    #[error("the file has reached its bound ([embedded] max_size)")]
    Full,
    /// The disk has no room, or only what it takes to finish what has been accepted.
    #[error("the disk is full, or has less than 64 MiB left")]
    DiskFull,
    /// More writes wait than may.
    #[error("too many writes wait for the disk")]
    Overloaded,
    /// The program is stopping.
    #[error("the file is closed")]
    Closed,
    /// Anything else that the storage reports.
    #[error("the file can't be read or written: {0}")]
    Failed(String),
}
