//! What is made of the command line itself: completions for shells, and manual pages.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::CommandFactory;
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::failure::Failure;

const NAME: &str = "zentra";

/// Writes the completion script of a shell.
pub(crate) fn completions(shell: Shell, out: &mut impl Write) -> Result<(), Failure> {
    // It panics where it can't write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
    Ok(out.write_all(&script)?)
}

/// Writes a page for each command into a folder, such as `zentra-event-show.1`.
pub(crate) fn pages(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut written = Vec::new();
    let mut command = Arguments::command().name(NAME);
    command.build();
    page(&command, NAME, folder, &mut written).map_err(|error| {
        Failure::Asked(format!(
            "cannot write pages into {}: {error}\nName an existing folder.",
            folder.display()
        ))
    })?;
    Ok(written)
}

fn page(
    command: &clap::Command,
    name: &str,
    folder: &Path,
    written: &mut Vec<PathBuf>,
) -> std::io::Result<()> {
    let path = folder.join(format!("{name}.1"));
    let mut text = Vec::new();
    // clap's own names are for its own life; these are made once, by a command that then ends.
    let shown: &'static str = Box::leak(name.to_owned().into_boxed_str());
    clap_mangen::Man::new(command.clone().name(shown)).render(&mut text)?;
    std::fs::write(&path, text)?;
    written.push(path);
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        page(sub, &format!("{name}-{}", sub.get_name()), folder, written)?;
    }
    Ok(())
}
