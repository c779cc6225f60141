//! The mirror spec: what to mirror, how, and when. [`SpecFile`] as written, [`MirrorSpec`] as meant.
//!
//! [`load`] reads one file and [`load_all`] several. A spec that loads holds nothing that this version
//! would not do: what is known but not honoured yet is an error with its line, never a silent no.

mod file;
mod image;
mod lower;
mod name;
mod schedule;
mod select;
mod tags;
mod version;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::oci::{Digest, PlatformPattern, Repository, Tag};
use crate::yaml::{Diagnostics, Document};

pub use crate::image::IndexMode;
pub use file::SpecFile;
pub use name::{InvalidStreamName, StreamName};
pub use schedule::{Cron, InvalidCron, Schedule};
pub use select::{InvalidTagGlob, TagGlob, TagSelection};
pub use version::TagVersion;

/// The `kind` of a spec.
pub const KIND: &str = "MirrorSpec";

/// A mirror spec as meant: defaults are filled in, every name is legal.
#[derive(Clone, Debug)]
pub struct MirrorSpec {
    /// The stream of bundles that it makes.
    pub name: StreamName,
    /// The file that it was read from.
    pub file: PathBuf,
    /// When to run; `None`: only by hand.
    pub schedule: Option<Schedule>,
    /// What to mirror, in the order written. Not empty.
    pub images: Vec<ImageSpec>,
    /// Where bundles go, and how they are cut.
    pub export: ExportSpec,
    /// What is known about the far side.
    pub target: TargetSpec,
    /// What the operator should know, though it is no error.
    pub notes: Vec<String>,
}

/// One entry of `images`.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// Where the images are.
    pub source: Repository,
    /// Which of them.
    pub selection: Selection,
    /// Which children of an index are kept. Not empty.
    pub platforms: Vec<PlatformPattern>,
    /// What to do when an image has none of a selected platform.
    pub missing_platform: MissingPlatform,
    /// What becomes of an index of which only some children are kept.
    pub index: IndexMode,
    /// What becomes of foreign layers.
    pub foreign: ForeignPolicy,
    /// What becomes of signatures.
    pub signatures: Signatures,
    /// `file:line` of the entry, for messages.
    pub place: String,
}

/// Which images of a repository are taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Selection {
    /// One image by digest, and the tag that it gets on the target.
    Digest {
        /// The digest of its manifest or index.
        digest: Digest,
        /// Its name on the target.
        tag: Tag,
    },
    /// Images by tag.
    Tags(TagSelection),
}

/// What to do when an image has none of a selected platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingPlatform {
    /// The image is not complete, and the run says so.
    Fail,
    /// The other platforms are taken.
    Skip,
}

/// What becomes of foreign layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignPolicy {
    /// They stay where their `urls` point; manifests are unchanged.
    Skip,
}

/// What becomes of signatures and other referrers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signatures {
    /// Which are carried.
    pub carry: CarrySignatures,
    /// After how long the signatures of a known digest are looked up again.
    pub recheck: Duration,
}

/// Which signatures are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarrySignatures {
    /// Every signature, attestation and other referrer.
    All,
    /// None.
    None,
}

/// Where bundles go, and how they are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportSpec {
    /// The folder for bundles; `None`: named on the command line.
    pub to: Option<PathBuf>,
    /// The largest volume in bytes; `None`: named on the command line, or no limit.
    pub volume_size: Option<u64>,
    /// What an export need not carry.
    pub baseline: Baseline,
}

/// What an export need not carry because a site has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Every bundle is whole in itself.
    None,
}

/// What is known about the far side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSpec {
    /// What a probe of the far side wrote.
    pub profile: Option<PathBuf>,
    /// What to do when the target takes neither sparse indexes nor stubs.
    pub sparse_refused: SparseRefused,
}

/// What to do when the target takes neither sparse indexes nor stubs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SparseRefused {
    /// That image fails.
    Fail,
    /// All its platforms are taken.
    Full,
    /// Its index is trimmed.
    Trim,
}

/// Reads the spec in `file`.
pub fn load(file: &Path) -> Result<MirrorSpec, Diagnostics> {
    lower::spec(&Document::read(file)?)
}

/// Takes `bytes` as a spec; `file` is what messages call it.
pub fn parse(file: &Path, bytes: &[u8]) -> Result<MirrorSpec, Diagnostics> {
    lower::spec(&Document::parse(file, bytes)?)
}

/// Reads several specs, each stream at most once. What is wrong is said of all files together.
pub fn load_all<P: AsRef<Path>>(files: impl IntoIterator<Item = P>) -> Result<Vec<MirrorSpec>, Diagnostics> {
    let mut specs: Vec<MirrorSpec> = Vec::new();
    let mut wrong: Option<Diagnostics> = None;
    for file in files {
        match load_one_of(file.as_ref(), &specs) {
            Ok(spec) => specs.push(spec),
            Err(found) => match &mut wrong {
                Some(wrong) => wrong.extend(found),
                None => wrong = Some(found),
            },
        }
    }
    match wrong {
        Some(wrong) => Err(wrong),
        None => Ok(specs),
    }
}

fn load_one_of(file: &Path, others: &[MirrorSpec]) -> Result<MirrorSpec, Diagnostics> {
    let document = Document::read(file)?;
    let spec = lower::spec(&document)?;
    document.check(|at| {
        lower::only_stream(at, &spec, others);
        Some(())
    })?;
    Ok(spec)
}

/// The JSON Schema of a spec, for editors.
pub fn schema() -> serde_json::Value {
    crate::yaml::schema::<SpecFile>("mirror-spec", "sealift mirror spec")
}
