//! What the start of a program with a configuration changes at the backend.

use serde::Serialize;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What happens.
    pub action: Action,
    /// The object, such as `queue zentra.work.ledger`.
    pub object: String,
    /// More about it; empty if there is nothing to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// What happens to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is created.
    Create,
    /// It is bound.
    Bind,
    /// It is unbound.
    Unbind,
    /// It is brought to a newer form.
    Upgrade,
    /// Nothing uses it any more. It stays, with its messages.
    Keep,
    /// It exists in another form, so a start fails.
    Conflict,
}

impl Action {
    /// Stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Bind => "bind",
            Self::Unbind => "unbind",
            Self::Upgrade => "upgrade",
            Self::Keep => "keep",
            Self::Conflict => "conflict",
        }
    }
}
