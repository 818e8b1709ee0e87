//! A stream of JSON lines to a reader that can be gone or too slow.

use std::io::Write;

use bytes::Bytes;
use tokio::sync::mpsc;
use zentra_admin::event::{Change, Sink};

use crate::delivery;

/// Unsent lines for a reader that can be gone or too slow.
pub(crate) struct Lines {
    written: Vec<u8>,
    sender: mpsc::Sender<Bytes>,
}

impl Lines {
    pub(crate) fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self { written: Vec::new(), sender }
    }
}

impl Sink for Lines {
    fn change(&mut self, change: &Change<'_>) -> bool {
        let written = serde_json::to_writer(&mut self.written, &delivery::Change::from(change));
        written.is_ok() && writeln!(self.written).is_ok()
    }

    fn looked(&mut self) -> bool {
        if self.written.is_empty() {
            return !self.sender.is_closed();
        }
        let written = std::mem::take(&mut self.written);
        self.sender.try_send(written.into()).is_ok()
    }
}
