//! The actor of an action, and audit entries around it.

use std::future::Future;

use zentra_core::clock;
use zentra_store::control::{Attribution, AuditEntry, OperatorControl};

use crate::error::{AdminError, ErrorCode};

/// Maximum length of a reason in bytes. Each letter's history has it.
pub const MAX_REASON: usize = 1000;

/// The actor of an action, and the reason.
#[derive(Clone, Debug, Default)]
pub struct Actor {
    /// Name of a person or program, for the audit log.
    pub name: String,
    /// Reason; can be empty.
    pub reason: String,
}

impl Actor {
    /// The attribution with the current time.
    pub fn attribution(&self) -> Attribution {
        Attribution { by: self.name.clone(), at: clock::now(), because: self.reason.clone() }
    }
}

/// Checks a reason: at most [`MAX_REASON`] bytes, and no control characters.
///
/// # Errors
/// [`ErrorCode::InvalidRequest`].
pub fn reason(text: &str) -> Result<String, AdminError> {
    let invalid = |message: String| Err(AdminError::new(ErrorCode::InvalidRequest, message));
    match text.len() {
        _ if text.chars().any(char::is_control) => {
            invalid("the reason has control characters".into())
        }
        0..=MAX_REASON => Ok(text.to_owned()),
        length => invalid(format!("the reason has {length} bytes; the maximum is {MAX_REASON}")),
    }
}

/// Audits a look before anything is shown.
///
/// # Errors
/// Errors of the store. What can't be audited isn't shown.
pub async fn looked(
    control: &impl OperatorControl,
    action: &str,
    on: &str,
    attribution: &Attribution,
) -> Result<(), AdminError> {
    let (action, on, result) = (action.to_owned(), on.to_owned(), String::new());
    Ok(control.audit(&AuditEntry { action, on, result, attribution: attribution.clone() }).await?)
}

/// An action with its audit entries.
pub struct Audited<'a, C> {
    /// `None` for a dry run.
    pub control: Option<&'a C>,
    /// The action, such as `dead requeue`.
    pub action: &'a str,
    /// The object of the action.
    pub on: String,
    /// Who, when and why.
    pub attribution: Attribution,
}

impl<C: OperatorControl> Audited<'_, C> {
    /// Does it between two entries: that it was asked for, and what came of it.
    ///
    /// # Errors
    /// Those of `deed`, and those of the store if the first entry can't be written: then nothing is done.
    pub async fn run<T>(
        self,
        deed: impl Future<Output = Result<T, AdminError>>,
        result: impl Fn(&T) -> String,
    ) -> Result<T, AdminError> {
        let Self { control, action, on, attribution } = self;
        let mut act = AuditEntry { action: action.into(), on, result: String::new(), attribution };
        let Some(control) = control else { return deed.await };
        control.audit(&act).await?;
        let done = deed.await;
        act.result = match &done {
            Ok(done) => result(done),
            Err(error) => format!("failed: {}", error.message.lines().next().unwrap_or("")),
        };
        act.attribution.at = clock::now();
        if let Err(error) = control.audit(&act).await {
            tracing::warn!(%error, result = act.result, "cannot write the result to the audit log");
        }
        done
    }
}
