//! Progress: bars on a terminal, plain lines elsewhere, both on standard error.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{count, describe, say, size};
use crate::error::Error;
use crate::monitor::Monitor;

/// How often a plain line says how far it is.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows what a stage says.
pub(super) struct Progress {
    bars: bool,
    part: Mutex<Option<Part>>,
}

struct Part {
    task: String,
    bytes: u64,
    done: u64,
    items: u64,
    bar: Option<ProgressBar>,
    began: Instant,
    said: Instant,
}

impl Progress {
    pub(super) fn new() -> Self {
        use std::io::IsTerminal;
        Progress { bars: std::io::stderr().is_terminal(), part: Mutex::new(None) }
    }

    fn with(&self, change: impl FnOnce(&mut Part)) {
        if let Some(part) = self.part.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            change(part);
        }
    }

    /// A line between bars, without tearing them.
    fn line(&self, text: &str) {
        let part = self.part.lock().unwrap_or_else(PoisonError::into_inner);
        match part.as_ref().and_then(|part| part.bar.as_ref()) {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }
}

fn bar(task: &str, bytes: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
    let template = if bytes > 0 {
        "{msg} {wide_bar} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}"
    } else {
        "{msg} {spinner} {elapsed}"
    };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(task.to_owned());
    bar
}

impl Monitor for Progress {
    fn begin(&self, task: &str, items: u64, bytes: u64) {
        let bar = self.bars.then(|| bar(task, bytes));
        if !self.bars && bytes > 0 {
            say(&format!("{task}: {}, {}", count(items, "item"), size(bytes)));
        }
        let now = Instant::now();
        let part = Part { task: task.to_owned(), bytes, done: 0, items: 0, bar, began: now, said: now };
        *self.part.lock().unwrap_or_else(PoisonError::into_inner) = Some(part);
    }

    fn advance(&self, bytes: u64) {
        self.with(|part| {
            part.done += bytes;
            match &part.bar {
                Some(bar) => bar.inc(bytes),
                None if part.said.elapsed() >= LINE_EVERY => {
                    part.said = Instant::now();
                    say(&format!("{}: {} of {}", part.task, size(part.done), size(part.bytes)));
                }
                None => {}
            }
        });
    }

    fn item(&self, _name: &str) {
        self.with(|part| part.items += 1);
    }

    fn end(&self) {
        let Some(part) = self.part.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        match part.bar {
            Some(bar) => bar.finish_and_clear(),
            None if part.bytes > 0 => {
                say(&format!("{}: {} in {:.1} s", part.task, size(part.done), part.began.elapsed().as_secs_f64()));
            }
            None => {}
        }
    }

    fn note(&self, text: &str) {
        self.line(&format!("note: {text}"));
    }

    fn problem(&self, error: &Error) {
        self.line(&describe(error));
    }
}
