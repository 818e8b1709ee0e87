//! The `zentra` command: event histories and dead letters.

mod cli;
mod dead;
mod event;
mod failure;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde::Serialize;
use zentra_shared::config::{self, Config, Role};
use zentra_shared::journal::redis::RedisJournal;
use zentra_shared::queue::amqp::Amqp;
use zentra_shared::telemetry;

use cli::{Arguments, Command, DeadCommand, EventCommand};
use failure::Failure;

const CONNECT: Duration = Duration::from_secs(15);
/// For a command line that can't be read (`EX_USAGE`).
const USAGE: u8 = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    telemetry::init_logs("warn");
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    if let Command::Config = arguments.command {
        return Ok(write!(std::io::stdout(), "{}", config::reference())?);
    }
    let config = load(&arguments.config)?;
    let url = config.redis_url.as_ref().ok_or(Failure::Asked("redis.url is missing".into()))?;
    let histories = RedisJournal::new(url, &config.namespace)?;
    let mut out = std::io::stdout().lock();
    match arguments.command {
        Command::Config => Ok(()),
        Command::Event(EventCommand::Show { id, json }) => {
            let found = event::find(&histories, &id).await?;
            match json {
                true => print_json(&found, &mut out),
                false => Ok(event::show(&found, &mut out)?),
            }
        }
        Command::Dead(DeadCommand::List { destination, limit, json }) => {
            let names = destinations(&config, destination)?;
            let found = dead::list(&histories, &names, limit).await?;
            match json {
                true => print_json(&found, &mut out),
                false => Ok(dead::show(&found, &mut out)?),
            }
        }
        Command::Dead(DeadCommand::Requeue { id, look, by, json }) => {
            let queue = Amqp::publisher(config.amqp(), "operator");
            tokio::time::timeout(CONNECT, queue.connected()).await.map_err(|_| {
                Failure::Ours("RabbitMQ doesn't answer.\nCheck [rabbitmq] urls.".into())
            })?;
            let sealer = &config.seal;
            let was = dead::requeue(&histories, &queue, sealer, &id, look, &by).await;
            // The dead letter's acknowledgement reaches the broker before this ends.
            queue.close().await;
            let was = was?;
            let (key, generation) = (was.key, was.record.generation + 1);
            match json {
                true => {
                    let answer = serde_json::json!({ "requeued": key, "generation": generation });
                    print_json(&answer, &mut out)
                }
                false => Ok(writeln!(out, "re-queued {key} as generation {generation}")?),
            }
        }
    }
}

fn load(path: &Path) -> Result<Config, Failure> {
    let environment = std::env::vars().collect();
    Ok(Config::load(path, Role::Operator, &environment, &[])?)
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
