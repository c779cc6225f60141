//! What reaches the terminal: reports on standard output, everything else on standard error.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is where printing is done")]

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use serde::Serialize;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::Output;
use crate::error::{Error, Result};

/// Log lines go to standard error; `SEALIFT_LOG` takes a filter such as `debug`. Libraries below are kept at warnings,
/// whatever it says: their details are what goes over the wire, and that may be a secret.
pub(super) fn start_log(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_env("SEALIFT_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let own = filter_fn(|line| line.target().starts_with(env!("CARGO_CRATE_NAME")) || *line.level() <= Level::WARN);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(coloured());
    tracing_subscriber::registry().with(filter).with(own).with(lines).init();
}

/// Whether standard error may have colours: a terminal, and `NO_COLOR` is not set (no-color.org).
pub(super) fn coloured() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// An error as people read it: one line, and what can be done.
pub fn describe(error: &Error) -> String {
    clean(match error.help_text() {
        Some(help) => format!("error: {error}\n  help: {help}"),
        None => format!("error: {error}"),
    })
}

/// Prints an error and gives its exit status.
pub(super) fn fail(error: &Error) -> ExitCode {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(std::io::stderr(), "{}", describe(error));
    ExitCode::from(error.kind().exit_status())
}

/// Prints a report: as JSON, or as `human` renders it. A reader that has gone (`| head`) is no error.
pub(super) fn report<R: Serialize>(output: Output, report: &R, human: impl FnOnce(&R) -> String) -> Result<()> {
    let text = match output {
        Output::Json => {
            let mut text = serde_json::to_string_pretty(report).map_err(|error| Error::failed(error.to_string()))?;
            text.push('\n');
            text
        }
        Output::Human => clean(human(report)),
    };
    print(&text)
}

/// Reports and errors quote documents and names of files; what those hold must not move the cursor of a terminal.
pub(super) fn clean(text: String) -> String {
    let moves = |c: char| c.is_control() && c != '\n';
    if text.chars().any(moves) { text.replace(moves, "\u{fffd}") } else { text }
}

/// A text of people, in one line and not too long for one.
pub(super) fn one_line(text: &str) -> String {
    const LENGTH_MAX: usize = 200;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LENGTH_MAX) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

/// Prints text to standard output.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Prints a line to standard error.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A number of bytes for people: `12.3 MiB`.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// `1 image`, `2 images`.
pub(super) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}
