//! `sealift export`.

use std::fmt::Write;
use std::path::PathBuf;

use bytesize::ByteSize;
use clap::ValueEnum;

use super::output::{self, count, size};
use super::progress::Progress;
use super::{ConfigArgument, Output, StoreArgument};
use crate::bundle::{ReadBack, SigningKey, VOLUME_SIZE_DEFAULT, VOLUME_SIZE_MIN};
use crate::error::{Error, Kind, Result};
use crate::export::{ExportOptions, ExportReport, LayoutReport, export, export_layout};
use crate::image::BundleName;
use crate::oci::PlatformPattern;
use crate::store::Access;
use crate::store::records::Failure;

/// What only a bundle has.
const OF_BUNDLES: [&str; 6] = ["to", "sign_key", "volume_size", "bundle", "epoch", "verify_write"];

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift export base-images --store ./store --to /media/drive --sign-key exporter.key
  sealift export base-images --to /media/drive --sign-key exporter.key --volume-size 64MiB
  sealift export base-images --to /media/drive --sign-key exporter.key --bundle base-images-1-7
  sealift export base-images --layout base-images.tar.zst

The same content is the same bundle with the same number: exporting it again to the same drive writes only what is
missing there, and to another drive makes a copy.

With --layout other tools get the images: docker load and podman load take the archives, skopeo also the folder. Such
a layout is not signed. `sealift replay` does not take it; `sealift verify` takes a folder, without a key.")]
pub(super) struct ExportArguments {
    /// The name of the stream: that of its spec
    stream: String,
    /// The drive, or any folder; the bundle gets a folder of its own in it [default: what the spec says]
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// The key that signs, as `sealift key generate` makes it; a bundle needs one
    #[arg(long, value_name = "NAME.key", required_unless_present = "layout")]
    sign_key: Option<PathBuf>,
    /// The largest a volume may be [default: what the spec says, or 4095MiB, which fits on FAT32]
    #[arg(long, value_name = "SIZE", value_parser = parse_volume_size)]
    volume_size: Option<u64>,
    /// Write a recorded bundle again as it was, instead of the latest content: to replace a lost volume, for example
    #[arg(long, value_name = "STREAM-EPOCH-SEQUENCE", conflicts_with_all = ["volume_size", "epoch"])]
    bundle: Option<String>,
    /// Begin a new epoch: after the records of this store were lost, for example
    #[arg(long, value_name = "N")]
    epoch: Option<u64>,
    /// Whether each volume is read back and compared after it was written
    #[arg(long, value_enum, default_value = "direct")]
    verify_write: VerifyWrite,
    /// Write a plain OCI image layout for other tools instead of a bundle: a folder, or an archive where the name ends
    /// with .tar, .tar.gz or .tar.zst
    #[arg(long, value_name = "PATH", conflicts_with_all = OF_BUNDLES)]
    layout: Option<PathBuf>,
    /// The platform that `docker load` gets of an image of which several were pulled, with `*` allowed in each part
    /// [default: this machine's, else the first; all of them are in the layout]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", requires = "layout", conflicts_with_all = OF_BUNDLES)]
    platform: Option<PlatformPattern>,
    #[command(flatten)]
    store: StoreArgument,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(Clone, Copy, ValueEnum)]
enum VerifyWrite {
    /// From the device, past the page cache
    Direct,
    /// Not at all
    None,
}

fn parse_volume_size(text: &str) -> Result<u64, String> {
    let ByteSize(size) = text.parse().map_err(|_| "expected a size such as 64MiB or 4GB".to_owned())?;
    if size < VOLUME_SIZE_MIN {
        return Err(format!("a volume has at least {VOLUME_SIZE_MIN} bytes"));
    }
    Ok(size)
}

pub(super) async fn run(arguments: ExportArguments, output: Output) -> Result<Option<Kind>> {
    let config = arguments.config.load()?;
    if let Some(path) = &arguments.layout {
        let store = arguments.store.open_existing(&config, Access::Shared)?;
        let platform = arguments.platform.as_ref();
        let report = export_layout(&arguments.stream, &store, path, platform, &Progress::new()).await?;
        output::report(output, &report, human_layout)?;
        return Ok(Failure::verdict(&report.failed, true));
    }
    let Some(key) = &arguments.sign_key else { return Err(Error::usage("--sign-key is missing")) };
    let key = SigningKey::load(key)?;
    let store = arguments.store.open_existing(&config, Access::Shared)?;
    let (spec_to, spec_size) = match store.latest_run(&arguments.stream)? {
        Some(run) => (run.export_to, run.volume_size),
        None => (None, None),
    };
    let Some(drive) = arguments.to.or(spec_to) else {
        return Err(Error::usage("neither --to nor export.to of the spec says where the bundle goes"));
    };
    let options = ExportOptions {
        recorded: arguments.bundle.as_deref().map(|text| bundle_name(text, &arguments.stream)).transpose()?,
        volume_size: arguments.volume_size.or(spec_size).unwrap_or(VOLUME_SIZE_DEFAULT),
        epoch: arguments.epoch,
        read_back: match arguments.verify_write {
            VerifyWrite::Direct => ReadBack::Direct,
            VerifyWrite::None => ReadBack::None,
        },
    };
    let report = export(&arguments.stream, &store, &drive, &key, options, &Progress::new()).await?;
    output::report(output, &report, human)?;
    Ok(Failure::verdict(&report.failed, true))
}

fn bundle_name(text: &str, stream: &str) -> Result<BundleName> {
    let name = text.parse::<BundleName>().ok().filter(|name| name.stream == stream);
    name.ok_or_else(|| {
        Error::usage(format!("--bundle: {text:?} is no bundle of {stream:?}; expected {stream}-1-7, for example"))
    })
}

fn human(report: &ExportReport) -> String {
    let again = if report.again { ", the same content as before" } else { "" };
    let mut text = format!(
        "bundle {}{again}: {}, {}, {} in {}\n  {}\n  {}\n",
        report.bundle,
        count(report.images, "image"),
        count(report.tags, "tag"),
        size(report.bytes),
        count(report.volumes, "volume"),
        report.folder.display(),
        report.digest,
    );
    text += &not_in_it(&report.failed);
    let _ = writeln!(text, "next: sealift verify {} --key NAME.pub", report.folder.display());
    text
}

fn human_layout(report: &LayoutReport) -> String {
    let again = if report.again { ", which was there already" } else { "" };
    let mut text = format!(
        "layout {}{again}: {}, {}, {} in {}\n  index.json {}\n",
        report.layout.display(),
        count(report.images, "image"),
        count(report.tags, "tag"),
        size(report.bytes),
        count(report.blobs, "blob"),
        report.index,
    );
    for image in &report.loadable {
        let tags: Vec<String> = image.tags.iter().map(|tag| format!(":{tag}")).collect();
        let _ = writeln!(text, "  {}{}  {}", image.repository, tags.join(","), image.platform);
    }
    for image in &report.not_loadable {
        let _ = writeln!(text, "  {}  not for docker load: {}", image.repository, image.reasons.join("; "));
    }
    text + &not_in_it(&report.failed)
}

fn not_in_it(failed: &[Failure]) -> String {
    let mut text = String::new();
    for failure in failed {
        let _ = writeln!(text, "not in it: {}\n  {}", failure.subject, failure.problem);
    }
    text
}
