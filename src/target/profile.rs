//! [`Profile`]: what a registry takes, as a probe found it out. It can be carried to the connected side, which then
//! plans what this registry can take.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::oci::json;

/// The `type` of every profile.
pub const TYPE: &str = "sealift/profile";

/// The version that this sealift writes.
pub const VERSION: &str = "1.0";

/// The largest profile that is read. One has some three kilobytes.
const SIZE_MAX: u64 = 256 * 1024;

/// What a registry takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// `sealift/profile`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `major.minor`.
    pub version: String,
    /// The registry.
    pub registry: String,
    /// The repository in which it was tried out.
    pub repository: String,
    /// When, in UTC.
    pub created: String,
    /// An index of which a child is missing.
    pub sparse_index: Finding,
    /// The same once the missing child's manifest lies beside it as a blob. Not tried where it was taken without.
    pub stubs: Finding,
    /// A manifest whose OCI non-distributable layer is at an address, and nowhere else.
    pub foreign_layers: Finding,
    /// The same with Docker's media types.
    pub docker_foreign_layers: Finding,
    /// Docker's manifest and manifest list.
    pub docker_media_types: Finding,
    /// A manifest of an unknown artifact type, about another one.
    pub artifacts: Finding,
    /// The API that lists what is about a manifest. Where there is none, a tag does.
    pub referrers_api: Finding,
    /// Taking a blob over from another repository.
    pub mounts: Finding,
    /// A repository whose name has several more parts.
    pub nested_names: Finding,
    /// Deleting a manifest.
    pub deletion: Finding,
    /// The largest manifest that it took, in bytes; nothing larger than 4 MiB was tried.
    pub manifest_size: u64,
    /// What the probe could not remove: manifests, by their digests.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_behind: Vec<String>,
}

/// How a registry answered to one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Finding {
    /// In a word.
    pub taken: Taken,
    /// What it said, where it did not simply take it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// Whether a registry takes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Taken {
    /// It does.
    Yes,
    /// It refuses.
    No,
    /// It was not tried, or the answer says nothing.
    Unknown,
}

/// How a registry takes an index of which children were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakesSparse {
    /// As it is.
    Plainly,
    /// With stubs beside it.
    WithStubs,
    /// In no way.
    Not,
    /// Nobody knows: stubs are carried, for they help where they are needed.
    Unknown,
}

impl Finding {
    /// It does.
    pub fn yes() -> Self {
        Finding { taken: Taken::Yes, answer: None }
    }

    /// It refuses, with this answer.
    pub fn no(answer: impl ToString) -> Self {
        Finding { taken: Taken::No, answer: Some(answer.to_string()) }
    }

    /// Nobody knows, and why.
    pub fn unknown(why: impl ToString) -> Self {
        Finding { taken: Taken::Unknown, answer: Some(why.to_string()) }
    }

    /// Whether it does.
    pub fn is_yes(&self) -> bool {
        self.taken == Taken::Yes
    }

    /// Whether it refuses.
    pub fn is_no(&self) -> bool {
        self.taken == Taken::No
    }
}

impl Profile {
    /// Reads the profile in `file`.
    ///
    /// # Errors
    ///
    /// [`Kind::Usage`](crate::Kind::Usage) for a file that is none, or of a later version; what reading it fails with.
    pub fn load(file: &Path) -> Result<Self> {
        let mut bytes = Vec::new();
        File::open(file)
            .and_then(|file| file.take(SIZE_MAX).read_to_end(&mut bytes))
            .while_(|| format!("read the profile {}", file.display()))?;
        let wrong = |why: String| {
            Error::usage(format!("{} is no profile: {why}", file.display()))
                .help("`sealift probe HOST --out FILE` on the far side writes one")
        };
        let profile: Profile = json::parse(&bytes).map_err(wrong)?;
        if profile.kind != TYPE {
            return Err(wrong(format!("its type is {:?}, expected {TYPE:?}", profile.kind)));
        }
        if profile.version.split('.').next() != Some("1") {
            return Err(wrong(format!("version {:?} is not known to this sealift", profile.version)));
        }
        Ok(profile)
    }

    /// How it takes an index of which children were left out.
    pub fn takes_sparse(&self) -> TakesSparse {
        match (self.sparse_index.taken, self.stubs.taken) {
            (Taken::Yes, _) => TakesSparse::Plainly,
            (_, Taken::Yes) => TakesSparse::WithStubs,
            (Taken::No, Taken::No) => TakesSparse::Not,
            _ => TakesSparse::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_a_sparse_index_is_taken() {
        use Taken::{No, Unknown, Yes};
        let rows = [
            (Yes, Unknown, TakesSparse::Plainly),
            (No, Yes, TakesSparse::WithStubs),
            (No, No, TakesSparse::Not),
            (No, Unknown, TakesSparse::Unknown),
            (Unknown, Unknown, TakesSparse::Unknown),
        ];
        for (sparse, stubs, expected) in rows {
            let of = |taken| Finding { taken, answer: None };
            let profile = Profile { sparse_index: of(sparse), stubs: of(stubs), ..example() };
            assert_eq!(profile.takes_sparse(), expected, "{sparse:?} {stubs:?}");
        }
    }

    #[test]
    fn profiles_that_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("profile.json");
        let load = |text: &str| {
            std::fs::write(&file, text).unwrap();
            Profile::load(&file).map_err(|error| error.to_string())
        };
        let text = serde_json::to_string(&example()).unwrap();
        assert_eq!(load(&text), Ok(example()));
        for (text, why) in [
            ("{}".to_owned(), "missing field"),
            (text.replace("sealift/profile", "sealift/bundle"), "its type is \"sealift/bundle\""),
            (text.replace("\"1.0\"", "\"2.0\""), "version \"2.0\" is not known"),
        ] {
            assert!(load(&text).is_err_and(|error| error.contains(why)), "{text}");
        }
    }

    fn example() -> Profile {
        Profile {
            kind: TYPE.to_owned(),
            version: VERSION.to_owned(),
            registry: "r.example".to_owned(),
            repository: "r.example/mirror/sealift-probe".to_owned(),
            created: "2026-11-26T00:00:00Z".to_owned(),
            sparse_index: Finding::no("400"),
            stubs: Finding::yes(),
            foreign_layers: Finding::no("500"),
            docker_foreign_layers: Finding::no("500"),
            docker_media_types: Finding::yes(),
            artifacts: Finding::yes(),
            referrers_api: Finding::no("404"),
            mounts: Finding::yes(),
            nested_names: Finding::yes(),
            deletion: Finding::unknown("not tried"),
            manifest_size: 4 << 20,
            left_behind: Vec::new(),
        }
    }
}
