//! `index.json` of the store: every tag of the latest run of every stream, for other tools. sealift does not read it.
//!
//! The catalog keeps what each stream lists, so that a pull reads no record of another stream, and the file is written
//! only when it would change.

use super::records::Run;
use super::{Store, records};
use crate::durable::{self, Writer};
use crate::error::{Context, Result, Side};
use crate::image::{INDEX_JSON_AROUND, INDEX_JSON_BETWEEN, Named, index_entries};

const INDEX_MODE: u32 = 0o644;

impl Store {
    /// Brings `index.json` up to date after `run`, the latest of its stream, whose tags are `references`.
    pub fn list(&self, run: &Run, references: &[Named]) -> Result<()> {
        let entries = index_entries(references)?;
        let before = self.catalog.listing(&run.stream)?;
        // The row of this stream is written last: until then a run that was killed in here leaves one that is older.
        let same = before.is_some_and(|(number, listed)| number + 1 == run.number && listed == entries);
        let others_changed = self.list_others(&run.stream)?;
        if !same || others_changed || !self.root.join("index.json").exists() {
            self.write_index(&run.stream, &entries).on(Side::Store)?;
        }
        self.catalog.put_listing(&run.stream, run.number, &entries)
    }

    /// Makes the listings of other streams that are not as of their latest run: those of a catalog that was made anew, or of
    /// a process that was killed. Whether there were any.
    fn list_others(&self, stream: &str) -> Result<bool> {
        let mut changed = false;
        for other in self.catalog.streams()?.iter().filter(|other| *other != stream) {
            let latest = self.catalog.latest_run(other)?;
            if self.catalog.listed_run(other)? == latest {
                continue;
            }
            let Some(run) = self.latest_run(other)? else { continue };
            self.catalog.put_listing(other, run.number, &index_entries(&self.references(&run)?)?)?;
            changed = true;
        }
        Ok(changed)
    }

    /// The tags of a run's images that are whole.
    fn references(&self, run: &Run) -> Result<Vec<Named>> {
        let mut references = Vec::new();
        for records::RunImage { image, tags, .. } in run.images.iter().filter(|entry| entry.problem.is_none()) {
            references.extend(self.image(image)?.named(tags)?);
        }
        Ok(references)
    }

    /// Writes the file stream by stream: it is never in memory as a whole.
    fn write_index(&self, stream: &str, entries: &str) -> Result<()> {
        let path = self.root.join("index.json");
        let mut writer = Writer::open(&durable::with_suffix(&path, ".partial"), 0)?;
        let [before, behind] = INDEX_JSON_AROUND;
        writer.write(before.as_bytes())?;
        let mut empty = true;
        for listed in self.catalog.streams()? {
            let kept = match listed == stream {
                true => None,
                false => self.catalog.listing(&listed)?.map(|(_, entries)| entries),
            };
            let entries = kept.as_deref().unwrap_or(if listed == stream { entries } else { "" });
            if !entries.is_empty() {
                let between = if empty { "" } else { INDEX_JSON_BETWEEN };
                writer.write(between.as_bytes())?;
                writer.write(entries.as_bytes())?;
                empty = false;
            }
        }
        writer.write(if empty { b"" } else { b"\n  " })?;
        writer.write(behind.as_bytes())?;
        writer.finish(&path, INDEX_MODE)
    }
}
