//! `zentra listen`: events of a shared Zentra at an application on this machine, by the HTTP API. Only
//! this side connects, so it works behind NAT.

mod api;
mod forward;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use http::Uri;
use tokio_util::sync::CancellationToken;
use webhook_verify::{KeyFormat, NamedSecret, Secret};
use zentra_core::address::is_this_machine;
use zentra_core::clock;
use zentra_telemetry::shutdown;

use crate::failure::Failure;
use crate::text;
use api::{Api, Copies, Pulled, Trouble};
use forward::{Application, Outcome};

/// Maximum number of events per request. With --pull they are forwarded at the same time.
const TOGETHER: usize = 10;
/// First pause after the API could not be reached. It doubles,
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// up to this one.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// Number of idempotency keys that are remembered, so that a copy is forwarded once.
const REMEMBERED: usize = 10_000;

/// What to listen to.
#[derive(clap::Args)]
pub(crate) struct ListenOptions {
    /// Address of the API of `zentra serve`, such as https://zentra.example.
    #[arg(long, value_name = "URL")]
    at: String,
    /// Name of the destination whose events are forwarded.
    #[arg(long, value_name = "NAME")]
    destination: String,
    /// Address of your application.
    #[arg(long, value_name = "URL")]
    forward: String,
    /// Token with the role `consumer` for the destination.
    #[arg(long, env = "ZENTRA_TOKEN", hide_env_values = true)]
    token: String,
    /// Forward copies from the archive. Deliveries do not change. This is the default.
    #[arg(long, conflicts_with = "pull")]
    copy: bool,
    /// Pull the events of a destination with `pull = true`: an answer of 2xx delivers an event, and
    /// nobody else gets it.
    #[arg(long)]
    pull: bool,
    /// Begin with copies of events that were accepted within this time, such as `1h`, also of delivered
    /// ones (default: new events only).
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration, conflicts_with = "pull")]
    since: Option<Duration>,
    /// File that keeps the position, so that the next run goes on there.
    #[arg(long, value_name = "FILE", conflicts_with = "pull")]
    position: Option<PathBuf>,
    /// Sign requests with this Standard Webhooks key (whsec_…), as the destination's `signing` does.
    #[arg(long, value_name = "KEY", env = "ZENTRA_LISTEN_SIGNING", hide_env_values = true)]
    signing: Option<String>,
}

/// Forwards until SIGTERM or SIGINT.
pub(crate) async fn run(asked: &ListenOptions) -> Result<(), Failure> {
    let api = Api::new(server(&asked.at)?, &asked.destination, &asked.token)?;
    let application = Application::new(web("--forward", &asked.forward)?, signing(asked)?)?;
    let stop = shutdown::on_signal_or_hangup()?;
    let (from, to) = (&asked.destination, &asked.forward);
    match asked.pull {
        true => {
            print(&format!("pulling the events of {from} for {to}; Ctrl-C ends it\n"))?;
            pull(&api, &application, &stop).await
        }
        false => {
            print(&format!("copying the events of {from} to {to}; Ctrl-C ends it\n"))?;
            copy(&api, &application, asked, &stop).await
        }
    }
}

async fn copy(
    api: &Api,
    application: &Application,
    asked: &ListenOptions,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut position = asked.position.as_deref().map(read).transpose()?.flatten();
    let (mut seen, mut warned) = (Seen::default(), false);
    loop {
        let since = asked.since.filter(|_| position.is_none());
        let asking = async || api.copies(position.as_deref(), since, TOGETHER).await;
        let Some(Copies { items, position: next, not_archived }) = again(asking, stop).await?
        else {
            return Ok(());
        };
        if !not_archived.is_empty() && !std::mem::replace(&mut warned, true) {
            let names = not_archived.join(", ");
            print(&format!("no copies of {names}: archive = true is not set for these sources\n"))?;
        }
        for item in items {
            if !seen.is_new(&item.idempotency_key) {
                continue;
            }
            let outcome = application.forward(&item).await;
            print(&line(&item, &outcome))?;
            if stop.is_cancelled() {
                // The position stays before what was not forwarded: it is forwarded by the next run.
                return Ok(());
            }
        }
        if let Some(path) = asked.position.as_deref().filter(|_| position.as_ref() != Some(&next)) {
            write(path, &next)?;
        }
        position = Some(next);
    }
}

async fn pull(
    api: &Api,
    application: &Application,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let mut was_paused = false;
    loop {
        let asking = async || api.pull(TOGETHER).await;
        let Some(Pulled { items, paused }) = again(asking, stop).await? else { return Ok(()) };
        if paused && !was_paused {
            print("the destination is paused: waiting\n")?;
        }
        was_paused = paused;
        // What was pulled is forwarded and answered for, also after a signal.
        let forwarded = items.iter().map(async |item| {
            let outcome = application.forward(&item.event).await;
            let answered = match &outcome {
                Outcome::Answered(status) if status.is_success() => api.ack(&item.receipt).await,
                Outcome::Answered(status) => {
                    let error = format!("the application responded {status}");
                    api.nack(&item.receipt, &error, forward::is_permanent(*status)).await
                }
                Outcome::Failed(error) => api.nack(&item.receipt, error, false).await,
            };
            (line(&item.event, &outcome), answered)
        });
        for (line, answered) in join_all(forwarded).await {
            print(&line)?;
            if let Err(trouble) = answered {
                print(&format!(
                    "  not stored: {trouble}. The event comes again after its lease.\n"
                ))?;
            }
        }
        if stop.is_cancelled() {
            return Ok(());
        }
    }
}

/// Asks until there is an answer. `None` if the program is to stop.
async fn again<T>(
    ask: impl AsyncFn() -> Result<T, Trouble>,
    stop: &CancellationToken,
) -> Result<Option<T>, Failure> {
    let mut pause = FIRST_PAUSE;
    loop {
        let trouble = tokio::select! {
            answer = ask() => match answer {
                Ok(answer) => {
                    if pause > FIRST_PAUSE {
                        print("connected again\n")?;
                    }
                    return Ok(Some(answer));
                }
                Err(trouble) => trouble,
            },
            () = stop.cancelled() => return Ok(None),
        };
        if !trouble.may_pass {
            return Err(Failure::Asked(trouble.text));
        }
        print(&format!("{trouble}: trying again in {} s\n", pause.as_secs()))?;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return Ok(None),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Keys of events that were forwarded: the archive has each callback, also one that came twice.
#[derive(Default)]
struct Seen {
    keys: std::collections::HashSet<String>,
    order: std::collections::VecDeque<String>,
}

impl Seen {
    fn is_new(&mut self, key: &str) -> bool {
        if !self.keys.insert(key.to_owned()) {
            return false;
        }
        self.order.push_back(key.to_owned());
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.keys.remove(&oldest);
        }
        true
    }
}

fn line(event: &api::Event, outcome: &Outcome) -> String {
    let kind = event.event_type.as_deref().unwrap_or(&event.source);
    format!("{}  {kind}  {}  {outcome}\n", clock::now(), event.idempotency_key)
}

fn print(text: &str) -> std::io::Result<()> {
    let mut out = text::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// The address of the API. The token must be encrypted on the network.
fn server(text: &str) -> Result<Uri, Failure> {
    let url = web("--at", text)?;
    let is_here = is_this_machine(url.host().unwrap_or_default());
    match url.scheme_str() == Some("https") || is_here {
        true => Ok(url),
        false => Err(Failure::Asked(
            "--at must start with https://: the token must not travel unencrypted.".into(),
        )),
    }
}

/// An address. It may have a password, so no message has it.
fn web(option: &str, text: &str) -> Result<Uri, Failure> {
    let url: Option<Uri> = text.parse().ok();
    let is_web =
        |url: &Uri| matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some();
    url.filter(is_web).ok_or_else(|| {
        Failure::Asked(format!("{option} is not an address.\nGive one like https://zentra.example"))
    })
}

fn signing(asked: &ListenOptions) -> Result<Vec<NamedSecret>, Failure> {
    let Some(text) = &asked.signing else { return Ok(Vec::new()) };
    let secret = Secret::new(text.as_bytes());
    match KeyFormat::Whsec.accepts(&secret) {
        true => Ok(vec![NamedSecret { name: "listen".into(), secret }]),
        false => Err(Failure::Asked(
            "--signing is not a Standard Webhooks key: base64, perhaps after whsec_.".into(),
        )),
    }
}

fn read(path: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::Asked(format!("cannot read {}: {error}", path.display()))),
    }
}

/// Replaces the file as a whole: a position that is half-written would be lost.
fn write(path: &Path, position: &str) -> Result<(), Failure> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let written = std::fs::write(&new, format!("{position}\n"));
    let written = written.and_then(|()| std::fs::rename(&new, path));
    written.map_err(|error| Failure::Asked(format!("cannot write {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_new_once_and_forgotten_after_ten_thousand_others() {
        let mut seen = Seen::default();
        assert!(seen.is_new("first") && !seen.is_new("first"));
        for at in 0..REMEMBERED {
            assert!(seen.is_new(&at.to_string()));
        }
        assert!(seen.is_new("first"));
        assert_eq!((seen.keys.len(), seen.order.len()), (REMEMBERED, REMEMBERED));
    }

    #[test]
    fn a_token_never_travels_unencrypted() {
        for url in ["https://zentra.example", "http://127.0.0.1:9470", "http://localhost:1/x"] {
            assert!(server(url).is_ok(), "{url}");
        }
        for url in [
            "http://127.evil.example",
            "http://zentra.example",
            "http://10.0.0.1",
            "zentra.example",
            "ftp://x",
            "",
        ] {
            assert!(server(url).is_err(), "{url}");
        }
    }
}
