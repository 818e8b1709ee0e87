//! Errors of use cases, as data. The command line turns a code into an exit status, the HTTP API
//! into an HTTP status; `docs/errors.md` lists both.

use serde::Serialize;
use zentra_config::ConfigError;

use zentra_core::seal::SealError;
use zentra_sqlite::StoreError;
use zentra_store::journal::JournalError;
use zentra_store::queue::QueueError;
use zentra_store::storage::StorageError;

/// A failed use case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct AdminError {
    /// Stable across versions.
    pub code: ErrorCode,
    /// What failed, and why. It names no command and no option.
    pub message: String,
    /// What to do next, for every caller.
    pub hint: Option<String>,
    /// The id, key or name that the request was about.
    pub about: Option<String>,
}

impl AdminError {
    /// An error without a hint.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, about: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// Adds what the request was about.
    #[must_use]
    pub fn about(self, id: impl Into<String>) -> Self {
        Self { about: Some(id.into()), ..self }
    }

    /// The message and the hint.
    pub fn text(&self) -> String {
        match &self.hint {
            Some(hint) => format!("{}\n{hint}", self.message),
            None => self.message.clone(),
        }
    }
}

/// Declares the codes: variant, name, and meaning for `docs/errors.md`.
macro_rules! codes {
    ($($variant:ident $name:literal $meaning:literal,)*) => {
        /// Why a use case failed. Names are stable: programs may compare them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode {
            $(#[doc = $meaning] $variant,)*
        }

        impl ErrorCode {
            /// All codes, as the table lists them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in answers, logs and documentation.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// One sentence for the table.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }
        }
    };
}

codes! {
    InvalidRequest "invalid_request" "The request is malformed, or a value is out of bounds.",
    PayloadTooLarge "payload_too_large" "The request's body is too large.",
    Unauthenticated "unauthenticated" "The request has no valid token.",
    RoleRequired "role_required" "The token's role does not allow the request.",
    PayloadsRequired "payloads_required" "The token does not allow payloads to be read.",
    AdmissionDisabled "admission_disabled" "The server has no access to the sources' secrets: it cannot explain or admit callbacks, or send test callbacks.",
    DestinationDenied "destination_denied" "The token is not for this destination.",
    RateLimited "rate_limited" "Too many requests by this token, or at the same time.",
    RouteNotFound "route_not_found" "The API has no such path.",
    MethodNotAllowed "method_not_allowed" "The path does not support this method.",
    Timeout "timeout" "The response took too long.",
    InvalidCursor "invalid_cursor" "The cursor does not belong to this list, or its page is gone.",
    NothingSelected "nothing_selected" "Neither ids nor a filter nor `all` select anything.",
    NothingMatches "nothing_matches" "The filter selects nothing.",
    EventNotFound "event_not_found" "No event has this id.",
    DeadLetterUnavailable "dead_letter_unavailable" "The dead letter is not in its queue: another operator may hold it.",
    ArchivedEventNotFound "archived_event_not_found" "The archive has no event of this id.",
    RefusedCallbackNotFound "refused_callback_not_found" "No refused callback of this id is kept.",
    NotAdmitted "not_admitted" "A refused callback still does not verify.",
    DestinationNotFound "destination_not_found" "The configuration has no destination of this name.",
    NotPulled "not_pulled" "No destination of this name has `pull = true`.",
    LeaseLost "lease_lost" "The lease of an event has ended: the event is retried, or was settled.",
    LeaseLimit "lease_limit" "A lease cannot be extended further.",
    SourceNotFound "source_not_found" "The configuration has no source of this name.",
    JobNotFound "job_not_found" "No job has this id.",
    JobBusy "job_busy" "Another job, or another runner of the job, holds the destination.",
    JobStopped "job_stopped" "The job stopped: too much failed.",
    IncidentNotFound "incident_not_found" "No incident has this id.",
    IncidentClosed "incident_closed" "The incident is closed.",
    IncidentChanged "incident_changed" "Others change the incident at the same time.",
    ReceiverNotFound "receiver_not_found" "The configuration has no receiver of notifications of this name.",
    ReceiverFailed "receiver_failed" "The receiver accepted no message, or did not answer.",
    TokenNotFound "token_not_found" "No token has this id.",
    TokenNameTaken "token_name_taken" "A valid token has this name.",
    AmbiguousId "ambiguous_id" "The id names deliveries to several destinations.",
    NotDead "not_dead" "The delivery is not dead.",
    NotWaiting "not_waiting" "The delivery does not wait for an attempt.",
    ReleaseRequired "release_required" "The delivery is a suspected replay or a conflict: only a release delivers it.",
    ReleaseNotApplicable "release_not_applicable" "The delivery is neither a suspected replay nor a conflict.",
    ArchiveDisabled "archive_disabled" "No source is archived.",
    PayloadNotArchived "payload_not_archived" "The event's bytes are only in the queue where it waits.",
    IngestImpossible "ingest_impossible" "A late callback of an ingested event could not be recognized as a copy.",
    InvalidList "invalid_list" "The provider's list cannot be read.",
    ListTooLong "list_too_long" "The provider's list has more events than the limit.",
    ProviderApiUnknown "provider_api_unknown" "Zentra does not know the provider's API.",
    ProviderApiDenied "provider_api_denied" "The provider's API refuses the token, or the token is missing.",
    ProviderApiFailed "provider_api_failed" "The provider's API failed or did not answer.",
    ReconcileFindings "reconcile_findings" "Events of the provider's list are missing, dead or different.",
    MigrationRefused "migration_refused" "The configuration cannot hold what the file has.",
    ConfigInvalid "config_invalid" "The configuration has errors.",
    FileUnusable "file_unusable" "A file cannot be read or written.",
    QueueNotDeclared "queue_not_declared" "RabbitMQ has no such queue: no worker has run with this configuration.",
    BrokerUnavailable "broker_unavailable" "RabbitMQ does not answer.",
    BrokerBlocked "broker_blocked" "RabbitMQ accepts no messages: memory or disk is short.",
    StoreUnavailable "store_unavailable" "Redis does not answer.",
    StorageUnusable "storage_unusable" "The embedded file cannot be used.",
    StorageFull "storage_full" "The embedded file is full.",
    StorageFailed "storage_failed" "The embedded file cannot be read or written.",
    SealFailed "seal_failed" "The message cannot be sealed.",
    Internal "internal" "Zentra failed.",
}

impl ErrorCode {
    /// Whether RabbitMQ, Redis, the file, a provider or Zentra itself failed, not the request. The same request
    /// may succeed later.
    pub fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Timeout
                | Self::ProviderApiFailed
                | Self::ReceiverFailed
                | Self::BrokerUnavailable
                | Self::BrokerBlocked
                | Self::StoreUnavailable
                | Self::StorageFull
                | Self::StorageFailed
                | Self::SealFailed
                | Self::Internal
        )
    }
}

impl From<ConfigError> for AdminError {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorCode::ConfigInvalid, error.to_string())
    }
}

impl From<JournalError> for AdminError {
    fn from(error: JournalError) -> Self {
        match error {
            JournalError::Storage(error) => error.into(),
            error @ JournalError::Unusable(_) => {
                Self::new(ErrorCode::StoreUnavailable, format!("{error}."))
            }
            error @ JournalError::NoSuchPage(_) => {
                Self::new(ErrorCode::InvalidCursor, format!("{error}."))
                    .hint("Begin again without a cursor.")
            }
            error => Self::new(ErrorCode::StoreUnavailable, error.to_string())
                .hint("Check [redis], and that Redis runs."),
        }
    }
}

impl From<QueueError> for AdminError {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Storage(error) => error.into(),
            error @ QueueError::Unusable(_) => {
                Self::new(ErrorCode::BrokerUnavailable, format!("{error}."))
            }
            error @ QueueError::Missing(_) => Self::new(
                ErrorCode::QueueNotDeclared,
                error.to_string(),
            )
            .hint(
                "Check the namespace. A destination's queues exist once a worker has run with it.",
            ),
            error @ QueueError::NoSuchPosition(_) => {
                Self::new(ErrorCode::InvalidCursor, format!("{error}."))
                    .hint("Begin again without a position.")
            }
            error @ QueueError::Blocked => Self::new(ErrorCode::BrokerBlocked, error.to_string())
                .hint("`rabbitmqctl status` shows the alarm: give RabbitMQ more memory or disk."),
            error => Self::new(ErrorCode::BrokerUnavailable, error.to_string())
                .hint("Check [rabbitmq] urls, and that RabbitMQ runs."),
        }
    }
}

impl From<StoreError> for AdminError {
    fn from(error: StoreError) -> Self {
        StorageError::from(error).into()
    }
}

impl From<StorageError> for AdminError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Unusable(_) => Self::new(ErrorCode::StorageUnusable, error.to_string()),
            StorageError::Full => Self::new(ErrorCode::StorageFull, format!("{error}."))
                .hint("Raise embedded.max_size, or drain dead letters."),
            error => Self::new(ErrorCode::StorageFailed, error.to_string())
                .hint("Check the disk, and whether another program uses the file."),
        }
    }
}

impl From<SealError> for AdminError {
    fn from(error: SealError) -> Self {
        Self::new(ErrorCode::SealFailed, format!("cannot seal the message: {error}"))
            .hint("Check [seal] keys.")
    }
}

impl From<std::io::Error> for AdminError {
    fn from(error: std::io::Error) -> Self {
        Self::new(ErrorCode::FileUnusable, format!("cannot write a file: {error}"))
            .hint("Check the disk.")
    }
}
