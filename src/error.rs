//! How things go wrong: one error type whose text is for the person on duty at night.
//!
//! An [`Error`] says on which side it happened, what was attempted, what came back and what can be
//! done about it. Its [`Kind`] answers the only question a caller has to ask (what can be done now),
//! and decides the exit status of the process.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error; each kind has one exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// Wrong usage, spec, site or configuration: mend what was written. Exit status 2.
    Usage,
    /// Bytes, a signature or a number are not what they must be: replace the medium. Exit status 5.
    Verification,
    /// It did not work: look at the cause, and run again. Exit status 1.
    Failed,
    /// A volume or a required baseline is not here: bring it. Exit status 6.
    Missing,
    /// The policy of a registry forbids it: change that policy, or the mode. Exit status 4.
    Refused,
    /// Done, but some images are not whole: the report names them. Exit status 3.
    Incomplete,
}

impl Kind {
    /// Every kind in the order in which exit statuses are preferred: the first that applies wins.
    pub const BY_PRECEDENCE: [Kind; 6] =
        [Kind::Usage, Kind::Verification, Kind::Failed, Kind::Missing, Kind::Refused, Kind::Incomplete];

    /// The exit status of a process that ends with an error of this kind.
    pub fn exit_status(self) -> u8 {
        match self {
            Kind::Usage => 2,
            Kind::Verification => 5,
            Kind::Failed => 1,
            Kind::Missing => 6,
            Kind::Refused => 4,
            Kind::Incomplete => 3,
        }
    }

    /// The kind that decides the exit status when several errors happened; `None` for none.
    pub fn first_of(kinds: impl IntoIterator<Item = Kind>) -> Option<Kind> {
        kinds.into_iter().min_by_key(|kind| Kind::BY_PRECEDENCE.iter().position(|k| k == kind))
    }
}

/// Where an error happened, as the operator sees the two worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The registry that images come from.
    Source,
    /// The store of the connected side.
    Store,
    /// The bundle on a drive.
    Bundle,
    /// The image layout that is made for other tools.
    Layout,
    /// The registry that images go to.
    Target,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Source => "source",
            Side::Store => "store",
            Side::Bundle => "bundle",
            Side::Layout => "layout",
            Side::Target => "target",
        })
    }
}

/// An error: kind, side, what was attempted (outermost first), what came back, what to do.
///
/// Its `Display` is one line, lower case, without a full stop; the help is printed apart by the
/// command line.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    side: Option<Side>,
    attempts: Vec<String>,
    message: String,
    help: Option<String>,
}

impl Error {
    /// An error of `kind` whose innermost text (what came back) is `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Error(Box::new(Inner { kind, side: None, attempts: Vec::new(), message: message.into(), help: None }))
    }

    /// [`Kind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Kind::Usage, message)
    }

    /// [`Kind::Verification`].
    pub fn verification(message: impl Into<String>) -> Self {
        Self::new(Kind::Verification, message)
    }

    /// [`Kind::Failed`].
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Says on which side it happened; the innermost side that was named stays.
    #[must_use]
    pub fn on(mut self, side: Side) -> Self {
        self.0.side.get_or_insert(side);
        self
    }

    /// Adds what was being attempted, around what was said before.
    #[must_use]
    pub fn while_(mut self, attempt: impl fmt::Display) -> Self {
        self.0.attempts.insert(0, attempt.to_string());
        self
    }

    /// Says what the operator can do. The innermost help stays: it knows most.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.0.help.get_or_insert(text.into());
        self
    }

    /// Says what the operator can do in place of what was said before, for a caller that knows more.
    #[must_use]
    pub fn help_first(mut self, text: impl Into<String>) -> Self {
        self.0.help = Some(text.into());
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The side on which it happened, where it was named.
    pub fn side(&self) -> Option<Side> {
        self.0.side
    }

    /// What the operator can do, where it is known.
    pub fn help_text(&self) -> Option<&str> {
        self.0.help.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(side) = self.0.side {
            write!(f, "{side}: ")?;
        }
        for attempt in &self.0.attempts {
            write!(f, "{attempt}: ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} error: {self}", self.0.kind)?;
        match &self.0.help {
            Some(help) => write!(f, " (help: {help})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        let help = match error.kind() {
            std::io::ErrorKind::StorageFull => {
                Some("free space on that file system and run the same command again: it goes on where it stopped")
            }
            std::io::ErrorKind::ReadOnlyFilesystem => {
                Some("the file system is read-only: remount it for writing, or choose another folder")
            }
            std::io::ErrorKind::PermissionDenied => Some("run as a user who may read and write there"),
            _ => None,
        };
        let made = Error::failed(error.to_string());
        match help {
            Some(help) => made.help(help),
            None => made,
        }
    }
}

/// What to do about a damaged catalog, for the middle of a help.
pub const REBUILD: &str = "run the next plan, pull or export with --rebuild: the catalog is thrown away, and made again from blobs and records";

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{
            CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, OutOfMemory, PermissionDenied, SystemIoFailure,
        };
        let made = Error::failed(format!("catalog.sqlite3: {error}")).on(Side::Store);
        match error.sqlite_error_code() {
            Some(DiskFull | SystemIoFailure) => {
                made.help("free space on the file system of the store and run the same command again: it goes on where it stopped")
            }
            Some(CannotOpen | DatabaseBusy | DatabaseLocked | OutOfMemory | PermissionDenied) => made,
            // Whatever else SQLite has against a file of its own making is damage of it: a table that is not there, a
            // value of another type.
            _ => made.help(REBUILD),
        }
    }
}

/// An error as it stands in reports and records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Problem {
    /// Side, attempt and answer, in one line.
    pub text: String,
    /// What can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// What that means: it decides the exit status.
    pub kind: Kind,
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Self {
        Problem { text: error.to_string(), help: error.help_text().map(str::to_owned), kind: error.kind() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Adds what was attempted to the error of a `Result`.
pub trait Context<T> {
    /// Adds what was being attempted.
    fn while_<A: fmt::Display>(self, attempt: impl FnOnce() -> A) -> Result<T>;
    /// Says on which side it happened.
    fn on(self, side: Side) -> Result<T>;
}

impl<T, E: Into<Error>> Context<T> for std::result::Result<T, E> {
    fn while_<A: fmt::Display>(self, attempt: impl FnOnce() -> A) -> Result<T> {
        self.map_err(|error| error.into().while_(attempt()))
    }

    fn on(self, side: Side) -> Result<T> {
        self.map_err(|error| error.into().on(side))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_outermost_attempt_first() {
        let error = Error::failed("404 MANIFEST_UNKNOWN")
            .while_("fetch manifest team/app:1")
            .while_("plan team/app")
            .on(Side::Source)
            .on(Side::Target);
        assert_eq!(error.to_string(), "source: plan team/app: fetch manifest team/app:1: 404 MANIFEST_UNKNOWN");
    }

    #[test]
    fn the_first_exit_status_that_applies_wins() {
        assert_eq!(Kind::first_of([Kind::Incomplete, Kind::Verification, Kind::Failed]), Some(Kind::Verification));
        assert_eq!(Kind::first_of([]), None);
        let statuses: Vec<u8> = Kind::BY_PRECEDENCE.iter().map(|k| k.exit_status()).collect();
        assert_eq!(statuses, [2, 5, 1, 6, 4, 3]);
    }
}
