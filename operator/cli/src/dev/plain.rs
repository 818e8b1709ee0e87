//! Lines instead of the live view.

use std::io::{self, Write};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zentra_admin::backend::File;
use zentra_admin::event::{Change, tail};
use zentra_core::clock::Timestamp;
use zentra_store::journal::list::Query;

use super::Intro;
use super::feed::News;
use super::rows::request_text;
use crate::failure::Failure;
use crate::{history, text};

/// Prints what happens until `stop`, or until nobody reads any more.
pub(super) async fn run(
    intro: &Intro,
    backend: &File<'_>,
    news: &mut mpsc::Receiver<News>,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    for line in &intro.lines {
        print(format!("{line}\n").as_bytes())?;
    }
    let mut printed = Ok(());
    {
        let query = Query::default();
        let reader = |changes: &[Change]| {
            printed = print_all(changes);
            printed.is_ok()
        };
        let mut changes = std::pin::pin!(tail(backend, &query, None, reader));
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                ended = &mut changes => break ended?,
                Some(new) = news.recv() => print(&words(&new, &intro.options))?,
            }
        }
    }
    Ok(printed?)
}

/// What is printed about news. Deliveries come from their histories.
fn words(news: &News, options: &str) -> Vec<u8> {
    let line = |at: Timestamp, what: String| format!("{at}  {what}\n").into_bytes();
    match news {
        News::Accepted(event) => {
            let envelope = &event.envelope;
            let (id, kind) = (envelope.event_id(), envelope.event_type.as_deref());
            let what = [Some("accepted"), Some(&*envelope.source), kind, id];
            let what: Vec<&str> = what.into_iter().flatten().collect();
            line(envelope.received_at, what.join("  "))
        }
        News::Refused(record, _) => line(
            record.received_at,
            format!(
                "REFUSED   {}  {}  zentra refused show {}{options}",
                record.source, record.reason, record.id
            ),
        ),
        News::Received(request) => request_text(request),
        News::Note(note) => format!("{note}\n").into_bytes(),
        News::Deliveries(_) => Vec::new(),
    }
}

/// Prints one line for each change of a delivery.
fn print_all(changes: &[Change]) -> io::Result<()> {
    changes.iter().try_for_each(|change| {
        print(format!("{}  {}\n", change.delivery, history::line(&change.entry)).as_bytes())
    })
}

fn print(text: &[u8]) -> io::Result<()> {
    let mut out = text::stdout();
    out.write_all(text)?;
    out.flush()
}
