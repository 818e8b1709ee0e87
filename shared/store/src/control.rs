//! What workers and operators say to each other, through the journal's store: workers tell how they
//! do, operators what is to be done, and who did what is kept.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journal::JournalError;
use zentra_core::clock::Timestamp;
use zentra_core::printable::printable;

/// How often a worker tells how it does, and hears what is to be done.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// A worker that has told nothing for this long is away.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// So many acts are kept, the newest ones.
pub const AUDITED: usize = 100_000;

/// How a worker does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    /// Its name, as histories have it.
    pub worker: String,
    /// Its version.
    pub version: String,
    /// Since when it runs, by its own clock.
    pub started_at: Timestamp,
    /// What it does for each destination.
    pub destinations: BTreeMap<String, Work>,
}

/// What a worker does for one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Work {
    /// Attempts that run.
    pub in_flight: u64,
    /// Whether the destination is worth an attempt.
    pub circuit: Circuit,
    /// Whether it has heard that it is to pause.
    pub paused: bool,
}

/// How a circuit breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Circuit {
    /// All attempts go through.
    Closed,
    /// One at a time, to see whether it works again.
    HalfOpen,
    /// None.
    Open,
}

/// What operators want of one destination's workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DesiredState {
    /// No attempts until it is taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Attribution>,
    /// When they were last told to close the circuit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close: Option<Attribution>,
}

/// Who said something, when, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Attribution {
    /// Who.
    pub by: String,
    /// When, by his own clock.
    pub at: Timestamp,
    /// Why, in his words; empty if he gave none.
    pub because: String,
}

/// What can be wanted of a destination's workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlAction {
    /// That they make no attempts.
    Pause,
    /// That they try again now, though the circuit is open.
    Close,
}

impl ControlAction {
    /// Its stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Close => "close",
        }
    }
}

/// The wishes by destination.
pub type DesiredStates = BTreeMap<String, DesiredState>;

/// One act of an operator's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// What was asked for, as the command line has it: `destination pause`.
    pub action: String,
    /// On what: a destination, an event, a filter.
    pub on: String,
    /// What came of it; empty where that is told by the histories.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// Who, when and why.
    #[serde(flatten)]
    pub attribution: Attribution,
}

impl AuditEntry {
    /// Without control characters: much of it is what somebody else wrote, ids of events above all.
    pub fn printable(&self) -> Self {
        let Attribution { by, at, because } = &self.attribution;
        let attribution = Attribution { by: one_line(by), at: *at, because: one_line(because) };
        Self {
            action: one_line(&self.action),
            on: one_line(&self.on),
            result: one_line(&self.result),
            attribution,
        }
    }
}

fn one_line(text: &str) -> String {
    printable(text).replace('\n', "\\u000a")
}

/// Who may ask the operators' API, and for what. The token itself is known to nobody but its holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Names it; part of the token.
    pub id: String,
    /// Whose it is: whom the audit names.
    pub name: String,
    /// What its holder may do.
    pub role: Role,
    /// Whether he may see payloads.
    pub payloads: bool,
    /// SHA-256 of its secret, in hex. The secret has 256 random bits, so nothing slower is needed.
    pub digest: String,
    /// From then on it is good for nothing.
    pub expires_at: Timestamp,
    /// Who made it, when and why.
    pub made: Attribution,
}

/// What a token's holder may do; each may do what the one before may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look, but at no payload unless that is allowed besides.
    Viewer,
    /// Act.
    Operator,
    /// See the audit.
    Admin,
}

/// The worker's side.
pub trait WorkerControl: Clone + Send + Sync + 'static {
    /// A worker tells how it does, and hears what is wanted: all of it, each time.
    fn heartbeat(
        &self,
        heartbeat: &Heartbeat,
    ) -> impl Future<Output = Result<DesiredStates, JournalError>> + Send;

    /// A worker says that it stops.
    fn leave(&self, worker: &str) -> impl Future<Output = Result<(), JournalError>> + Send;
}

/// The operator's side.
pub trait OperatorControl: Clone + Send + Sync + 'static {
    /// The workers that have told how they do within [`HEARTBEAT_TIMEOUT`], by name.
    fn workers(&self) -> impl Future<Output = Result<Vec<Heartbeat>, JournalError>> + Send;

    /// What is wanted.
    fn desired_states(&self) -> impl Future<Output = Result<DesiredStates, JournalError>> + Send;

    /// Wishes something of a destination's workers, or takes it back.
    fn apply(
        &self,
        destination: &str,
        action: ControlAction,
        attribution: Option<&Attribution>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Keeps an act. Before it is done, so that none is done in secret.
    fn audit(&self, act: &AuditEntry) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Keeps a token.
    fn keep_token(&self, token: &Token) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The token of this id.
    fn token(&self, id: &str) -> impl Future<Output = Result<Option<Token>, JournalError>> + Send;

    /// All tokens, by id, also those that have had their time.
    fn tokens(&self) -> impl Future<Output = Result<Vec<Token>, JournalError>> + Send;

    /// Forgets a token. `false` if there is none of this id.
    fn revoke(&self, id: &str) -> impl Future<Output = Result<bool, JournalError>> + Send;

    /// The newest acts, newest first, at most `limit`.
    fn audited(
        &self,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<AuditEntry>, JournalError>> + Send;
}

/// Takes a stored wish in. What a later version may have written is left out.
pub fn ordered(
    desired_states: &mut DesiredStates,
    destination: &str,
    action: &str,
    attribution: &[u8],
) {
    let Ok(attribution) = serde_json::from_slice::<Attribution>(attribution) else { return };
    let desired = desired_states.entry(destination.to_owned()).or_default();
    match action {
        "pause" => desired.pause = Some(attribution),
        "close" => desired.close = Some(attribution),
        _ => {}
    }
}
