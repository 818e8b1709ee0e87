//! Plays one scenario step by step, and records each promise beside what was observed.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::time::{Instant, sleep, timeout};
use zentra_config::Config;
use zentra_core::source::Source;
use zentra_store::journal::{Delivery, DeliveryStore, Entry, HistoryEvent};

use super::destination::{Destination, Seen};
use super::private::Private;
use super::provider::Provider;
use super::report::Row;
use super::scenario::{Check, Freeze, Kill, Scenario, Send, Step};
use crate::error::broken;
use zentra_admin::AdminError;

/// Time limit for a promise to come true.
const BOUND: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(50);
/// Number of concurrent callbacks.
const AT_ONCE: usize = 64;

/// What a scenario is played with.
pub(crate) struct Stage<'a, H> {
    pub(crate) config: &'a Config,
    pub(crate) histories: H,
    pub(crate) provider: Provider,
    /// The source that callbacks go to, unless a step names a provider.
    pub(crate) source: Option<&'a str>,
    /// If the rehearsal plays the destination.
    pub(crate) destination: Option<&'a mut Destination>,
    /// If the rehearsal started Zentra.
    pub(crate) private: Option<&'a mut Private>,
    /// The configuration file for operators' commands, if Zentra is not private.
    pub(crate) path: &'a std::path::Path,
    pub(crate) rows: Vec<Row>,
    /// The body of each event.
    bodies: BTreeMap<String, Bytes>,
}

/// Why a scenario was not played to its end.
pub(crate) enum End {
    /// It cannot be played here.
    Skipped(String),
    /// Something failed that is not a promise.
    Broken(AdminError),
}

impl From<AdminError> for End {
    fn from(failure: AdminError) -> Self {
        Self::Broken(failure)
    }
}

impl<'a, H: DeliveryStore> Stage<'a, H> {
    pub(crate) fn new(
        (config, path): (&'a Config, &'a std::path::Path),
        histories: H,
        provider: Provider,
    ) -> Self {
        Self {
            config,
            histories,
            provider,
            source: None,
            destination: None,
            private: None,
            path,
            rows: Vec::new(),
            bodies: BTreeMap::new(),
        }
    }

    /// Plays all steps in order. After a broken promise, the next steps are played too.
    pub(crate) async fn play(&mut self, scenario: &Scenario) -> Result<(), End> {
        if let Some(destination) = &self.destination {
            destination.reset();
        }
        for step in &scenario.steps {
            match step {
                Step::Send(send) => self.send(send).await?,
                Step::Destination(answers) => {
                    let Some(destination) = &mut self.destination else {
                        return Err(End::Skipped(
                            "it plays the destination, which needs --destination ADDRESS".into(),
                        ));
                    };
                    destination.take_turns(&answers.turns);
                    match answers.down {
                        Some(true) => destination.go_down(),
                        Some(false) => {
                            let failed = |error| {
                                broken(format!(
                                    "the rehearsal's destination cannot listen: {error}"
                                ))
                            };
                            destination.come_back().await.map_err(failed)?;
                        }
                        None => {}
                    }
                }
                Step::Check(check) => self.check(check).await?,
                Step::Kill(kill) => self.kill(kill).await?,
                Step::Freeze(freeze) => self.freeze(freeze).await?,
                Step::Secrets(secrets) => {
                    self.private()?.keep_secrets(&secrets.active).await?;
                }
                Step::Requeue(named) => {
                    self.operate(&["dead", "requeue", "--because", "rehearsal"], &named.event)?;
                }
                Step::Release(named) => {
                    self.operate(&["event", "release", "--because", "rehearsal"], &named.event)?;
                }
            }
        }
        Ok(())
    }

    fn private(&mut self) -> Result<&mut Private, End> {
        let skipped = || End::Skipped("it needs a private Zentra".into());
        self.private.as_deref_mut().ok_or_else(skipped)
    }

    fn source(&self, provider: Option<&str>) -> Result<&'a Source, End> {
        let mut sources = self.config.sources.iter();
        let fits = |source: &&Source| match (provider, self.source) {
            (Some(provider), _) => source.endpoint.provider == provider,
            (None, Some(name)) => source.name == name,
            (None, None) => source.endpoint.provider == "standard-webhooks",
        };
        let found = sources.find(fits).or_else(|| match provider {
            None => self.config.sources.first(),
            Some(_) => None,
        });
        let none = || format!("no source has the provider {}", provider.unwrap_or("any"));
        found.ok_or_else(|| End::Skipped(none()))
    }

    /// The responses to callbacks.
    async fn send(&mut self, send: &Send) -> Result<(), End> {
        let source = self.source(send.provider.as_deref())?;
        let mut made = Vec::new();
        for event in names(&send.event, send.events) {
            let one = self.provider.make(source, &event, send);
            let one = one.map_err(|failure| End::Skipped(failure.text()))?;
            let name = send.as_id.clone().unwrap_or_else(|| event.clone());
            self.bodies.entry(name).or_insert_with(|| one.body.clone());
            made.extend((0..send.copies).map(|_| one.clone()));
        }
        let under_way = if send.at_once { AT_ONCE } else { 1 };
        let answers = stream::iter(&made).map(|one| self.provider.post(one)).buffered(under_way);
        let mut seen = BTreeMap::<String, usize>::new();
        for answer in answers.collect::<Vec<_>>().await {
            *seen.entry(answer).or_default() += 1;
        }
        let Some(wanted) = &send.answer else { return Ok(()) };
        let line = |(answer, count): (&String, &usize)| match made.len() {
            1 => answer.clone(),
            _ => format!("{count} × {answer}"),
        };
        self.rows.push(Row {
            contract: send.contract.clone().unwrap_or_else(|| format!("answered {wanted}")),
            observed: seen.iter().map(line).collect::<Vec<_>>().join(", "),
            kept: Some(seen.len() == 1 && seen.contains_key(wanted)),
        });
        Ok(())
    }

    /// Checks repeatedly until the promise holds or the time limit has passed.
    async fn check(&mut self, check: &Check) -> Result<(), End> {
        let until = Instant::now() + BOUND;
        let row = loop {
            let row = self.look(check).await?;
            if row.kept != Some(false) || Instant::now() > until {
                break row;
            }
            sleep(LOOK).await;
        };
        self.rows.push(row);
        Ok(())
    }

    async fn look(&self, check: &Check) -> Result<Row, End> {
        let sees = check.requests.is_some() || check.effects.is_some() || check.exact;
        let contract = check.contract.clone();
        let all = names(&check.event, check.events);
        let (mut kept, mut first, mut broken) = (0, None, None);
        for event in &all {
            let view = self.view(event).await?;
            let (is_kept, observed) = view.judge(check);
            kept += usize::from(is_kept);
            match is_kept {
                true => drop(first.get_or_insert(observed)),
                false => drop(broken.get_or_insert(observed)),
            }
        }
        if (sees || !check.apart.is_zero()) && self.destination.is_none() {
            let observed = "not observed: the rehearsal does not play the destination".into();
            return Ok(Row { contract, observed, kept: None });
        }
        let is_kept = kept == all.len();
        let observed = broken.or(first).unwrap_or_default();
        let observed = match all.len() {
            1 => observed,
            many if is_kept => format!("{kept} of {many}: {observed}"),
            many => format!("{kept} of {many}; the first of the others: {observed}"),
        };
        Ok(Row { contract, observed, kept: Some(is_kept) })
    }

    async fn view(&self, event: &str) -> Result<View<'_>, End> {
        let mut deliveries = Vec::new();
        let id = self.provider.id(event);
        for key in self.histories.find(&id, &self.config.pairs()).await.map_err(AdminError::from)? {
            let found = self.histories.history(&key).await.map_err(AdminError::from)?;
            deliveries.extend(found);
        }
        let keys: Vec<&str> = deliveries.iter().map(|of| of.key.as_str()).collect();
        let (seen, effects) = match &self.destination {
            Some(destination) => (destination.seen(&keys), destination.effects(&keys)),
            None => (Vec::new(), 0),
        };
        Ok(View { deliveries, seen, effects, body: self.bodies.get(event) })
    }

    /// The worker that holds an event, as soon as the destination's request hangs.
    async fn holder(&self, event: &str) -> Result<Option<u32>, End> {
        let id = self.provider.id(event);
        if let Some(destination) = &self.destination {
            let hangs = timeout(BOUND, destination.hangs(&id)).await;
            hangs.map_err(|_| broken(format!("no request for {event} hung in time")))?;
        }
        Ok(self.view(event).await?.holder())
    }

    async fn kill(&mut self, kill: &Kill) -> Result<(), End> {
        let holder = match &kill.holding {
            Some(event) => self.holder(event).await?,
            None => None,
        };
        let killed = self.private()?.kill(kill.program, holder).await?;
        let Some(contract) = &kill.contract else { return Ok(()) };
        let named = killed.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let (observed, kept) = (format!("killed process {named}"), Some(!killed.is_empty()));
        self.rows.push(Row { contract: contract.clone(), observed, kept });
        Ok(())
    }

    async fn freeze(&mut self, freeze: &Freeze) -> Result<(), End> {
        let holder = self.holder(&freeze.holding).await?.unwrap_or_default();
        let stood = self.private()?.freeze(holder, freeze.time).await;
        if let Some(contract) = &freeze.contract {
            let observed = match stood {
                true => format!("process {holder} was stopped for {:?}", freeze.time),
                false => "no worker holds it".into(),
            };
            self.rows.push(Row { contract: contract.clone(), observed, kept: Some(stood) });
        }
        Ok(())
    }

    /// Runs an operator's command for this event.
    fn operate(&self, arguments: &[&str], event: &str) -> Result<(), End> {
        let mut command = match &self.private {
            Some(private) => private.command("zentra"),
            None => {
                let own = std::env::current_exe().map_err(AdminError::from)?;
                let mut command = std::process::Command::new(own);
                command.arg("--config").arg(self.path);
                command
            }
        };
        let id = self.provider.id(event);
        command.args(arguments).arg(&id).stdin(Stdio::null());
        let output = command.output().map_err(AdminError::from)?;
        if output.status.success() {
            return Ok(());
        }
        let error = String::from_utf8_lossy(&output.stderr);
        Err(broken(format!("zentra {} {id}: {error}", arguments.join(" "))).into())
    }
}

/// `event`, or `event-1` to `event-COUNT`.
fn names(event: &str, count: u32) -> Vec<String> {
    match count {
        0 => vec![event.to_owned()],
        count => (1..=count).map(|at| format!("{event}-{at}")).collect(),
    }
}

/// What can be observed of one event.
struct View<'a> {
    deliveries: Vec<Delivery>,
    seen: Vec<Seen>,
    effects: usize,
    body: Option<&'a Bytes>,
}

impl View<'_> {
    fn lines(&self) -> impl Iterator<Item = &Entry> {
        self.deliveries.iter().flat_map(|delivery| &delivery.history)
    }

    fn count(&self, line: &str) -> usize {
        self.lines().filter(|entry| is(&entry.what, line)).count()
    }

    /// The process that claimed it last.
    fn holder(&self) -> Option<u32> {
        let claims =
            self.lines().filter(|entry| matches!(entry.what, HistoryEvent::Claimed { .. }));
        claims.last()?.by.rsplit('-').next()?.parse().ok()
    }

    /// Whether a promise holds, and what was observed.
    fn judge(&self, check: &Check) -> (bool, String) {
        if check.unknown {
            let kept = self.deliveries.is_empty();
            return (kept, if kept { "unknown" } else { "it is known" }.into());
        }
        let (mut kept, mut texts) = (!self.deliveries.is_empty(), Vec::new());
        let mut note = |is_kept: bool, text: String| {
            kept &= is_kept;
            texts.push(text);
        };
        if self.deliveries.is_empty() {
            return (false, "no worker has claimed it".into());
        }
        if check.state.is_some() || check.reason.is_some() {
            let state = |of: &Delivery| word(&of.record.state);
            let reason = |of: &Delivery| of.reason.map(|reason| reason.as_str());
            let state_kept = |of: &Delivery| check.state.as_ref().is_none_or(|s| *s == state(of));
            let reason_kept = |of: &Delivery| {
                check.reason.as_deref().is_none_or(|wanted| reason(of) == Some(wanted))
            };
            let is_kept = self.deliveries.iter().all(|of| state_kept(of) && reason_kept(of));
            let shown = self.deliveries.iter().map(|of| match reason(of) {
                Some(reason) => format!("{} ({reason})", state(of)),
                None => state(of),
            });
            note(is_kept, shown.collect::<Vec<_>>().join(", "));
        }
        if !check.history.is_empty() {
            let words: Vec<String> = self.lines().map(|entry| name(&entry.what)).collect();
            let mut wanted = check.history.iter().peekable();
            for word in &words {
                wanted.next_if(|next| *next == word);
            }
            let kept = wanted.peek().is_none();
            note(kept, if kept { &check.history } else { &words }.join(" → "));
        }
        for (line, wanted) in &check.lines {
            let count = self.count(line);
            note(wanted.takes(count), format!("{count} {}", line.replace('_', " ")));
        }
        if let Some(wanted) = check.requests {
            let count = self.seen.len();
            note(wanted.takes(count), plural(count, "request"));
        }
        if let Some(wanted) = check.effects {
            note(wanted.takes(self.effects), plural(self.effects, "effect"));
        }
        if check.exact {
            let exact = self.seen.iter().all(|seen| Some(&seen.body) == self.body);
            let mut keys: Vec<&str> = self.seen.iter().map(|seen| seen.key.as_str()).collect();
            keys.dedup();
            let bytes = if exact { "exact bytes" } else { "other bytes" };
            note(exact && keys.len() == 1, format!("{bytes}, {}", plural(keys.len(), "key")));
        }
        if !check.apart.is_zero() {
            let pairs = self.seen.windows(2);
            let least = pairs.map(|pair| pair[1].at.duration_since(pair[0].at)).min();
            let shown = least.map(|gap| format!("{:.1} s apart", gap.as_secs_f64()));
            let is_kept = least.is_some_and(|gap| gap >= check.apart);
            note(is_kept, shown.unwrap_or_else(|| "no second request".into()));
        }
        (kept, texts.join(", "))
    }
}

/// The name of a history line, as in JSON.
fn name(what: &HistoryEvent) -> String {
    let json = serde_json::to_value(what).unwrap_or_default();
    json["what"].as_str().unwrap_or_default().to_owned()
}

/// Whether a line has this name. `copies` matches every line of a copy that had no effect.
fn is(what: &HistoryEvent, line: &str) -> bool {
    match line {
        "copies" => matches!(
            what,
            HistoryEvent::Duplicate | HistoryEvent::DuplicateDead | HistoryEvent::Stale
        ),
        line => name(what) == line,
    }
}

fn word(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_value(value).unwrap_or_default();
    json.as_str().unwrap_or_default().to_owned()
}

fn plural(count: usize, of: &str) -> String {
    match count {
        1 => format!("1 {of}"),
        count => format!("{count} {of}s"),
    }
}
