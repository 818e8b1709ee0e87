//! What a person sees who waits.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use zentra_admin::progress::Progress;

/// A line that changes; to a file or a pipe nothing is written.
pub(crate) struct Bar {
    line: ProgressBar,
    /// Whether it moves by itself.
    ticks: AtomicBool,
}

impl Bar {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        Self { line: bar, ticks: AtomicBool::new(false) }
    }
}

impl Progress for Bar {
    fn show(&self, text: String) {
        if !self.ticks.swap(true, Ordering::Relaxed) {
            self.line.enable_steady_tick(Duration::from_millis(100));
        }
        self.line.set_message(text);
    }

    fn done(&self) {
        self.ticks.store(false, Ordering::Relaxed);
        self.line.disable_steady_tick();
        self.line.finish_and_clear();
        self.line.reset();
    }
}
