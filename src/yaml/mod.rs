//! YAML documents that people write: read within bounds, and every error with its line.
//!
//! One event walk (`tree`) makes a tree of the keys and values with their places; serde makes the
//! types from the same text; what serde or a later check complains about is looked up in the tree.
//! Everything ends as a [`Diagnostic`] that shows the line and says what was expected.
//!
//! Refused in every document: anchors, aliases and tags (nothing here needs them, and a few lines of
//! aliases can unfold to gigabytes), a second document, duplicate keys, and written-down credentials.

mod cursor;
mod diagnostic;
mod label;
mod mask;
mod schema;
mod similar;
mod tree;
mod values;
mod words;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;

pub use cursor::At;
pub use diagnostic::{Diagnostic, Diagnostics, Fault, Place};
pub use label::{LABEL_LENGTH_MAX, is_label};
pub use schema::{NotHonoured, schema};
use tree::{Located, Node};

/// The version that every document names.
pub const API_VERSION: &str = "sealift/v1";

/// The kinds of documents that there are.
pub const KINDS: [&str; 3] = ["MirrorSpec", "Site", "Config"];

/// The largest document that is read. The largest sensible one is a hundredth of this.
pub const SIZE_MAX: u64 = 1024 * 1024;

/// How many faults of one document are kept: enough to say everything, and a bound on the work.
const FOUND_MAX: usize = 1000;

/// A document whose syntax is right.
#[derive(Debug)]
pub struct Document {
    source: diagnostic::Source,
    root: Node,
}

impl Document {
    /// Reads the document in `file`.
    pub fn read(file: &Path) -> Result<Self, Diagnostics> {
        let bytes = read_bounded(file).map_err(|why| Diagnostics::of_file(file, why))?;
        Self::parse(file, &bytes)
    }

    /// Takes `bytes` as the document; `file` is what messages call it.
    pub fn parse(file: &Path, bytes: &[u8]) -> Result<Self, Diagnostics> {
        if bytes.len() as u64 > SIZE_MAX {
            return Err(Diagnostics::of_file(file, too_large()));
        }
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let line = bytes.iter().take(error.valid_up_to()).filter(|&&b| b == b'\n').count() + 1;
            Diagnostics::of_file(file, Fault::new(format!("line {line} is not UTF-8")).expected("text in UTF-8"))
        })?;
        // The tree's offsets are those of this text, so the mark goes before anything looks at it.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let source = diagnostic::Source::new(file, text);
        match tree::walk(text) {
            Ok(root) => Ok(Document { source, root }),
            Err(faults) => Err(source.diagnostics(faults)),
        }
    }

    /// The file, as it was named.
    pub fn file(&self) -> &Path {
        &self.source.file
    }

    /// The document as its types, after what can be said better without them: its `kind`, and that it
    /// holds no credentials.
    pub fn deserialize<T: DeserializeOwned>(&self, kind: &str) -> Result<T, Diagnostics> {
        self.check(|at| cursor::header(at, kind))?;
        self.check(|at| {
            mask::refuse_credentials(at);
            Some(())
        })?;
        let yaml = serde_yaml::Deserializer::from_str(&self.source.text);
        serde_path_to_error::deserialize(yaml)
            .map_err(|error| self.source.diagnostics(vec![words::located(&self.root, &self.source.text, &error)]))
    }

    /// Runs a check of the meaning. It gets a cursor on the document, reports there as much as it
    /// finds, and its result counts when it reported nothing.
    pub fn check<T>(&self, check: impl FnOnce(At<'_>) -> Option<T>) -> Result<T, Diagnostics> {
        let sink = cursor::Sink::default();
        let made = check(At::root(self, &sink));
        let found = sink.into_inner();
        match made {
            Some(made) if found.is_empty() => Ok(made),
            // A check that made nothing and said nothing is a fault of its own; it must not pass.
            _ if found.is_empty() => {
                Err(self.source.diagnostics(vec![Located::new(0..0, "the document is not what it must be")]))
            }
            _ => Err(self.source.diagnostics(found)),
        }
    }

    /// `path` as this document means it: relative to the folder that the document is in.
    pub fn resolve(&self, path: &str) -> PathBuf {
        self.file().parent().unwrap_or(Path::new("")).join(path)
    }
}

fn too_large() -> Fault {
    Fault::new(format!("the file is larger than {} KiB", SIZE_MAX / 1024)).expected("a document that a person wrote")
}

fn read_bounded(file: &Path) -> Result<Vec<u8>, Fault> {
    let fail = |error: std::io::Error| Fault::new(format!("cannot be read: {error}"));
    let opened = std::fs::File::open(file).map_err(fail)?;
    if opened.metadata().map_err(fail)?.is_dir() {
        return Err(Fault::new("is a folder").expected("a YAML file"));
    }
    let mut bytes = Vec::new();
    opened.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(fail)?;
    Ok(bytes)
}

impl diagnostic::Source {
    /// The diagnostics for what was found in this source, in the order of the text.
    fn diagnostics(&self, mut found: Vec<Located>) -> Diagnostics {
        found.sort_by_key(|located| located.span.start);
        found.truncate(FOUND_MAX);
        Diagnostics::new(found.into_iter().map(|located| self.diagnostic(located)).collect())
    }

    fn diagnostic(&self, located: Located) -> Diagnostic {
        let span = one_line(&self.text, located.span);
        let (line, begin) = self.line(span.start);
        let column = self.text.get(begin..span.start).unwrap_or_default().chars().count() + 1;
        let place = Place { line, column, span, text: Arc::clone(&self.shown) };
        Diagnostic { file: self.file.clone(), place: Some(place), fault: located.fault }
    }
}

/// The part of `span` that lies on its first line; never empty where the line goes on, and always on
/// boundaries of characters.
fn one_line(text: &str, span: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let boundary = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let (start, end) = (boundary(span.start), boundary(span.end));
    let rest = text.get(start..).unwrap_or_default();
    let line = rest.split(['\n', '\r']).next().unwrap_or_default().trim_end();
    let end = if end > start { end.min(start + line.len()) } else { start + line.len() };
    start..end.max(start)
}
