//! The shape of a document, and where each of its parts stands.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

use granit_parser::{Event, Parser, ScanError, Span};

use super::Fault;

/// How deep mappings and lists may lie in each other. The types need six levels.
const DEPTH_MAX: usize = 32;

/// How many keys, values and lists a document may have.
const NODES_MAX: usize = 100_000;

/// A fault and the bytes of the text that it is about.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) span: Range<usize>,
    pub(super) fault: Fault,
}

impl Located {
    pub(super) fn new(span: Range<usize>, fault: impl Into<Fault>) -> Self {
        Located { span, fault: fault.into() }
    }
}

/// A value, its place, and the place of its key where it has one.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) key: Option<Range<usize>>,
    pub(super) value: Range<usize>,
    pub(super) shape: Shape,
}

/// What a value is made of.
#[derive(Debug)]
pub(super) enum Shape {
    Scalar(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
}

impl Node {
    /// The bytes that stand for this value. A value that was left out has none: its key stands for it.
    pub(super) fn span(&self) -> Range<usize> {
        let left_out = self.value.is_empty() && matches!(self.shape, Shape::Scalar(_));
        match &self.key {
            Some(key) if left_out => key.clone(),
            _ => self.value.clone(),
        }
    }

    /// The value below `key`, if this is a mapping that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        match &self.shape {
            Shape::Map(members) => members.get(key),
            _ => None,
        }
    }

    /// The value at `index`, if this is a list that goes so far.
    pub(super) fn item(&self, index: usize) -> Option<&Node> {
        match &self.shape {
            Shape::List(items) => items.get(index),
            _ => None,
        }
    }
}

/// The tree of the one document in `text`; or everything that keeps it from being one.
pub(super) fn walk(text: &str) -> Result<Node, Vec<Located>> {
    let options = granit_parser::options! {
        emit_comments: false,
        // Somewhat above the limit of the walk, which says more; this one bounds the scanner's memory.
        flow_nesting_limit: DEPTH_MAX * 2,
        block_nesting_limit: DEPTH_MAX * 2,
    };
    let events = Parser::new_from_str_with_options(text, options);
    let mut walker = Walker { events, text, nodes: 0, duplicates: Vec::new() };
    match walker.document() {
        Ok(root) if walker.duplicates.is_empty() => Ok(root),
        Ok(_) => Err(walker.duplicates),
        Err(stopped) => {
            walker.duplicates.push(stopped);
            Err(walker.duplicates)
        }
    }
}

struct Walker<'t, E> {
    events: E,
    text: &'t str,
    nodes: usize,
    duplicates: Vec<Located>,
}

impl<'t, E: Iterator<Item = Result<(Event<'t>, Span), ScanError>>> Walker<'t, E> {
    fn document(&mut self) -> Result<Node, Located> {
        let (event, span) = loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(..), _) => {}
                found => break found,
            }
        };
        if event == Event::StreamEnd {
            return Err(Located::new(0..0, Fault::new("the document is empty").expected("apiVersion, kind, …")));
        }
        let root = self.node(event, &span, 0)?;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(root),
                (Event::DocumentStart(..), span) => {
                    return Err(Located::new(
                        bytes(&span),
                        Fault::new("a second document begins here").expected("one document in a file"),
                    ));
                }
                _ => {}
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'t>, Span), Located> {
        match self.events.next() {
            Some(Ok(found)) => Ok(found),
            Some(Err(error)) => {
                let at = error.marker().byte_offset().unwrap_or(self.text.len());
                let fault = Fault::new(format!("not valid YAML: {}", error.info()));
                match indenting_tab(self.text, at) {
                    Some(tab) => {
                        Err(Located::new(tab..tab, fault.help("indent with spaces: YAML takes no tabs there")))
                    }
                    None => Err(Located::new(at..at, fault)),
                }
            }
            None => Err(Located::new(self.text.len()..self.text.len(), "the document breaks off")),
        }
    }

    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Result<Node, Located> {
        self.refuse(&event, span, depth)?;
        let value = bytes(span);
        let shape = match event {
            Event::Scalar(text, ..) => Shape::Scalar(text.into_owned()),
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.map(depth)?,
            _ => return Err(Located::new(value, "not valid YAML: a value is missing")),
        };
        Ok(Node { key: None, value, shape })
    }

    /// The bounds, and the parts of YAML that are not taken.
    fn refuse(&mut self, event: &Event<'t>, span: &Span, depth: usize) -> Result<(), Located> {
        let no = |fault: Fault| Err(Located::new(bytes(span), fault));
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return no(Fault::new(format!("the document has more than {NODES_MAX} keys and values")));
        }
        if depth > DEPTH_MAX {
            return no(Fault::new(format!("more than {DEPTH_MAX} mappings and lists lie in each other")));
        }
        let (anchor, tagged) = match event {
            Event::Alias(_) => (1, false),
            Event::Scalar(_, _, anchor, tag)
            | Event::SequenceStart(_, anchor, tag)
            | Event::MappingStart(_, anchor, tag) => (*anchor, tag.is_some()),
            _ => (0, false),
        };
        if anchor != 0 {
            return no(Fault::new("YAML anchors (&name) and aliases (*name) are not taken")
                .expected("the value itself")
                .help("put text that begins with & or * in quotes; what several images share goes to `defaults`"));
        }
        if tagged {
            return no(Fault::new("YAML tags (!name) are not taken")
                .expected("the value itself")
                .help("put text that begins with ! in quotes"));
        }
        Ok(())
    }

    fn list(&mut self, depth: usize) -> Result<Shape, Located> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Shape::List(items)),
                (event, span) => items.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Shape, Located> {
        let mut members: BTreeMap<String, Node> = BTreeMap::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Shape::Map(members));
            }
            let key = self.node(event, &span, depth + 1)?;
            let Shape::Scalar(name) = key.shape else {
                return Err(Located::new(key.value, Fault::new("a key is a mapping or a list").expected("a word")));
            };
            let (event, span) = self.next()?;
            let node = Node { key: Some(key.value.clone()), ..self.node(event, &span, depth + 1)? };
            match members.entry(name) {
                Entry::Vacant(free) => drop(free.insert(node)),
                Entry::Occupied(taken) => {
                    let fault = Fault::new(format!("the key `{}` stands here a second time", taken.key()));
                    self.duplicates.push(Located::new(key.value, fault.expected("each key once")));
                }
            }
        }
    }
}

/// The tab that indents the line of `at` or the one after it: the likeliest cause of an error there,
/// and one that cannot be seen.
fn indenting_tab(text: &str, at: usize) -> Option<usize> {
    let mut start = text.get(..at)?.rfind('\n').map_or(0, |newline| newline + 1);
    for line in text.get(start..)?.split_inclusive('\n').take(2) {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        if let Some(tab) = line.get(..indent).and_then(|indent| indent.find('\t')) {
            return Some(start + tab);
        }
        start += line.len();
    }
    None
}

fn bytes(span: &Span) -> Range<usize> {
    // The parser reads a string slice, for which it always knows byte offsets.
    let start = span.start.byte_offset().unwrap_or_default();
    start..span.end.byte_offset().unwrap_or(start).max(start)
}
