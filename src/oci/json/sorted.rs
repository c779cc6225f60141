//! Writing JSON with sorted members and without a tree of the whole document: what waits to be sorted are the bytes of the
//! members of the objects that are open.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{Result, Write};
use std::rc::Rc;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// The bytes of `document` and a newline; with line breaks and an indentation of two spaces when `pretty`.
pub(super) fn write(document: &impl Serialize, pretty: bool) -> serde_json::Result<Vec<u8>> {
    let places = Places(Rc::new(RefCell::new(vec![Place::default()])));
    let formatter = Sorted { places: places.clone(), pretty, depth: 0, has_value: false };
    document.serialize(&mut Serializer::with_formatter(places.clone(), formatter))?;
    let mut bytes = places.take();
    bytes.push(b'\n');
    Ok(bytes)
}

/// Where bytes go: to the document itself, or to the key or value of the innermost open object.
#[derive(Clone)]
struct Places(Rc<RefCell<Vec<Place>>>);

#[derive(Default)]
struct Place {
    bytes: Vec<u8>,
    key: String,
    members: BTreeMap<String, Vec<u8>>,
}

impl Places {
    fn with<T>(&self, use_it: impl FnOnce(&mut Place) -> T) -> Result<T> {
        let mut places = self.0.borrow_mut();
        places.last_mut().map(use_it).ok_or_else(|| std::io::Error::other("an object ended that did not begin"))
    }

    /// What was written since the last time.
    fn take(&self) -> Vec<u8> {
        self.with(|place| std::mem::take(&mut place.bytes)).unwrap_or_default()
    }
}

impl Write for Places {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.with(|place| place.bytes.extend_from_slice(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Sorts the members of each object when it ends. White space is that of serde_json's own formatters.
struct Sorted {
    places: Places,
    pretty: bool,
    depth: usize,
    has_value: bool,
}

impl Sorted {
    fn new_line<W: ?Sized + Write>(&self, writer: &mut W) -> Result<()> {
        if !self.pretty {
            return Ok(());
        }
        writer.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| writer.write_all(b"  "))
    }
}

impl Formatter for Sorted {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.depth += 1;
        self.has_value = false;
        writer.write_all(b"[")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Result<()> {
        writer.write_all(if first { b"" } else { b"," })?;
        self.new_line(writer)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, _: &mut W) -> Result<()> {
        self.has_value = true;
        Ok(())
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        self.depth -= 1;
        if self.has_value {
            self.new_line(writer)?;
        }
        writer.write_all(b"]")
    }

    fn begin_object<W: ?Sized + Write>(&mut self, _: &mut W) -> Result<()> {
        self.depth += 1;
        self.places.0.borrow_mut().push(Place::default());
        Ok(())
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, _: &mut W, _: bool) -> Result<()> {
        Ok(())
    }

    fn end_object_key<W: ?Sized + Write>(&mut self, _: &mut W) -> Result<()> {
        // Sorted by what it says, not by how it is escaped.
        let key = serde_json::from_slice(&self.places.take())?;
        self.places.with(|place| place.key = key)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> Result<()> {
        Ok(())
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> Result<()> {
        self.places.with(|place| {
            let (key, value) = (std::mem::take(&mut place.key), std::mem::take(&mut place.bytes));
            place.members.insert(key, value);
        })
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Result<()> {
        let ended = self.places.0.borrow_mut().pop().unwrap_or_default();
        writer.write_all(b"{")?;
        for (at, (key, value)) in ended.members.iter().enumerate() {
            writer.write_all(if at == 0 { b"" } else { b"," })?;
            self.new_line(writer)?;
            serde_json::to_writer(&mut *writer, key)?;
            writer.write_all(if self.pretty { b": " } else { b":" })?;
            writer.write_all(value)?;
        }
        self.depth -= 1;
        if !ended.members.is_empty() {
            self.new_line(writer)?;
        }
        self.has_value = true;
        writer.write_all(b"}")
    }
}
