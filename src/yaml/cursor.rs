//! A place in a document that a check of the meaning walks along with the types.

use std::cell::RefCell;
use std::fmt::Display;
use std::str::FromStr;

use super::tree::{Located, Node, Shape};
use super::{API_VERSION, Document, Fault, KINDS, similar};

/// Where checks put what they find.
pub(super) type Sink = RefCell<Vec<Located>>;

/// A cursor on one value of a document.
#[derive(Clone, Copy)]
pub struct At<'d> {
    document: &'d Document,
    node: &'d Node,
    sink: &'d Sink,
}

impl<'d> At<'d> {
    pub(super) fn root(document: &'d Document, sink: &'d Sink) -> Self {
        At { document, node: &document.root, sink }
    }

    pub(super) fn node(self) -> &'d Node {
        self.node
    }

    fn to(self, node: Option<&'d Node>) -> Self {
        At { node: node.unwrap_or(self.node), ..self }
    }

    pub(super) fn at(self, node: &'d Node) -> Self {
        At { node, ..self }
    }

    /// The document.
    pub fn document(self) -> &'d Document {
        self.document
    }

    /// The value below `key`; where the document has no such key, the cursor stays.
    pub fn key(self, key: &str) -> Self {
        self.to(self.node.get(key))
    }

    /// The value at `index` of a list; beyond its end the cursor stays.
    pub fn item(self, index: usize) -> Self {
        self.to(self.node.item(index))
    }

    /// Whether the document has `key` here.
    pub fn has(self, key: &str) -> bool {
        self.node.get(key).is_some()
    }

    /// `file:line`, for messages that come later.
    pub fn place(self) -> String {
        let (line, _) = self.document.source.line(self.node.span().start);
        format!("{}:{line}", self.document.file().display())
    }

    /// Reports something wrong with the value.
    pub fn wrong(self, fault: impl Into<Fault>) {
        self.sink.borrow_mut().push(Located::new(self.node.span(), fault));
    }

    /// Reports something wrong with the key, or with the value if it is in a list.
    pub fn wrong_key(self, fault: impl Into<Fault>) {
        let span = self.node.key.clone().unwrap_or_else(|| self.node.span());
        self.sink.borrow_mut().push(Located::new(span, fault));
    }

    /// Reports something that is known and planned, but not honoured: accepting it would be a promise.
    pub fn not_honoured(self, what: &str, instead: &str) {
        self.wrong(Fault::new(format!("not honoured by this version: {what}")).help(format!("use {instead}")));
    }

    /// `text` parsed; what its type complains about is reported here.
    pub fn parsed<T: FromStr<Err: Display>>(self, text: &str) -> Option<T> {
        text.parse().map_err(|error: T::Err| self.wrong(error.to_string())).ok()
    }
}

/// Whether the document is a mapping that names this version and `kind`.
pub(super) fn header(at: At<'_>, kind: &str) -> Option<()> {
    if !matches!(at.node.shape, Shape::Map(_)) {
        at.wrong(Fault::new(format!("not a {kind}")).expected("a mapping that begins with apiVersion and kind"));
        return None;
    }
    expect(at, "apiVersion", API_VERSION, &[])?;
    expect(at, "kind", kind, &KINDS)
}

fn expect(at: At<'_>, key: &str, wanted: &str, known: &[&str]) -> Option<()> {
    match at.node.get(key).map(|node| &node.shape) {
        Some(Shape::Scalar(text)) if text == wanted => return Some(()),
        Some(Shape::Scalar(text)) if known.contains(&text.as_str()) => {
            at.key(key).wrong(Fault::new(format!("this file is a {text}")).expected(format!("a {wanted}")));
        }
        Some(_) => at.key(key).wrong(Fault::new(format!("wrong {key}")).expected(format!("`{wanted}`"))),
        None => {
            let fault = Fault::new(format!("the key `{key}` is missing")).expected(format!("`{key}: {wanted}`"));
            at.wrong(match similar_key(at, key) {
                Some(written) => fault.help(format!("`{written}` is written `{key}`")),
                None => fault,
            });
        }
    }
    None
}

fn similar_key<'d>(at: At<'d>, wanted: &str) -> Option<&'d str> {
    let Shape::Map(members) = &at.node.shape else { return None };
    let written: Vec<&str> = members.keys().map(String::as_str).collect();
    similar::closest(wanted, &written)
}
