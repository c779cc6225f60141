//! `sealift inspect`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::output::{self, count, size};
use super::{ConfigArgument, KeysArgument, Output};
use crate::bundle::{BUNDLE_JSON, BundleReader, PublicKey};
use crate::error::{Error, Kind, Result, Side};
use crate::image::{IndexMode, SignatureForm};
use crate::inspect::{
    BundlePlace, Decision, InspectReport, InspectedImage, InspectedManifest, Layout, Medium, Outcome, Place, State,
    StorePlace, Verification, Wanted, inspect,
};
use crate::oci::{Name, Reference};
use crate::store::{Access, Store};

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift inspect registry.corp:5000/mirror/docker.io/library/nginx:1.27
  sealift inspect registry.corp:5000/mirror/docker.io/library/nginx:1.27 --verify-key vendor.pub
  sealift inspect /media/drive/base-images-1-7 --key exporter.pub --image docker.io/library/nginx:1.27
  sealift inspect ./store --output json | jq '.images[].manifests[] | select(.state != \"complete\")'

A child is here when its config and its layers are. The witness of a trimmed index is followed to the original: every child
must be listed there with the same digest and platform, and nothing else may have changed. With --verify-key the signatures
of the original, or of an index that was not touched, are checked: cosign's, in both forms, with a key on P-256.

Exit status 5 when a check fails. What was left out, or is not here, is shown and no failure.")]
pub(super) struct InspectArguments {
    /// An image in a registry (HOST/REPOSITORY:TAG or @DIGEST), a store, a bundle, or an OCI image layout
    #[arg(value_name = "REFERENCE|STORE|BUNDLE|LAYOUT")]
    what: String,
    /// Only this image of a store, bundle or layout
    #[arg(long, value_name = "REPOSITORY[:TAG]|DIGEST")]
    image: Option<String>,
    #[command(flatten)]
    keys: KeysArgument,
    /// The public key that must have signed each image
    #[arg(long, value_name = "COSIGN.pub")]
    verify_key: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
}

/// What `--verify-key` takes.
const WHICH_KEY: &str =
    "name the public key of who signs the images, as `cosign generate-key-pair` writes it: ECDSA on P-256, in PEM";

pub(super) async fn run(arguments: InspectArguments, output: Output) -> Result<Option<Kind>> {
    let load = |file: &Path| PublicKey::load(file).map_err(|error| error.help_first(WHICH_KEY));
    let key = arguments.verify_key.as_deref().map(load).transpose()?;
    let place = place(&arguments)?;
    let wanted = Wanted { image: arguments.image.as_deref(), key: key.as_ref() };
    let report = inspect(&place, &arguments.what, &wanted).await?;
    output::report(output, &report, human)?;
    Ok(report.verdict())
}

fn place(arguments: &InspectArguments) -> Result<Place> {
    let path = Path::new(&arguments.what);
    if path.is_dir() {
        return folder(path, arguments);
    }
    // `./x` and `/x` are no names of repositories.
    if path.exists() || arguments.what.starts_with(['/', '.']) {
        return Err(Error::usage(format!("{} is no folder", path.display()))
            .help("name the folder of a store, a bundle or an image layout, or HOST/REPOSITORY:TAG"));
    }
    let reference: Reference = arguments
        .what
        .parse()
        .map_err(|error| Error::usage(format!("{error}; and there is no folder of that name")))?;
    let name = match (&reference.digest, &reference.tag) {
        (Some(digest), _) => Name::from(*digest),
        (None, Some(tag)) => Name::from(tag.clone()),
        (None, None) => {
            return Err(Error::usage(format!("{reference} has neither a tag nor a digest"))
                .help("one image at a time: add :TAG or @DIGEST"));
        }
    };
    let client = super::client(&arguments.config.load()?, Side::Target)?;
    Ok(Place::Registry(Box::new(client.repository(&reference.repository)), name))
}

fn folder(path: &Path, arguments: &InspectArguments) -> Result<Place> {
    if path.join(BUNDLE_JSON).exists() || !arguments.keys.is_empty() {
        let reader = BundleReader::open(&[path.to_owned()], &arguments.keys.load(&[])?)?;
        return Ok(Place::Bundle(BundlePlace::new(Arc::new(reader))));
    }
    if path.join("records").is_dir() {
        let store = Store::open_existing(path, Access::Shared)?;
        return StorePlace::new(Arc::new(store)).map(Place::Store);
    }
    if Layout::is(path) {
        return Layout::open(path).map(Place::Layout);
    }
    Err(Error::usage(format!("{} is neither a bundle, a store nor an image layout", path.display()))
        .help("a bundle has bundle.json, a store has records/, and an image layout has oci-layout"))
}

fn human(report: &InspectReport) -> String {
    let kind = match report.medium {
        Medium::Registry => "registry",
        Medium::Store => "store",
        Medium::Bundle => "bundle",
        Medium::Layout => "image layout",
    };
    let signed = report.signed_by.as_ref().map_or_else(String::new, |key| format!(", signed by {}", key.short()));
    let mut text = format!("{kind} {}{signed}\n", report.what);
    report.images.iter().for_each(|image| image_rows(&mut text, image));
    let bad = report.images.iter().filter(|image| !image.problems.is_empty()).count() as u64;
    let _ = match (report.images.len(), bad) {
        (0, _) => writeln!(text, "\nit names no image"),
        (_, 0) => Ok(()),
        (all, bad) => writeln!(text, "\nbad: a check failed for {bad} of {}", count(all as u64, "image")),
    };
    text
}

fn image_rows(text: &mut String, image: &InspectedImage) {
    let name = image.repository.as_deref().unwrap_or("(no repository)");
    let kind = image.artifact_type.as_deref().unwrap_or(image.root.media_type.as_str());
    let mode = image.mode.map_or("", mode_word);
    let _ = writeln!(text, "\n{name}  {}\n  {}  {kind}  {mode}", image.tags.join(" "), image.root.digest);
    image.manifests.iter().for_each(|manifest| manifest_rows(text, manifest));
    signature_rows(text, image);
    for witness in &image.witnesses {
        let word = if witness.linked { "is" } else { "is said to be" };
        let original = witness.original.map_or_else(|| "?".to_owned(), |digest| digest.to_string());
        let _ = writeln!(
            text,
            "  trimmed    the original {word} {original}: {} kept, {} removed, {}; witness {}",
            witness.kept,
            witness.removed.len(),
            count(witness.signatures, "signature"),
            witness.digest.short()
        );
        for child in &witness.removed {
            let platform = child.platform.as_deref().unwrap_or("(none)");
            let _ = writeln!(text, "    removed  {platform:<28} {}", child.digest.short());
        }
    }
    if let Some(verification) = &image.verification {
        verification_rows(text, verification);
    }
    image.problems.iter().for_each(|problem| _ = writeln!(text, "  bad: {problem}"));
}

fn mode_word(mode: IndexMode) -> &'static str {
    match mode {
        IndexMode::Sparse => "sparse",
        IndexMode::Full => "full",
        IndexMode::Child => "child",
        IndexMode::Trim => "trim",
    }
}

fn manifest_rows(text: &mut String, manifest: &InspectedManifest) {
    let platform = match (&manifest.platform, manifest.attests) {
        (_, Some(of)) => format!("attestation of {}", of.short()),
        (Some(platform), None) => platform.clone(),
        (None, None) => "(none)".to_owned(),
    };
    let word = match manifest.decision {
        Some(Decision::Kept) => "kept",
        Some(Decision::LeftOut) => "left out",
        None => "listed",
    };
    let layers = manifest.blobs.saturating_sub(1);
    let state = match manifest.state {
        State::Complete if manifest.blobs == 0 => "an index".to_owned(),
        State::Complete => format!("config and {} here", count(layers, "layer")),
        State::Incomplete => format!("{} of {} missing", manifest.missing, count(manifest.blobs, "blob")),
        State::ManifestOnly => "only the manifest (a stub)".to_owned(),
        State::Absent => "not here".to_owned(),
        State::Damaged => "damaged".to_owned(),
    };
    let bytes = if manifest.blobs == 0 { String::new() } else { size(manifest.bytes) };
    let digest = manifest.digest.short();
    let _ = writeln!(text, "  {word:<10} {platform:<28} {digest}  {bytes:>12}  {state}");
    for layer in &manifest.foreign {
        let here = if layer.here { "here" } else { "not here" };
        let hosts = if layer.hosts.is_empty() { "no url".to_owned() } else { layer.hosts.join(", ") };
        let digest = layer.digest.short();
        let _ = writeln!(text, "    foreign  {hosts:<28} {digest}  {:>12}  {here}", size(layer.size));
    }
}

fn signature_rows(text: &mut String, image: &InspectedImage) {
    for signature in &image.signatures {
        let form = match (signature.form, &signature.tag) {
            (SignatureForm::CosignTag, Some(tag)) => tag.as_str().rsplit('.').next().unwrap_or_default(),
            _ => "referrer",
        };
        let kind = signature.artifact_type.as_deref().unwrap_or("?");
        let here = if signature.here { "" } else { "  not whole here" };
        let (digest, subject) = (signature.digest.short(), signature.subject.short());
        let _ = writeln!(text, "  {form:<10} {digest} of {subject}  {kind}{here}");
    }
}

fn verification_rows(text: &mut String, verification: &Verification) {
    let Verification { key, signed, witness, good, signatures } = verification;
    let through = witness.as_ref().map_or("", |_| ", the original");
    let word = if *good { "signed" } else { "NOT signed" };
    let _ = writeln!(text, "  {word:<10} {signed}{through}, by {}", key.short());
    for signature in signatures {
        let word = match signature.result {
            Outcome::Signed => "good",
            Outcome::Statement => "a statement",
            Outcome::Not => "not good",
        };
        let detail = signature.detail.as_deref().map_or_else(String::new, |detail| format!(": {detail}"));
        let _ = writeln!(text, "    {} {word}{detail}", signature.manifest.short());
    }
}
