//! What a store holds now: the images of the latest run of each stream, and what was pushed into it.

use super::Store;
use super::records::Name;
use crate::error::{Error, Result};
use crate::image::{Addresses, Image};
use crate::oci::{Manifest, Tag};

impl Store {
    /// Hands over each whole image of the latest run of each stream, with its tags. What is damaged keeps no other from being
    /// handed over: an error for each record that cannot be read.
    pub fn each_latest(&self, mut take: impl FnMut(&Image, &[Tag]) -> Result<()>) -> Result<Vec<Error>> {
        let mut damaged = Vec::new();
        for stream in self.catalog.streams()? {
            let run = match self.latest_run(&stream) {
                Ok(Some(run)) => run,
                Ok(None) => continue,
                Err(error) => {
                    damaged.push(error.while_(format!("read the latest run of stream {stream}")));
                    continue;
                }
            };
            for entry in run.images.iter().filter(|entry| entry.problem.is_none()) {
                match self.image(&entry.image) {
                    Ok(image) => take(&image, &entry.tags)?,
                    Err(error) => damaged.push(error.while_(format!("read the record of {}", entry.repository))),
                }
            }
        }
        Ok(damaged)
    }

    /// Hands over each manifest that was pushed, under each of its names. An error for each that cannot be read.
    pub fn each_pushed(&self, mut take: impl FnMut(&Name, &Manifest)) -> Result<Vec<Error>> {
        let mut damaged = Vec::new();
        for name in self.names()? {
            let name = match name {
                Ok(name) => name,
                Err(error) => {
                    damaged.push(error.while_("read what was pushed"));
                    continue;
                }
            };
            match self.manifest(&name.descriptor) {
                Ok(manifest) => take(&name, &manifest),
                Err(error) => damaged.push(error.while_(format!("read what was pushed to {}", name.repository))),
            }
        }
        Ok(damaged)
    }

    /// The `urls` of everything that it holds now.
    pub fn addresses(&self) -> Result<Addresses> {
        let mut found = Addresses::default();
        let mut damaged = self.each_latest(|image, _| {
            found.add_image(image, |descriptor| self.manifest(descriptor), |content| self.has(content));
            Ok(())
        })?;
        damaged.extend(self.each_pushed(|name, manifest| {
            found.add_manifest(&name.repository, manifest, |content| self.has(content));
        })?);
        damaged.into_iter().for_each(|error| found.add_unreadable(error));
        Ok(found)
    }
}
