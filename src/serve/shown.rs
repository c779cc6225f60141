//! What a shelf shows: repositories with their tags, manifests and referrers, made from images. A stub is not shown.

use std::collections::{BTreeMap, HashMap};

use crate::error::{Error, Result};
use crate::image::{Image, Part, SignatureForm};
use crate::oci::{Descriptor, Digest, Manifest, Name, Tag};

/// All repositories by the name under which they are served.
#[derive(Default)]
pub(super) struct Shown {
    repositories: BTreeMap<String, Repository>,
}

#[derive(Default)]
struct Repository {
    tags: BTreeMap<Tag, Digest>,
    manifests: HashMap<Digest, Descriptor>,
    referrers: HashMap<Digest, Vec<Descriptor>>,
}

impl Shown {
    /// Shows `image` under the name that it would get on a target without a prefix. `read` gives its manifests.
    pub fn add_image(
        &mut self,
        image: &Image,
        tags: &[Tag],
        read: impl Fn(&Descriptor) -> Result<Manifest>,
    ) -> Result<()> {
        let name = image.repository()?.target_path("").map_err(|error| Error::usage(error.to_string()))?;
        let repository = self.repositories.entry(name).or_default();
        for (descriptor, part) in image.manifests() {
            if part != Part::Stub {
                repository.manifests.insert(descriptor.digest, descriptor.clone());
            }
        }
        for signature in &image.signatures {
            match (&signature.form, &signature.tag) {
                (SignatureForm::CosignTag, Some(tag)) => {
                    repository.tags.insert(tag.clone(), signature.descriptor.digest);
                }
                _ => repository.refer(signature.subject, &signature.descriptor, &read(&signature.descriptor)?),
            }
        }
        repository.tags.extend(tags.iter().map(|tag| (tag.clone(), image.root.digest)));
        Ok(())
    }

    /// Shows a manifest that was pushed, and moves `tag` to it.
    pub fn add(&mut self, repository: &str, tag: Option<&Tag>, descriptor: &Descriptor, manifest: &Manifest) {
        let repository = self.repositories.entry(repository.to_owned()).or_default();
        repository.manifests.insert(descriptor.digest, descriptor.clone());
        if let Some(tag) = tag {
            repository.tags.insert(tag.clone(), descriptor.digest);
        }
        if let Some(subject) = &manifest.subject {
            repository.refer(subject.digest, descriptor, manifest);
        }
    }

    /// No longer shows a tag, or a manifest with every tag of it. Which tags are gone; `None` when it was not there.
    pub fn remove(&mut self, repository: &str, name: &Name) -> Option<Vec<Tag>> {
        let repository = self.repositories.get_mut(repository)?;
        match name {
            Name::Tag(tag) => repository.tags.remove(tag).map(|_| vec![tag.clone()]),
            Name::Digest(digest) => {
                repository.manifests.remove(digest)?;
                repository.referrers.values_mut().for_each(|list| list.retain(|entry| entry.digest != *digest));
                let gone: Vec<Tag> =
                    repository.tags.iter().filter(|(_, to)| *to == digest).map(|(tag, _)| tag.clone()).collect();
                repository.tags.retain(|_, to| to != digest);
                Some(gone)
            }
        }
    }

    pub fn repositories(&self) -> Vec<String> {
        self.repositories.keys().cloned().collect()
    }

    pub fn knows(&self, repository: &str) -> bool {
        self.repositories.contains_key(repository)
    }

    pub fn tags(&self, repository: &str) -> Option<Vec<String>> {
        let repository = self.repositories.get(repository)?;
        Some(repository.tags.keys().map(ToString::to_string).collect())
    }

    pub fn resolve(&self, repository: &str, name: &Name) -> Option<Descriptor> {
        let repository = self.repositories.get(repository)?;
        let digest = match name {
            Name::Tag(tag) => repository.tags.get(tag)?,
            Name::Digest(digest) => digest,
        };
        repository.manifests.get(digest).cloned()
    }

    pub fn referrers(&self, repository: &str, subject: &Digest) -> Vec<Descriptor> {
        let found = self.repositories.get(repository).and_then(|repository| repository.referrers.get(subject));
        found.cloned().unwrap_or_default()
    }
}

impl Repository {
    fn refer(&mut self, subject: Digest, descriptor: &Descriptor, manifest: &Manifest) {
        let list = self.referrers.entry(subject).or_default();
        if list.iter().any(|there| there.digest == descriptor.digest) {
            return;
        }
        list.push(Descriptor {
            artifact_type: manifest.referrer_type(),
            annotations: manifest.annotations.clone(),
            ..Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size)
        });
    }
}
