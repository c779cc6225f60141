//! What is wrong with a document: where, what, what was expected, what to do.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::mask;
use crate::error::Error;

/// How many diagnostics are shown; someone who pasted the wrong file needs no thousand.
const SHOWN_MAX: usize = 20;

/// The text of a document, and what of it may be shown.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) file: PathBuf,
    pub(super) text: Arc<str>,
    /// As long as `text`, with everything that looks like a secret starred out.
    pub(super) shown: Arc<str>,
    /// Where each line begins, so that a place is found without reading the text again.
    lines: Vec<usize>,
}

impl Source {
    pub(super) fn new(file: &Path, text: &str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(after_newlines).collect();
        Source { file: file.into(), text: text.into(), shown: mask::secrets(text).into(), lines }
    }

    /// The line of a byte, from 1, and where that line begins.
    pub(super) fn line(&self, at: usize) -> (usize, usize) {
        let line = self.lines.partition_point(|&start| start <= at);
        (line, line.checked_sub(1).and_then(|index| self.lines.get(index)).copied().unwrap_or_default())
    }
}

/// What is wrong, without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What was found.
    pub message: String,
    /// What was expected there.
    pub expected: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
}

impl Fault {
    /// A fault that says what was found.
    pub fn new(message: impl Into<String>) -> Self {
        Fault { message: clean(message.into()), expected: None, help: None }
    }

    /// Says what was expected: completes "expected …".
    #[must_use]
    pub fn expected(mut self, text: impl Into<String>) -> Self {
        self.expected = Some(clean(text.into()));
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(clean(text.into()));
        self
    }
}

impl<T: Into<String>> From<T> for Fault {
    fn from(message: T) -> Self {
        Fault::new(message)
    }
}

/// Messages quote the document; what it holds must not move the cursor of a terminal.
fn clean(text: String) -> String {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
    } else {
        text
    }
}

/// A place in a document.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// The bytes of the document that it is about, all on that line.
    pub span: Range<usize>,
    /// The whole document as it may be shown.
    pub(super) text: Arc<str>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} ({:?})", self.line, self.column, self.span)
    }
}

/// One thing that is wrong with one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Where in it; `None` when the file as a whole could not be taken.
    pub place: Option<Place>,
    /// What is wrong.
    pub fault: Fault,
}

impl Diagnostic {
    fn group(&self) -> Group<'_> {
        let file = self.file.to_string_lossy();
        let Some(place) = &self.place else {
            let title = clean(format!("{file}: {}", self.fault.message));
            let expected = self.fault.expected.iter().map(|text| Level::NOTE.message(format!("expected {text}")));
            return Level::ERROR.primary_title(title).elements(expected);
        };
        let mark = AnnotationKind::Primary.span(place.span.clone());
        let mark = match &self.fault.expected {
            Some(expected) => mark.label(format!("expected {expected}")),
            None => mark,
        };
        let snippet = Snippet::source(&*place.text).path(clean(file.into_owned())).annotation(mark);
        let group = Level::ERROR.primary_title(&*self.fault.message).element(snippet);
        group.elements(self.fault.help.iter().map(|help| Level::HELP.message(&**help)))
    }
}

impl fmt::Display for Diagnostic {
    /// One line: `file:line:column: message; expected …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", clean(self.file.display().to_string()))?;
        if let Some(place) = &self.place {
            write!(f, "{}:{}:", place.line, place.column)?;
        }
        write!(f, " {}", self.fault.message)?;
        match &self.fault.expected {
            Some(expected) => write!(f, "; expected {expected}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with one file or with several; at least one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics(Vec<Diagnostic>);

impl Diagnostics {
    pub(super) fn new(found: Vec<Diagnostic>) -> Self {
        Diagnostics(found)
    }

    /// A file that could not be taken as a whole.
    pub(super) fn of_file(file: &Path, fault: Fault) -> Self {
        Diagnostics(vec![Diagnostic { file: file.into(), place: None, fault }])
    }

    /// Adds what is wrong with another file.
    pub fn extend(&mut self, others: Diagnostics) {
        self.0.extend(others.0);
    }

    /// One by one, in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.0.iter()
    }

    /// The text for a person: each with its line of the document, in colour if `coloured`.
    pub fn render(&self, coloured: bool) -> String {
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        let shown = self.0.iter().take(SHOWN_MAX);
        let mut blocks: Vec<String> = shown.map(|diagnostic| renderer.render(&[diagnostic.group()])).collect();
        if let Some(more @ 1..) = self.0.len().checked_sub(SHOWN_MAX) {
            blocks.push(format!("… and {more} more"));
        }
        blocks.join("\n\n")
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Diagnostics {}

impl From<Diagnostics> for Error {
    /// A usage error whose text is the rendered one. The first "error: " is left to whoever prints it.
    fn from(diagnostics: Diagnostics) -> Self {
        let text = diagnostics.render(false);
        Error::usage(text.strip_prefix("error: ").unwrap_or(&text))
    }
}
