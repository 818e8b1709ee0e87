//! How a command fails: whose problem it is decides the exit status.

use std::process::ExitCode;

use zentra_admin::{AdminError, ErrorCode};
use zentra_config::ConfigError;
use zentra_core::printable::printable;
use zentra_sqlite::StoreError;

/// A failed command. Every message ends with what to do next.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A use case failed.
    Admin(AdminError),
    /// What was asked for can't be done: exit status 1.
    Asked(String),
    /// Zentra failed: exit status 2.
    Ours(String),
    /// The reader closed the output (`| head`). Not an error.
    Closed,
}

impl Failure {
    pub(crate) fn report(&self) -> ExitCode {
        let code = match self {
            Self::Admin(error) => exit_status(error.code),
            Self::Asked(_) => 1,
            Self::Ours(_) => 2,
            Self::Closed => return ExitCode::SUCCESS,
        };
        eprintln!("zentra: {}", printable(&self.text()));
        ExitCode::from(code)
    }

    /// What went wrong, and what to do.
    fn text(&self) -> String {
        match self {
            Self::Admin(error) => match hint(error) {
                Some(hint) => format!("{}\n{hint}", error.message),
                None => error.text(),
            },
            Self::Asked(text) | Self::Ours(text) => text.clone(),
            Self::Closed => "the output is closed".into(),
        }
    }
}

/// The exit status of a code: 1 for what was asked for, 2 for what Zentra, RabbitMQ, Redis or a provider failed at.
pub(crate) fn exit_status(code: ErrorCode) -> u8 {
    if code.is_ours() { 2 } else { 1 }
}

/// What to do next on the command line, where that differs from the error's own hint.
fn hint(error: &AdminError) -> Option<String> {
    use ErrorCode as Code;
    let about = error.about.as_deref().unwrap_or("ID");
    Some(match error.code {
        Code::InvalidCursor => "Omit --cursor to begin again.".into(),
        Code::NothingSelected => "Give IDs, or select by --destination, --source, --reason, --type, \
                                  --older-than, --newer-than, or --all."
            .into(),
        Code::NothingMatches if error.about.is_some() => {
            format!("Job {about} holds dead letters of its destination: see zentra job show {about}.")
        }
        Code::NothingMatches => "See zentra dead list, or zentra archive list; delivered events are \
                                 replayed only with --force."
            .into(),
        Code::EventNotFound => {
            "Give a provider's event ID, or a delivery key (destination/source/id). Refused callbacks are \
             in zentra refused list. With RabbitMQ, work queues are not searched (zentra status counts \
             their messages), and events that it dead-lettered itself are requeued by zentra dead requeue \
             --reason crashed."
                .into()
        }
        Code::ArchivedEventNotFound => "See zentra archive list.".into(),
        Code::RefusedCallbackNotFound => "See zentra refused list.".into(),
        Code::JobNotFound => "See zentra job list.".into(),
        Code::JobBusy => format!("See zentra job show {about}; pause it with zentra job pause {about}."),
        Code::JobStopped => format!(
            "See zentra event list --state dead, fix the cause, and continue with zentra job run {about}."
        ),
        Code::TokenNotFound => "See zentra token list for the IDs.".into(),
        Code::TokenNameTaken => {
            format!("Choose another name, or revoke it: zentra token revoke {about}.")
        }
        Code::NotDead | Code::NotWaiting => format!("See zentra event show {about}."),
        Code::ReleaseRequired => format!(
            "If it is genuine, release it with zentra event release {about} --because …"
        ),
        Code::ReleaseNotApplicable => format!("Use zentra dead requeue {about}."),
        Code::InvalidList => format!(
            "{} For CSV use --format csv. --id names the field with the event's ID.",
            error.hint.as_deref().unwrap_or_default()
        ),
        Code::ListTooLong => "Narrow the time with --since, or raise --limit.".into(),
        Code::ProviderApiUnknown => "Export its list of events, and give it with --list.".into(),
        Code::ReconcileFindings => "Ingest missing events with --ingest; see zentra event show ID for \
                                    the others."
            .into(),
        _ => return None,
    })
}

impl From<AdminError> for Failure {
    fn from(error: AdminError) -> Self {
        Self::Admin(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Admin(error.into())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Admin(error.into())
    }
}

impl From<zentra_store::journal::JournalError> for Failure {
    fn from(error: zentra_store::journal::JournalError) -> Self {
        Self::Admin(error.into())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Ours(format!("cannot write the output: {error}\nIs the disk full?")),
        }
    }
}
