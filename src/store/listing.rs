//! `index.json` of the store: every tag of the latest run of every stream, for other tools. sealift does not read it.
//!
//! The catalog keeps what each stream lists, so that a pull reads no record of another stream, and the file is written
//! only when it would change.

use super::Store;
use super::records::Run;
use crate::error::{Error, Result, Side};
use crate::image::{INDEX_JSON_AROUND, INDEX_JSON_BETWEEN, INDEX_JSON_PATH, Named, index_entries};

const INDEX_MODE: u32 = 0o644;

impl Store {
    /// Brings `index.json` up to date after `run`, the latest of its stream, whose tags are `references`. A stream whose records
    /// are damaged is left out until it is pulled again: it must not keep this one from being listed. Returns the errors of
    /// those.
    pub fn list(&self, run: &Run, references: &[Named]) -> Result<Vec<Error>> {
        let entries = index_entries(references)?;
        let before = self.catalog.listing(&run.stream)?;
        // The row of this stream is written last: until then a run that was killed in here leaves one that is older.
        let same = before.is_some_and(|(number, listed)| number + 1 == run.number && listed == entries);
        let (others_changed, damaged) = self.list_others(&run.stream)?;
        if !same || others_changed || !self.root.join(INDEX_JSON_PATH).exists() {
            self.write_index(&run.stream, &entries).map_err(|error| error.on(Side::Store))?;
        }
        self.catalog.put_listing(&run.stream, run.number, &entries)?;
        Ok(damaged)
    }

    /// Makes the listings of other streams that are not as of their latest run: those of a catalog that was made anew, or of
    /// a process that was killed. Whether there were any, and what could not be made.
    fn list_others(&self, stream: &str) -> Result<(bool, Vec<Error>)> {
        let (mut changed, mut damaged) = (false, Vec::new());
        for other in self.catalog.streams()?.iter().filter(|other| *other != stream) {
            let latest = self.catalog.latest_run(other)?;
            let listed = self.catalog.listing(other)?.map(|(run, _)| run);
            if listed == latest {
                continue;
            }
            match self.entries_of(other) {
                Ok(Some((run, entries))) => self.catalog.put_listing(other, run, &entries)?,
                Ok(None) => continue,
                Err(error) => damaged.push(error.while_(format!("list stream {other} in index.json"))),
            }
            changed = true;
        }
        Ok((changed, damaged))
    }

    /// What the latest run of a stream lists, and its number.
    fn entries_of(&self, stream: &str) -> Result<Option<(u64, String)>> {
        let Some(run) = self.latest_run(stream)? else { return Ok(None) };
        let mut references = Vec::new();
        for entry in run.images.iter().filter(|entry| entry.problem.is_none()) {
            references.extend(self.image(&entry.image)?.named(&entry.tags)?);
        }
        Ok(Some((run.number, index_entries(&references)?)))
    }

    /// Writes the file stream by stream: it is never in memory as a whole.
    fn write_index(&self, stream: &str, entries: &str) -> Result<()> {
        let mut writer = self.scratch()?;
        let [before, behind] = INDEX_JSON_AROUND;
        writer.write(before.as_bytes())?;
        let mut empty = true;
        for listed in self.catalog.streams()? {
            let kept = if listed == stream { None } else { self.current_listing(&listed)? };
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
        writer.finish(&self.root.join(INDEX_JSON_PATH), INDEX_MODE)
    }

    /// What a stream lists, when that is as of its latest run.
    fn current_listing(&self, stream: &str) -> Result<Option<String>> {
        let latest = self.catalog.latest_run(stream)?;
        Ok(self.catalog.listing(stream)?.filter(|(run, _)| Some(*run) == latest).map(|(_, entries)| entries))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::records;
    use super::*;
    use crate::image::{Image, IndexMode, index_json};
    use crate::oci::{Descriptor, Digest, MediaType};
    use crate::store::Access;

    struct World {
        store: Store,
        folder: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            World { store: Store::open(folder.path(), Access::Writer).unwrap(), folder }
        }

        /// A run of `stream` that has one image, whose root has these bytes; what it lists.
        fn run(&self, stream: &str, root: &str) -> (Run, Vec<Named>) {
            let root = Descriptor::new(MediaType::OCI_MANIFEST, Digest::of(root.as_bytes()), 7);
            let repository = format!("registry.example/{stream}");
            let image = Image::new(repository.clone(), root, IndexMode::Full);
            let tags = vec!["1".parse().unwrap()];
            let references = image.named(&tags).unwrap();
            let image = self.store.put_image(&image).unwrap();
            let entry = records::RunImage { repository, tags, image, signatures_checked: String::new(), problem: None };
            let mut run = Run {
                stream: stream.to_owned(),
                number: 0,
                started: String::new(),
                export_to: None,
                volume_size: None,
                images: vec![entry],
                failed: Vec::new(),
            };
            self.store.put_run(&mut run).unwrap();
            (run, references)
        }

        fn pull(&self, stream: &str, root: &str) -> Vec<Named> {
            let (run, references) = self.run(stream, root);
            self.store.list(&run, &references).unwrap();
            references
        }

        fn listed(&self) -> String {
            std::fs::read_to_string(self.folder.path().join("index.json")).unwrap()
        }

        fn inode(&self) -> u64 {
            self.folder.path().join("index.json").metadata().unwrap().ino()
        }
    }

    fn whole(references: &[Vec<Named>]) -> String {
        String::from_utf8(index_json(&references.concat()).unwrap()).unwrap()
    }

    #[test]
    fn every_stream_is_listed_and_the_file_is_written_when_it_changes() {
        let world = World::new();
        let (a, b) = (world.pull("a", "1"), world.pull("b", "1"));
        assert_eq!(world.listed(), whole(&[a.clone(), b]));
        let before = world.inode();
        world.pull("a", "1");
        assert_eq!(world.inode(), before);
        let b = world.pull("b", "2");
        assert_eq!(world.listed(), whole(&[a, b]));
    }

    #[test]
    fn a_run_that_was_killed_before_it_was_listed_is_listed_by_the_next() {
        let world = World::new();
        let a = world.pull("a", "1");
        world.pull("b", "1");
        let (_, killed_b) = world.run("b", "2");
        world.pull("a", "1");
        assert_eq!(world.listed(), whole(&[a, killed_b.clone()]), "by that of another stream");
        let (_, killed) = world.run("a", "2");
        let (run, references) = world.run("a", "2");
        assert_eq!(killed, references);
        world.store.list(&run, &references).unwrap();
        assert_eq!(world.listed(), whole(&[references, killed_b]), "by that of its own");
    }

    #[test]
    fn a_catalog_that_was_made_anew_lists_all_streams_again() {
        let world = World::new();
        let b = world.pull("b", "1");
        let World { store, folder } = world;
        drop(store);
        std::fs::remove_file(folder.path().join("catalog.sqlite3")).unwrap();
        std::fs::remove_file(folder.path().join("index.json")).unwrap();
        let world = World { store: Store::open(folder.path(), Access::Writer).unwrap(), folder };
        let a = world.pull("a", "1");
        assert_eq!(world.listed(), whole(&[a, b]));
    }
}
