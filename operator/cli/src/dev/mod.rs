//! `zentra dev`: Zentra for one developer. Ingress and worker run on one file, every destination is at
//! one address, and a live view shows what happens.

mod application;
mod config;
mod feed;
mod plain;
mod replay;
mod rows;
mod view;

use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use http::Uri;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zentra_admin::audit::Actor;
use zentra_admin::backend::File;
use zentra_admin::test_callback::Samples;
use zentra_admin::tokens;
use zentra_config::{Config, Live};
use zentra_store::control::Role;
use zentra_telemetry::{colors, init_logs, init_logs_in, shutdown};

use crate::console;
use crate::failure::Failure;
use crate::source::variable;
use crate::standalone::{Standalone, loopback};
use crate::text::{in_shell, word_in_shell};
use config::{Prepared, Wanted, prepare};
use feed::{News, Shown, WAITING};
use view::View;

/// What logs refused callbacks.
const REFUSALS: &str = "zentra_ingress::log";

/// How to run it.
#[derive(clap::Args)]
pub(crate) struct Dev {
    /// Address of your application. All destinations are there. Without it, a built-in application
    /// answers 200, and its requests are shown.
    #[arg(long, value_name = "URL")]
    forward: Option<String>,
    /// A provider of the catalogue, instead of the configuration. Can be repeated.
    #[arg(long = "provider", value_name = "PROVIDER")]
    providers: Vec<String>,
    /// The secret that the provider shows (default: a new one, which is written to `.zentra/.env`).
    #[arg(long, requires = "providers", env = "ZENTRA_DEV_SECRET", hide_env_values = true)]
    secret: Option<String>,
    /// Address for callbacks; overrides `ingress.listen` (default: 127.0.0.1:8080).
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address of the web console, on this machine. If it is taken, any free port is used.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9471", value_parser = loopback)]
    console: SocketAddr,
    /// Print lines instead of the live view, as where the output is not a terminal.
    #[arg(long)]
    plain: bool,
}

/// Runs until `q`, SIGTERM or SIGINT.
pub(crate) async fn run(path: &Path, asked: &Dev) -> Result<(), Failure> {
    let (send, mut news) = mpsc::channel(WAITING);
    let forward = match &asked.forward {
        Some(url) => is_url(url)?.to_owned(),
        None => application::serve(send.clone()).await?,
    };
    let wanted = Wanted {
        config: path,
        providers: &asked.providers,
        secret: asked.secret.as_deref().filter(|secret| !secret.is_empty()),
        listen: asked.listen.as_deref(),
        forward: &forward,
    };
    let prepared = prepare(&wanted)?;
    let is_live = !asked.plain && std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
    start_logs(&prepared, is_live, &send)?;
    // Its terminal hangs up, and nothing else: the configuration is read once.
    let (_, no_reload) = mpsc::channel(1);
    let live = Live::start(prepared.origin.clone(), no_reload)?;
    let standalone = Standalone::prepare(live).await?;
    // One command is all that this program does: its config lives as long.
    let config: &'static Config = Box::leak(Box::new((*standalone.live.config()).clone()));
    let embedded =
        config.embedded.as_ref().ok_or(Failure::Asked("embedded.path is missing".into()))?;
    let backend: Arc<File<'static>> = Arc::new(File::open(config, embedded)?);
    let mut intro = intro(&standalone, config, &prepared, asked)?;
    let stop = shutdown::on_signal_or_hangup()?;
    intro.lines.push(format!("console    {}", console(&standalone, &backend, asked, &stop).await?));
    let accepts = Shown { queue: standalone.queue.clone(), config, news: send.clone() };
    let serving = tokio::spawn(standalone.serve(accepts, stop.clone()));
    let shown = match is_live {
        true => show(View::new(intro, colors()), config, &backend, send, &mut news, &stop).await,
        false => plain::run(&intro, &backend, &mut news, &stop).await,
    };
    stop.cancel();
    shown?;
    serving.await.map_err(|error| Failure::Ours(error.to_string()))?
}

/// Serves the console. Returns a link that signs the developer in.
async fn console(
    standalone: &Standalone,
    backend: &File<'static>,
    asked: &Dev,
    stop: &CancellationToken,
) -> Result<String, Failure> {
    let listener = match TcpListener::bind(asked.console).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind("127.0.0.1:0").await?,
    };
    let at = format!("http://{}", listener.local_addr()?);
    // For `zentra console open`. Without it that command needs the address.
    _ = std::fs::write(console::OF_DEV, &at);
    // It ends with the program.
    drop(standalone.console(listener, stop.clone())?);
    let actor = Actor { name: "dev".into(), reason: String::new() };
    let lifetime = tokens::SESSION_LIFETIME;
    console::link(backend, &at, Role::Admin, true, lifetime, &actor).await
}

/// The live view.
async fn show(
    view: View,
    config: &'static Config,
    backend: &Arc<File<'static>>,
    send: mpsc::Sender<News>,
    news: &mut mpsc::Receiver<News>,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let (poller, polled) = (backend.clone(), send.clone());
    let polling = tokio::spawn(async move { feed::poll(&poller, polled).await });
    let replay = |key| {
        let (backend, send) = (backend.clone(), send.clone());
        tokio::spawn(async move {
            let note = replay::replay(&*backend, config, &key).await;
            let _ = send.send(News::Note(note)).await;
        });
    };
    let mut terminal = ratatui::try_init()?;
    let shown = view::run(&mut terminal, view, news, stop, replay).await;
    ratatui::restore();
    polling.abort();
    Ok(shown?)
}

fn is_url(url: &str) -> Result<&str, Failure> {
    let uri: Option<Uri> = url.parse().ok();
    let is_web =
        |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    match uri.is_some_and(|uri| is_web(&uri)) {
        true => Ok(url),
        // It may have a password.
        false => Err(Failure::Asked(
            "--forward is not an address.\nGive one like http://127.0.0.1:3000/webhooks".into(),
        )),
    }
}

/// Logs go to a file while the live view has the terminal.
fn start_logs(
    Prepared { folder, .. }: &Prepared,
    is_live: bool,
    send: &mpsc::Sender<News>,
) -> Result<(), Failure> {
    if !is_live {
        init_logs("warn");
        return Ok(());
    }
    let path = folder.join("dev.log");
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let failed = |error| Failure::Ours(format!("cannot write {}: {error}", path.display()));
    // Not every refused callback is stored: one to an unknown path has only a line in the log.
    let send = send.clone();
    let refused = move |line| drop(send.try_send(News::Note(line)));
    init_logs_in("info", file.map_err(failed)?, REFUSALS, refused);
    Ok(())
}

/// What is shown first.
struct Intro {
    /// Where callbacks arrive and go to, and how to send one.
    lines: Vec<String>,
    /// Options with which other commands see the same events.
    options: String,
}

fn intro(
    standalone: &Standalone,
    config: &Config,
    prepared: &Prepared,
    asked: &Dev,
) -> Result<Intro, Failure> {
    let address = standalone.listener.local_addr()?;
    let mut lines = Vec::new();
    for source in &config.sources {
        lines.push(format!("callbacks  http://{address}/in/{}", source.name));
        if !asked.providers.is_empty() && !source.endpoint.scheme.needs_no_secret() {
            let (name, folder) = (variable(&source.name), prepared.folder.display());
            lines.push(format!("secret     {name} in {folder}/.env"));
        }
    }
    lines.push(match &asked.forward {
        Some(url) => format!("forward    {url}"),
        None => "forward    nowhere: a built-in application answers 200 (--forward URL)".into(),
    });
    let options = match prepared.others == Path::new("zentra.toml") {
        true => String::new(),
        false => format!(" --config {}", in_shell(&prepared.others)),
    };
    // The other file may name another address.
    let url = match asked.listen {
        Some(_) => format!(" --url http://{address}"),
        None => String::new(),
    };
    let sample = config.sources.iter().find_map(|source| {
        let kind = word_in_shell(Samples::of(&source.endpoint.provider)?.types().next()?);
        Some(format!("send one   zentra send {} {kind}{options}{url}", source.name))
    });
    lines.extend(sample);
    Ok(Intro { lines, options })
}
