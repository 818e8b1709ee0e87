//! Actions on dead letters: requeue, release, drain, export.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use zentra_config::Config;
use zentra_core::event::DeliveryKey;
use zentra_core::lifecycle::DeadReason;
use zentra_store::delivery::{countersign, is_countersigned};
use zentra_store::journal::{DeliveryStore, HistoryEvent, Summary};
use zentra_store::queue::{Message, Operate, takes};

use super::letters::{Letter, LetterAction};
use crate::error::{AdminError, ErrorCode};
use crate::payload::{self, shown};

/// Requeue or release: back to the work queue as the next generation, with the same checks as any
/// message.
pub(crate) struct Requeue<'a, H, Q> {
    pub(crate) histories: &'a H,
    pub(crate) queue: &'a Q,
    pub(crate) config: &'a Config,
    pub(crate) by: &'a str,
    /// [`HistoryEvent::Requeued`] or [`HistoryEvent::Released`].
    pub(crate) what: &'a HistoryEvent,
    /// Delivery key and generation of the last one.
    pub(crate) last: Option<(String, u32)>,
}

impl<H: DeliveryStore, Q: Operate> LetterAction for Requeue<'_, H, Q> {
    /// An event that was set apart is released, with a reason; all others are requeued. A letter
    /// that the store doesn't know may come from anyone who can write to the broker.
    fn suits(&mut self, letter: &Letter<'_>) -> bool {
        let released = matches!(self.what, HistoryEvent::Released { .. });
        letter.is_set_apart() == released && (letter.known.is_some() || self.is_subscribed(letter))
    }

    async fn on(&mut self, letter: &Letter<'_>) -> Result<bool, AdminError> {
        let key = &letter.opened.key;
        let last = letter.known.map_or(letter.message.generation, |known| known.record.generation);
        let generation = last.saturating_add(1);
        // The history entry comes first: no requeue without one. A forgotten delivery starts a new
        // history with its claim.
        self.histories.note(key, generation, self.by, self.what).await?;
        let next = Message { attempt: 1, generation, dead: None, ..letter.message.clone() };
        let next = countersign(&self.config.seal, key.destination(), next)?;
        self.queue.requeue(key.destination(), &next).await?;
        self.last = Some((key.to_string(), generation));
        Ok(true)
    }
}

impl<H, Q> Requeue<'_, H, Q> {
    fn is_subscribed(&self, letter: &Letter<'_>) -> bool {
        let Letter { message, opened, .. } = letter;
        let name = opened.key.destination();
        // A message without a valid seal is requeued unchanged.
        let Ok(event) = &opened.event else { return true };
        let mut all = self.config.destinations.iter().filter(|one| one.name == name);
        is_countersigned(&self.config.seal, name, message)
            || all.any(|one| takes(&one.subscribe, &event.envelope.route()))
    }
}

/// Drain: out of the queue for good, after an export if one is requested.
pub(super) struct Drain<'a, H> {
    pub(super) histories: &'a H,
    pub(super) by: &'a str,
    pub(super) reason: &'a str,
    pub(super) file: Option<BufWriter<File>>,
    /// The configuration for redaction; `None`: no redaction.
    pub(super) redacts: Option<&'a Config>,
    /// Exported, but not in the history yet.
    pub(super) waiting: Vec<(DeliveryKey, u32)>,
}

/// Opens a file for appending that only its owner can read.
pub(super) fn export(path: &Path) -> Result<BufWriter<File>, AdminError> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    let failed = |error| {
        let message = format!("cannot write {}: {error}", path.display());
        AdminError::new(ErrorCode::FileUnusable, message).hint("Name another file.")
    };
    file.map(BufWriter::new).map_err(failed)
}

/// One line of an export.
#[derive(Serialize)]
struct Line<'a> {
    delivery: &'a str,
    dead: Option<&'a str>,
    attempt: u32,
    generation: u32,
    event: &'a Summary,
    /// The redacted body.
    body_base64: String,
    /// Envelope and seal, so that the event can still be verified.
    envelope: String,
    seal: &'a str,
}

impl<H: DeliveryStore> LetterAction for Drain<'_, H> {
    async fn on(&mut self, letter: &Letter<'_>) -> Result<bool, AdminError> {
        let Letter { message, opened, .. } = letter;
        if let Some(file) = &mut self.file {
            let line = Line {
                delivery: opened.key.as_str(),
                dead: message.dead.map(DeadReason::as_str),
                attempt: message.attempt,
                generation: message.generation,
                event: &match self.redacts {
                    Some(config) => payload::summary(config, &opened.summary),
                    None => opened.summary.clone(),
                },
                body_base64: STANDARD.encode(match self.redacts {
                    Some(config) => shown(config, &opened.summary.source, &message.sealed.body),
                    None => message.sealed.body.clone(),
                }),
                envelope: match self.redacts {
                    Some(config) => payload::envelope(config, &message.sealed.envelope),
                    None => String::from_utf8_lossy(&message.sealed.envelope).into_owned(),
                },
                seal: &message.sealed.seal,
            };
            serde_json::to_writer(&mut *file, &line).map_err(std::io::Error::from)?;
            writeln!(file)?;
        }
        self.waiting.push((opened.key.clone(), message.generation));
        Ok(false)
    }

    /// First the disk, then the history; the letters are removed afterwards.
    async fn flush(&mut self) -> Result<(), AdminError> {
        if let Some(file) = &mut self.file {
            file.flush()?;
            file.get_ref().sync_data()?;
        }
        let what = HistoryEvent::Discarded { reason: self.reason.to_owned() };
        for (key, generation) in self.waiting.drain(..) {
            self.histories.note(&key, generation, self.by, &what).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use webhook_verify::Secret;
    use zentra_core::seal::{Key, Sealed, Sealer};
    use zentra_sqlite::{EmbeddedJournal, Store};
    use zentra_store::delivery;

    use super::*;

    #[tokio::test]
    async fn a_letter_is_in_the_file_before_its_pass_lets_it_go() {
        let folder = std::env::temp_dir().join(format!("zentra-drain-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (exported, journal) = (folder.join("dead.jsonl"), folder.join("zentra.db"));
        let store = Store::open(&journal, 1 << 24).unwrap();
        let histories = EmbeddedJournal::new(store, std::time::Duration::from_secs(60));
        let key = Key { name: "k".into(), secret: Secret::new("0123456789abcdef") };
        let sealed = Sealed {
            envelope: "{}".into(),
            seal: "v1,k,AA==".into(),
            body: "its bytes".into(),
            route: String::new(),
            id: "acme/evt_1".into(),
            trace: None,
        };
        let message = Message::new(sealed);
        let sealer = Sealer::new(vec![key]).unwrap();
        let opened = delivery::open(&sealer, "ledger", &message.sealed);
        let letter = Letter { message: &message, opened: &opened, known: None };
        let (file, waiting) = (Some(export(&exported).unwrap()), Vec::new());
        let (by, reason, redacts) = ("ada", "x", None);
        let mut drain = Drain { histories: &histories, by, reason, file, redacts, waiting };
        assert!(!drain.on(&letter).await.unwrap(), "it may not go yet");
        drain.flush().await.unwrap();
        let written = std::fs::read_to_string(&exported).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let line: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(line["body_base64"], STANDARD.encode("its bytes"));
        drop(drain);
    }
}
