//! The `zentra` command: event histories, dead letters, refused callbacks.

mod api;
mod archive;
mod backend;
mod cli;
mod control;
mod dead;
mod event;
mod failure;
mod job;
mod look;
mod manual;
mod migrate;
mod progress;
mod reconcile;
mod refused;
mod rehearse;
mod source;
mod standalone;
mod status;
mod token;
mod unrouted;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use zentra_shared::config::{self, Config, Role};
use zentra_shared::control::Control;
use zentra_shared::event::DeliveryKey;
use zentra_shared::journal::{Delivery, What};
use zentra_shared::queue::{Operate, Publish};
use zentra_shared::{telemetry, verify};

use backend::{Backend, File, Servers};
use cli::{
    ArchiveCommand, Arguments, Command, DeadCommand, DestinationCommand, EventCommand, Letters,
    RefusedCommand, SourceCommand, TokenCommand, UnroutedCommand,
};
use control::{Asked, Audited, Deed};
use dead::{Choice, Desk, Done, Tally};
use event::waiting::Then;
use failure::Failure;
use refused::Wanted;
use unrouted::Look;

/// For a command line that can't be read (`EX_USAGE`).
const USAGE: u8 = 64;

/// Most of what `zentra standalone` does is short-lived and small: measured by `make bench`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The file has threads of its own, and threads that have little to do mostly wake one another.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    match runtime.worker_threads(cores.div_ceil(2)).enable_all().build() {
        Ok(runtime) => runtime.block_on(command()),
        Err(error) => Failure::from(error).report(),
    }
}

async fn command() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    telemetry::init_logs(match arguments.command {
        Command::Standalone(_) | Command::Serve(_) => "info",
        _ => "warn",
    });
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    let path = &arguments.config;
    let role = match &arguments.command {
        Command::Config => return Ok(write!(std::io::stdout(), "{}", config::reference())?),
        Command::Completions { shell } => {
            return manual::completions(*shell, &mut std::io::stdout());
        }
        Command::Man { folder } => {
            let pages = manual::pages(folder)?.len();
            return Ok(writeln!(std::io::stdout(), "{pages} pages are in {}", folder.display())?);
        }
        Command::Source(SourceCommand::List) => {
            return Ok(write!(std::io::stdout(), "{}", verify::table())?);
        }
        Command::Source(SourceCommand::Add(asked)) => return source::add(path, asked),
        Command::Verify(asked) => return source::verify(path, asked),
        Command::Sign(asked) => return source::sign(path, asked),
        Command::Check => return check(path),
        Command::Standalone(listen) => return standalone::run(path, listen).await,
        Command::Demo(asked) => return rehearse::demo(asked).await,
        Command::Rehearse(asked) => return rehearse::rehearse(path, asked).await,
        Command::Refused(RefusedCommand::Admit { .. }) => Role::Admission,
        Command::Reconcile(asked) if asked.ingest => Role::Admission,
        _ => Role::Operator,
    };
    // One command is all that this program does: its config lives as long.
    let config: &'static Config = Box::leak(Box::new(load(path, role)?));
    if let Command::Migrate(asked) = &arguments.command {
        return migrate::run(config, asked).await;
    }
    match &config.embedded {
        Some(embedded) => on(config, File::open(config, embedded)?, arguments.command).await,
        None => on(config, Servers(config), arguments.command).await,
    }
}

async fn on<B: Backend + Send + Sync + 'static>(
    config: &'static Config,
    backend: B,
    command: Command,
) -> Result<(), Failure> {
    if let Command::Serve(asked) = &command {
        return api::serve(config, backend, asked).await;
    }
    let backend = &backend;
    match command {
        Command::Status { json } => status_command(config, backend, json).await,
        Command::Destination(command) => destination_command(config, backend, command).await,
        Command::Workers { json } => workers_command(backend, json).await,
        Command::Token(command) => token_command(backend, command).await,
        Command::Audit { limit, json } => audit_command(backend, limit, json).await,
        Command::Tail { wanted, json } => {
            let (histories, id) = (backend.histories()?, wanted.id.as_deref());
            let query = wanted.query()?;
            event::tail(&histories, &query, id, json, &mut std::io::stdout()).await
        }
        Command::Event(command) => event_command(config, backend, command).await,
        Command::Dead(command) => dead_command(config, backend, command).await,
        Command::Job(command) => job::command(config, backend, command).await,
        Command::Reconcile(asked) => reconcile::run(backend, config, &asked).await,
        Command::Unrouted(command) => unrouted_command(config, backend, command).await,
        Command::Archive(command) => archive_command(config, backend, command).await,
        Command::Refused(command) => refused_command(config, backend, command).await,
        Command::Config
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Serve(_)
        | Command::Source(_)
        | Command::Verify(_)
        | Command::Sign(_)
        | Command::Check
        | Command::Standalone(_)
        | Command::Migrate(_)
        | Command::Demo(_)
        | Command::Rehearse(_) => Ok(()),
    }
}

fn check(path: &Path) -> Result<(), Failure> {
    let config = load(path, Role::Check)?;
    let mut out = std::io::stdout().lock();
    for advice in config.advice() {
        writeln!(out, "note: {advice}")?;
    }
    let (sources, destinations) = (config.sources.len(), config.destinations.len());
    Ok(writeln!(out, "the config is good: sources: {sources}, destinations: {destinations}")?)
}

async fn status_command(
    config: &Config,
    backend: &impl Backend,
    json: bool,
) -> Result<(), Failure> {
    let status = status::look(backend, config).await?;
    let mut out = std::io::stdout().lock();
    match json {
        true => print_json(&status, &mut out)?,
        false => status::show(&status, &mut out)?,
    }
    match status.is_up() {
        true => Ok(()),
        false => Err(Failure::Ours("something that all depends on is down: see above.".into())),
    }
}

async fn destination_command(
    config: &Config,
    backend: &impl Backend,
    command: DestinationCommand,
) -> Result<(), Failure> {
    let control = backend.histories()?;
    let (told, deed) = match command {
        DestinationCommand::List { json } => {
            let all = control::destinations(&control, config).await?;
            let mut out = std::io::stdout().lock();
            return match json {
                true => print_json(&all, &mut out),
                false => Ok(control::show(&all, &mut out)?),
            };
        }
        DestinationCommand::Pause(told) => (told, Deed::Pause),
        DestinationCommand::Resume(told) => (told, Deed::Resume),
        DestinationCommand::CloseCircuit(told) => (told, Deed::CloseCircuit),
    };
    let name = told.destination;
    destinations(config, Some(name.clone()))?;
    let words = control::act(&control, &name, deed, &told.asked).await?;
    let mut out = std::io::stdout();
    if !told.json {
        return Ok(writeln!(out, "{name} is {words}")?);
    }
    let all = control::destinations(&control, config).await?;
    print_json(&all.iter().find(|one| one.destination == name), &mut out)
}

async fn workers_command(backend: &impl Backend, json: bool) -> Result<(), Failure> {
    let workers = backend.histories()?.workers().await?;
    let mut out = std::io::stdout().lock();
    match json {
        true => print_json(&workers, &mut out),
        false => Ok(control::show_workers(&workers, &mut out)?),
    }
}

async fn token_command(backend: &impl Backend, command: TokenCommand) -> Result<(), Failure> {
    let control = backend.histories()?;
    let mut out = std::io::stdout();
    match command {
        TokenCommand::Create(new) => {
            let (kept, text) = token::create(&control, &new).await?;
            eprintln!("token {} for {}; it isn't shown again:", kept.id, kept.name);
            Ok(writeln!(out, "{text}")?)
        }
        TokenCommand::List { json } => {
            let tokens = control.tokens().await?;
            match json {
                true => print_json(&tokens, &mut out),
                false => Ok(token::show(&tokens, &mut out)?),
            }
        }
        TokenCommand::Revoke { id, asked } => {
            token::revoke(&control, &id, &asked).await?;
            Ok(writeln!(out, "{id} is revoked")?)
        }
    }
}

async fn audit_command(backend: &impl Backend, limit: usize, json: bool) -> Result<(), Failure> {
    let acts = backend.histories()?.audited(limit).await?;
    let mut out = std::io::stdout().lock();
    match json {
        true => print_json(&acts, &mut out),
        false => Ok(control::show_acts(&acts, &mut out)?),
    }
}

async fn event_command(
    config: &Config,
    backend: &impl Backend,
    command: EventCommand,
) -> Result<(), Failure> {
    match command {
        EventCommand::List { wanted, limit, cursor, json } => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let histories = backend.histories()?;
            let query = wanted.query()?;
            let page = match &wanted.id {
                Some(id) => event::of_event(&histories, &config.pairs(), &query, id).await?,
                None => event::list(&histories, &query, cursor, limit).await?,
            };
            let mut out = std::io::stdout().lock();
            match json {
                true => print_json(&page, &mut out),
                false => Ok(event::show_page(&page, &mut out)?),
            }
        }
        EventCommand::Find { text, json } => {
            let matches = event::find_text(backend, config, &text).await?;
            let mut out = std::io::stdout().lock();
            match json {
                true => print_json(&matches, &mut out)?,
                false => event::show_matches(&matches, &text, &mut out)?,
            }
            match matches.events.is_empty() && matches.refused.is_empty() {
                true => Err(Failure::Asked(
                    "nothing was found.\nTry the provider's id: zentra event show ID.".into(),
                )),
                false => Ok(()),
            }
        }
        EventCommand::Show { id, json, case_file } => {
            let found = event::look(backend, config, &id).await?;
            let mut out = std::io::stdout().lock();
            match (&case_file, json) {
                (Some(file), _) if file.as_os_str() == "-" => {
                    Ok(event::write_case(&id, &found, &mut out)?)
                }
                (Some(file), _) => {
                    event::case_file(file, &id, &found)?;
                    Ok(writeln!(out, "written to {}", file.display())?)
                }
                (None, true) => print_json(&found, &mut out),
                (None, false) => Ok(event::show_found(&found, &mut out)?),
            }
        }
        EventCommand::Release { id, reason, by, json } => {
            let waits = event::waiting::find(&backend.histories()?, config, &id).await?;
            if let Some(delivery) = waits {
                let asked = Asked { because: reason, by };
                event::waiting::act(backend, config, &delivery, Then::Now, &asked).await?;
                return told(&delivery.key, "is attempted now", json);
            }
            let letters = Letters { ids: vec![id], limit: 1, by, json, ..Letters::default() };
            requeue(config, backend, &letters, &What::Released { reason }).await
        }
        EventCommand::End { id, reason, by } => {
            let histories = backend.histories()?;
            let Some(delivery) = event::waiting::find(&histories, config, &id).await? else {
                return Err(event::waiting::none(&histories, config, &id).await?);
            };
            let asked = Asked { because: reason, by };
            event::waiting::act(backend, config, &delivery, Then::Never, &asked).await?;
            told(&delivery.key, "is given up", false)
        }
    }
}

/// What has become of one delivery.
fn told(key: &DeliveryKey, words: &str, json: bool) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match json {
        true => print_json(&serde_json::json!({ "delivery": key, "done": words }), &mut out),
        false => Ok(writeln!(out, "{key} {words}")?),
    }
}

async fn dead_command(
    config: &Config,
    backend: &impl Backend,
    command: DeadCommand,
) -> Result<(), Failure> {
    match command {
        DeadCommand::List { filter, limit, json } => {
            let names = destinations(config, filter.destination.clone())?;
            let found = dead::list(&backend.histories()?, &names, &filter, limit).await?;
            let mut out = std::io::stdout().lock();
            match json {
                true => print_json(&found, &mut out),
                false => Ok(dead::show(&found, &mut out)?),
            }
        }
        DeadCommand::Show { id, body, json } => show_dead(config, backend, &id, body, json).await,
        DeadCommand::Requeue { letters, why } => {
            requeue(config, backend, &letters, &What::Requeued { reason: why, job: None }).await
        }
        DeadCommand::Drain { letters, why, export } => {
            drain(config, backend, &letters, export.as_deref(), &why).await
        }
    }
}

async fn show_dead(
    config: &Config,
    backend: &impl Backend,
    id: &str,
    body: bool,
    json: bool,
) -> Result<(), Failure> {
    let (histories, queue) = (backend.histories()?, backend.queue().await?);
    let pairs = config.pairs();
    let desk = desk(config, &histories, &queue, &pairs, None)?;
    let found = desk.find(id).await?;
    let letter = desk.letter(&found.key).await;
    backend.close(queue).await;
    let letter = letter?;
    let mut out = std::io::stdout().lock();
    match (letter, body) {
        (Some(letter), true) => Ok(out.write_all(&letter.sealed.body)?),
        (None, true) => Err(no_letter(&found.key)),
        (letter, false) if json => {
            let letter_bytes = letter.map(|letter| letter.sealed.body.len());
            print_json(&DeadLetter { delivery: &found, letter_bytes }, &mut out)
        }
        (letter, false) => {
            event::show(&[found], &mut out)?;
            let words = match letter {
                Some(letter) => format!("{} bytes; see them with --body", letter.sealed.body.len()),
                None => "not in the dead-letter queue just now".into(),
            };
            Ok(writeln!(out, "letter     {words}")?)
        }
    }
}

/// A dead letter, as JSON.
#[derive(Serialize)]
struct DeadLetter<'a> {
    #[serde(flatten)]
    delivery: &'a Delivery,
    /// None: another operator holds it just now.
    letter_bytes: Option<usize>,
}

fn no_letter(key: &DeliveryKey) -> Failure {
    Failure::Asked(format!(
        "{key} is dead, but its letter isn't in the dead-letter queue.\nAnother operator may \
         hold it: try again."
    ))
}

/// Sends dead letters back to their work queues, and tells.
async fn requeue(
    config: &Config,
    backend: &impl Backend,
    letters: &Letters,
    what: &What,
) -> Result<(), Failure> {
    let Done { tally, last } = requeued(config, backend, letters, what).await?;
    let words = match what {
        What::Released { .. } => "released",
        _ => "re-queued",
    };
    let mut out = std::io::stdout().lock();
    match (letters.json, last) {
        (true, _) => print_json(&tally, &mut out),
        (_, Some((key, generation))) if tally.done == 1 => {
            Ok(writeln!(out, "{words} {key} as generation {generation}")?)
        }
        _ => Ok(dead::tell(&tally, words, &mut out)?),
    }
}

/// Sends dead letters back to their work queues.
async fn requeued(
    config: &Config,
    backend: &impl Backend,
    letters: &Letters,
    what: &What,
) -> Result<Done, Failure> {
    let (histories, queue) = (backend.histories()?, backend.queue().await?);
    let pairs = config.pairs();
    let desk = desk(config, &histories, &queue, &pairs, letters.filter.destination.clone())?;
    let (action, why) = match what {
        What::Released { reason } => ("event release", reason.as_str()),
        What::Requeued { reason, .. } => ("dead requeue", reason.as_str()),
        _ => ("dead requeue", ""),
    };
    let done = match choice(letters) {
        Ok(choice) => {
            let deed = desk.requeue(&choice, what, &letters.by);
            let result = |done: &Done| format!("{} of {}", done.tally.done, done.tally.looked);
            audited(&histories, action, letters, &choice, why).run(deed, result).await
        }
        Err(failure) => Err(failure),
    };
    // The dead letters' acknowledgements reach the broker before this ends.
    backend.close(queue).await;
    done
}

/// Takes dead letters out of their queues.
async fn drain(
    config: &Config,
    backend: &impl Backend,
    letters: &Letters,
    export: Option<&Path>,
    why: &str,
) -> Result<(), Failure> {
    let (histories, queue) = (backend.histories()?, backend.queue().await?);
    let pairs = config.pairs();
    let desk = desk(config, &histories, &queue, &pairs, letters.filter.destination.clone())?;
    let done = match choice(letters) {
        Ok(choice) => {
            let deed = desk.drain(&choice, export, why, &letters.by);
            let result = |tally: &Tally| format!("{} of {}", tally.done, tally.looked);
            audited(&histories, "dead drain", letters, &choice, why).run(deed, result).await
        }
        Err(failure) => Err(failure),
    };
    backend.close(queue).await;
    let tally = done?;
    let mut out = std::io::stdout().lock();
    match letters.json {
        true => print_json(&tally, &mut out),
        false => Ok(dead::tell(&tally, "drained", &mut out)?),
    }
}

/// Named letters are dealt with at once; chosen ones only by --yes.
fn choice(letters: &Letters) -> Result<Choice<'_>, Failure> {
    let Letters { ids, filter, all, limit, rate, dry_run, yes, .. } = letters;
    if ids.is_empty() && !all && filter.is_empty() {
        return Err(nothing_chosen());
    }
    let dry_run = *dry_run || (ids.is_empty() && !yes);
    Ok(Choice { ids, filter, limit: *limit, rate: *rate, dry_run })
}

fn nothing_chosen() -> Failure {
    Failure::Asked(
        "no dead letters are named or chosen.\nName some, or choose by --destination, --source, \
         --reason, --type, --older-than, --newer-than, or --all."
            .into(),
    )
}

fn audited<'a, C: Control>(
    control: &'a C,
    action: &'a str,
    letters: &Letters,
    choice: &Choice<'_>,
    because: &str,
) -> Audited<'a, C> {
    let filter = choice.filter.words();
    let on = match (&letters.ids[..], filter.as_str()) {
        ([], "") => "--all".to_owned(),
        ([], _) => filter,
        (ids, _) => ids.join(" "),
    };
    let asked = Asked { because: because.into(), by: letters.by.clone() };
    let control = (!choice.dry_run).then_some(control);
    Audited { control, action, on, said: asked.said() }
}

fn desk<'a, H, Q>(
    config: &'a Config,
    histories: &'a H,
    queue: &'a Q,
    pairs: &'a [(&'a str, &'a str)],
    destination: Option<String>,
) -> Result<Desk<'a, H, Q>, Failure> {
    let destinations = destinations(config, destination)?;
    Ok(Desk { histories, queue, sealer: &config.seal, pairs, destinations })
}

async fn unrouted_command(
    config: &Config,
    backend: &impl Backend,
    command: UnroutedCommand,
) -> Result<(), Failure> {
    let queue = backend.queue().await?;
    let done = unrouted_with(config, &queue, backend, command).await;
    backend.close(queue).await;
    done
}

async fn unrouted_with(
    config: &Config,
    queue: &impl Operate,
    backend: &impl Backend,
    command: UnroutedCommand,
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    let subscribers = config.subscribers();
    match command {
        UnroutedCommand::List { source, limit, json } => {
            let look = Look { sealer: &config.seal, subscribers: &subscribers, source, limit };
            let found = unrouted::list(queue, &look).await?;
            match json {
                true => print_json(&found, &mut out),
                false => Ok(unrouted::show(&found, &mut out)?),
            }
        }
        UnroutedCommand::Requeue { source, limit, dry_run, asked, json } => {
            let control = backend.histories()?;
            let audited = Audited {
                control: (!dry_run).then_some(&control),
                action: "unrouted requeue",
                on: source.as_ref().map_or_else(String::new, |name| format!("--source {name}")),
                said: asked.said(),
            };
            let look = Look { sealer: &config.seal, subscribers: &subscribers, source, limit };
            let deed = unrouted::requeue(queue, &look, dry_run);
            let found = audited.run(deed, |found| found.len().to_string()).await?;
            match json {
                true => print_json(&found, &mut out),
                false => Ok(unrouted::show_requeued(&found, dry_run, &mut out)?),
            }
        }
    }
}

async fn archive_command(
    config: &Config,
    backend: &impl Backend,
    command: ArchiveCommand,
) -> Result<(), Failure> {
    let queue = backend.queue().await?;
    let done = archive_with(config, &queue, command).await;
    backend.close(queue).await;
    done
}

async fn archive_with(
    config: &Config,
    queue: &impl Operate,
    command: ArchiveCommand,
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match command {
        ArchiveCommand::List { wanted, json } => {
            let found = archive::list(queue, config, &wanted).await?;
            match json {
                true => print_json(&found, &mut out),
                false => Ok(archive::show(&found, &mut out)?),
            }
        }
        ArchiveCommand::Show { id, body, json } => {
            let (found, event) = archive::find(queue, config, &id).await?;
            match (json, body) {
                (true, _) => print_json(&found, &mut out),
                (_, true) => Ok(out.write_all(&event.body)?),
                _ => Ok(archive::show(&[found], &mut out)?),
            }
        }
    }
}

async fn refused_command(
    config: &Config,
    backend: &impl Backend,
    command: RefusedCommand,
) -> Result<(), Failure> {
    let queue = backend.queue().await?;
    let done = refused_with(config, &queue, backend, command).await;
    backend.close(queue).await;
    done
}

async fn refused_with(
    config: &Config,
    queue: &(impl Operate + Publish),
    backend: &impl Backend,
    command: RefusedCommand,
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match command {
        RefusedCommand::List { source, reason, limit, json } => {
            let wanted = Wanted { ids: Vec::new(), source, reason };
            let found = refused::list(queue, &config.seal, &wanted, limit).await?;
            match json {
                true => print_json(&found, &mut out),
                false => Ok(refused::show_all(&found, &mut out)?),
            }
        }
        RefusedCommand::Show { id, body, json } => {
            let wanted = Wanted { ids: vec![id.clone()], ..Wanted::default() };
            let found = refused::list(queue, &config.seal, &wanted, 1).await?;
            let found = found.first().ok_or_else(|| no_refused(&id))?;
            match (json, body) {
                (true, _) => print_json(found, &mut out),
                (_, true) => Ok(refused::write_body(found, &mut out)?),
                _ => Ok(refused::show(found, &config.sources, &mut out)?),
            }
        }
        RefusedCommand::Admit { ids, source, reason, limit, asked, dry_run, json } => {
            let named = ids.first().cloned();
            let wanted = Wanted { ids, source, reason };
            let (seal, sources) = (&config.seal, &config.sources);
            let control = backend.histories()?;
            let audited = Audited {
                control: (!dry_run).then_some(&control),
                action: "refused admit",
                on: wanted.words(),
                said: asked.said(),
            };
            let deed = refused::admit(queue, seal, sources, &wanted, limit, &asked.by, dry_run);
            let admitted =
                |all: &Vec<refused::Outcome>| all.iter().filter(|one| one.admitted).count();
            let result =
                |all: &Vec<refused::Outcome>| format!("{} of {}", admitted(all), all.len());
            let outcomes = audited.run(deed, result).await?;
            match json {
                true => print_json(&outcomes, &mut out)?,
                false => refused::show_outcomes(&outcomes, dry_run, &mut out)?,
            }
            match (named, outcomes.iter().all(|outcome| outcome.admitted)) {
                (Some(id), _) if outcomes.is_empty() => Err(no_refused(&id)),
                (Some(_), false) => Err(Failure::Asked(
                    "not all were admitted.\nCheck the source's secrets in the config.".into(),
                )),
                _ => Ok(()),
            }
        }
    }
}

fn no_refused(id: &str) -> Failure {
    Failure::Asked(format!("no refused callback {id} is kept.\nSee zentra refused list."))
}

fn load(path: &Path, role: Role) -> Result<Config, Failure> {
    let environment = config::environment();
    Ok(Config::load(path, role, &environment, &[])?)
}

fn destinations(config: &Config, only: Option<String>) -> Result<Vec<String>, Failure> {
    let all: Vec<String> = config.destinations.iter().map(|d| d.name.clone()).collect();
    match only {
        None => Ok(all),
        Some(name) if all.contains(&name) => Ok(vec![name]),
        Some(name) => Err(Failure::Asked(format!(
            "there is no destination {name}.\nThe config has: {}.",
            all.join(", ")
        ))),
    }
}

fn print_json(value: &impl Serialize, out: &mut impl Write) -> Result<(), Failure> {
    serde_json::to_writer_pretty(&mut *out, value).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}
