//! [`Monitor`]: what a stage says while it runs. Nothing below the command line prints.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::error::Error;

/// Listens to a stage. All methods may be called from any thread, and must return quickly.
pub trait Monitor: Send + Sync {
    /// A part of the work begins: how many items and bytes it expects, where known.
    fn begin(&self, task: &str, items: u64, bytes: u64) {
        let _ = (task, items, bytes);
    }

    /// `bytes` more have been moved (or found to be there already).
    fn advance(&self, bytes: u64) {
        let _ = bytes;
    }

    /// One item of the current part is done.
    fn item(&self, name: &str) {
        let _ = name;
    }

    /// The current part is over.
    fn end(&self) {}

    /// Something that the operator should read and that changes nothing about the result.
    fn note(&self, text: &str) {
        let _ = text;
    }

    /// Something went wrong that does not stop the stage: it goes on, and its report says so too.
    fn problem(&self, error: &Error) {
        let _ = error;
    }
}

/// Listens to nothing.
pub struct Silent;

impl Monitor for Silent {}

/// Keeps what it hears, for tests and for reports.
#[derive(Default)]
pub struct Recording {
    /// Bytes that were moved.
    pub bytes: AtomicU64,
    /// Notes and problems, in the order in which they came.
    pub lines: Mutex<Vec<String>>,
}

impl Recording {
    /// What was noted so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Monitor for Recording {
    fn advance(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn note(&self, text: &str) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(text.to_owned());
    }

    fn problem(&self, error: &Error) {
        self.note(&error.to_string());
    }
}
