//! [`Monitor`]: what a stage says while it runs. Nothing below the command line prints.

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
