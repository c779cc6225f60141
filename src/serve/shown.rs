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
    /// Shows `image` under the name that it would get on a target without a prefix. `read` gives its manifests. A referrer
    /// that cannot be read is not listed: what is served beside it is good.
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
                _ => match read(&signature.descriptor) {
                    Ok(manifest) => repository.refer(signature.subject, &signature.descriptor, &manifest),
                    Err(error) => tracing::warn!(%error, repository = image.repository, "a referrer is not listed"),
                },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{IndexMode, Signature};
    use crate::sample::{ImageBuilder, SampleImage};

    fn image(sample: &SampleImage) -> Image {
        let subject = sample.root.digest;
        let signature = |descriptor| Signature { descriptor, subject, form: SignatureForm::Referrer, tag: None };
        let signatures = sample.referrers(&subject).into_iter().map(signature).collect();
        Image { signatures, ..Image::new("registry.example/app", sample.root.clone(), IndexMode::Full) }
    }

    #[test]
    fn a_referrer_that_cannot_be_read_keeps_nothing_else_from_being_shown() {
        let builder = ImageBuilder::new().platform("linux", "amd64", "").random_layer(10, 1);
        let sample = builder.referrer("a/a", b"1").referrer("b/b", b"2").build().unwrap();
        let image = image(&sample);
        let damaged = image.signatures[0].descriptor.digest;
        let mut shown = Shown::default();
        let read = |descriptor: &Descriptor| match descriptor.digest == damaged {
            true => Err(Error::verification("it is damaged")),
            false => Ok(sample.parsed(descriptor).unwrap()),
        };
        shown.add_image(&image, &["1".parse().unwrap()], read).unwrap();
        let [name] = &shown.repositories()[..] else { panic!("{:?}", shown.repositories()) };
        assert_eq!(shown.resolve(name, &Name::Tag("1".parse().unwrap())).map(|d| d.digest), Some(sample.root.digest));
        let listed: Vec<Digest> = shown.referrers(name, &sample.root.digest).iter().map(|d| d.digest).collect();
        assert_eq!(listed, [image.signatures[1].descriptor.digest]);
    }
}
