//! Worker control through the delivery store: workers write heartbeats and read desired states;
//! operators set desired states. The audit log and tokens are kept here too.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::journal::JournalError;
use crate::stored::{self, Document, Listing};
use zentra_core::clock::Timestamp;
use zentra_core::printable::printable;

/// Interval of heartbeats, and of reading desired states.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);

/// A worker without a heartbeat for this long counts as gone.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of audit entries that are kept, the newest ones.
pub const AUDITED: usize = 100_000;

/// Length of a step of a [`Tally`]. Each begins at a multiple of it.
pub const TALLY_STEP: Duration = Duration::from_secs(10);

/// What happened at one destination of one worker within a step, by source. A step without anything
/// has none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Begin of the step, by the worker's clock.
    pub at: Timestamp,
    /// At most 50 sources by name; the others are counted together under an empty one.
    pub sources: BTreeMap<String, Counts>,
}

/// What happened to the events of one source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Deliveries whose first attempt began.
    pub taken: u64,
    /// Attempts that were successful.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Deliveries that became dead letters.
    pub dead: u64,
}

/// A worker's heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Name of the worker, as in histories.
    pub worker: String,
    /// Version of the program.
    pub version: String,
    /// Start of the worker, by its own clock.
    pub started_at: Timestamp,
    /// State of each destination in this worker, by name.
    pub destinations: BTreeMap<String, Work>,
}

impl Document for Heartbeat {
    const KIND: &'static str = "heartbeat of worker";
}

/// State of one destination in one worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Running attempts.
    pub in_flight: u64,
    /// State of the circuit breaker.
    pub circuit: Circuit,
    /// Whether the worker has read that the destination is paused.
    pub paused: bool,
    /// The last complete step in which something happened, for 40 s. Older workers have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Tally>,
}

/// State of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// Attempts are made.
    Closed,
    /// A few probes are made, to test the destination.
    HalfOpen,
    /// No attempts are made.
    Open,
}

/// Desired state of one destination, set by operators.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DesiredState {
    /// Set while the destination is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Attribution>,
    /// The last request to close the circuit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close: Option<Attribution>,
}

/// Who did something, when, and why.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Attribution {
    /// Name of the operator or program.
    pub by: String,
    /// Time, by the operator's clock.
    pub at: Timestamp,
    /// Reason; empty if none was given.
    pub because: String,
}

impl Document for Attribution {
    const KIND: &'static str = "control action";
}

/// A control action on a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControlAction {
    /// Make no attempts.
    Pause,
    /// Close the circuit, and attempt now.
    Close,
}

impl ControlAction {
    /// Stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Close => "close",
        }
    }
}

/// Desired states, by destination.
pub type DesiredStates = BTreeMap<String, DesiredState>;

/// One entry of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AuditEntry {
    /// The action, named as on the command line: `destination pause`.
    pub action: String,
    /// The object: a destination, an event, a filter.
    pub on: String,
    /// The result; empty if the histories have it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub result: String,
    /// Who, when and why.
    #[serde(flatten)]
    pub attribution: Attribution,
}

impl Document for AuditEntry {
    const KIND: &'static str = "audit entry";
}

impl AuditEntry {
    /// A copy without control characters. Ids of events, for example, come from outside.
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

/// A token of the HTTP API, as it is stored. Only its holder knows the token itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Id; a part of the token.
    pub id: String,
    /// Name of the holder, for the audit log.
    pub name: String,
    /// Role of the holder.
    pub role: Role,
    /// Whether the holder may read payloads.
    pub payloads: bool,
    /// Names of the destinations of a consumer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<String>,
    /// SHA-256 of the secret, in hex. The secret has 256 random bits, so a slow hash isn't needed.
    pub digest: String,
    /// Whether it only signs in to the console, once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
    /// Whether a sign-in to the console made it. Signing out revokes it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub session: bool,
    /// End of its validity.
    pub expires_at: Timestamp,
    /// Who created it, when and why.
    pub made: Attribution,
}

impl Document for Token {
    const KIND: &'static str = "token";
    const NEWEST: u16 = 2;

    /// Version 2 knows consumers.
    fn version(&self) -> u16 {
        if self.role == Role::Consumer { 2 } else { 1 }
    }
}

/// Roles; each includes the one before, except that only consumers pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Receives the events of its destinations, and nothing else.
    Consumer,
    /// Looks; at payloads only if the token allows it.
    Viewer,
    /// Acts.
    Operator,
    /// Reads the audit log.
    Admin,
}

/// What a worker uses.
pub trait WorkerControl: Clone + Send + Sync + 'static {
    /// Writes a heartbeat, and returns all desired states.
    fn heartbeat(
        &self,
        heartbeat: &Heartbeat,
    ) -> impl Future<Output = Result<DesiredStates, JournalError>> + Send;

    /// Removes a worker that stops.
    fn leave(&self, worker: &str) -> impl Future<Output = Result<(), JournalError>> + Send;
}

/// What operators use.
pub trait OperatorControl: Clone + Send + Sync + 'static {
    /// Workers with a heartbeat within [`HEARTBEAT_TIMEOUT`], by name.
    fn workers(&self) -> impl Future<Output = Result<Listing<Heartbeat>, JournalError>> + Send;

    /// All desired states.
    fn desired_states(&self) -> impl Future<Output = Result<DesiredStates, JournalError>> + Send;

    /// Sets a control action of a destination, or removes it (`None`).
    fn apply(
        &self,
        destination: &str,
        action: ControlAction,
        attribution: Option<&Attribution>,
    ) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Appends to the audit log. Called before the action, so that none is missing.
    fn audit(&self, act: &AuditEntry) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// Stores a token.
    fn keep_token(&self, token: &Token) -> impl Future<Output = Result<(), JournalError>> + Send;

    /// The token with this id.
    fn token(&self, id: &str) -> impl Future<Output = Result<Option<Token>, JournalError>> + Send;

    /// All tokens, by id, expired ones included.
    fn tokens(&self) -> impl Future<Output = Result<Listing<Token>, JournalError>> + Send;

    /// Removes a token. `false` if there is none with this id.
    fn revoke(&self, id: &str) -> impl Future<Output = Result<bool, JournalError>> + Send;

    /// Audit entries, newest first, at most `limit`.
    fn audited(
        &self,
        limit: usize,
    ) -> impl Future<Output = Result<Listing<AuditEntry>, JournalError>> + Send;
}

/// Adds a stored control action to the desired states. Unknown actions, of a newer version, are
/// skipped. A pause holds even if a newer version wrote who asked for it and why.
pub fn ordered(
    desired_states: &mut DesiredStates,
    destination: &str,
    action: &str,
    attribution: &[u8],
) {
    let attribution = stored::read::<Attribution>(action, attribution);
    let desired = desired_states.entry(destination.to_owned()).or_default();
    match (action, attribution) {
        ("pause", Ok(attribution)) => desired.pause = Some(attribution),
        ("pause", Err(_)) => {
            let by = "(unreadable)".to_owned();
            desired.pause =
                Some(Attribution { by, at: Timestamp::default(), because: String::new() });
        }
        ("close", Ok(attribution)) => desired.close = Some(attribution),
        _ => {}
    }
}
