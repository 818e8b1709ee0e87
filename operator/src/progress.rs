//! What a person sees who waits.

use indicatif::{ProgressBar, ProgressStyle};

/// A line that changes; to a file or a pipe nothing is written.
pub(crate) fn progress() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar
}
