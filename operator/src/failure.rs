//! How a command fails: whose problem it is decides the exit status.

use std::process::ExitCode;

use zentra_shared::config::ConfigError;
use zentra_shared::journal::JournalError;
use zentra_shared::printable::printable;
use zentra_shared::queue::QueueError;
use zentra_shared::seal::SealError;

/// A failed command. Every message ends with what to do next.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was asked for can't be done: exit status 1.
    Asked(String),
    /// RabbitMQ, Redis or we ourselves failed: exit status 2.
    Ours(String),
    /// Whoever read the output has had enough (`| head`): no failure.
    Closed,
}

impl Failure {
    pub(crate) fn report(&self) -> ExitCode {
        let code = match self {
            Self::Asked(_) => 1,
            Self::Ours(_) => 2,
            Self::Closed => return ExitCode::SUCCESS,
        };
        eprintln!("zentra: {}", printable(self.text()));
        ExitCode::from(code)
    }

    /// Whether it may succeed by and by.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Ours(_))
    }

    /// What went wrong, and what to do.
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::Asked(text) | Self::Ours(text) => text,
            Self::Closed => "the output is closed",
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Asked(error.to_string())
    }
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Self {
        if let JournalError::Store(error) = error {
            return error.into();
        }
        Self::Ours(format!("{error}\nCheck [redis] url, and that Redis runs."))
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        if let QueueError::Missing(_) = error {
            return Self::Asked(format!(
                "{error}\nCheck the namespace; a destination's queues are there once a worker has \
                 run with it."
            ));
        }
        if let QueueError::Store(error) = error {
            return error.into();
        }
        if let QueueError::Blocked = error {
            return Self::Ours(format!(
                "{error}\n`rabbitmqctl status` names the alarm: give RabbitMQ memory \
                 or disk, and try again."
            ));
        }
        Self::Ours(format!("{error}\nCheck [rabbitmq] urls, and that RabbitMQ runs."))
    }
}

impl From<SealError> for Failure {
    fn from(error: SealError) -> Self {
        Self::Ours(format!("the message can't be sealed: {error}\nCheck [seal] keys."))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Ours(format!("the output can't be written: {error}\nIs the disk full?")),
        }
    }
}
