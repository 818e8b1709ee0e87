//! What a person sees who waits.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use zentra_admin::progress::Progress;

/// A line that changes; to a file or a pipe nothing is written.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    pub(crate) fn new() -> Self {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        Self(bar)
    }
}

impl Progress for Bar {
    fn show(&self, text: String) {
        self.0.enable_steady_tick(Duration::from_millis(100));
        self.0.set_message(text);
    }

    fn done(&self) {
        self.0.disable_steady_tick();
        self.0.finish_and_clear();
        self.0.reset();
    }
}
