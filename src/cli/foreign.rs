//! `sealift foreign`.

use std::fmt::Write;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

use super::output::{self, count, size};
use super::progress::Progress;
use super::{ConfigArgument, KeysArgument, Output};
use crate::bundle::{BundleReader, group_folders};
use crate::config::Config;
use crate::content::Limits;
use crate::error::{Error, Kind, Result, Side};
use crate::foreign::{
    ChangeReport, LayerName, ListReport, ListedImage, ListedLayer, Mark, Order, Place, Wish, change, list, parse_url,
};
use crate::oci::{PlatformPattern, Reference};

#[derive(clap::Subcommand)]
pub(super) enum ForeignCommand {
    /// List the layers that are had from elsewhere: foreign ones, and others that have urls
    #[command(after_help = "Examples:
  sealift foreign list mcr.microsoft.com/windows/nanoserver:ltsc2019
  sealift foreign list /media/drive/base-images-1-7 --key exporter.pub
  sealift foreign list /var/lib/sealift/store

Layers are counted from 1. A store, or another OCI image layout, needs no key: nobody signed it. What is listed of it is
what its index.json names.")]
    List(ListArguments),
    /// Make an image of which some layers are foreign: they are had from elsewhere
    #[command(after_help = "Examples:
  sealift foreign mark registry.corp/app:1.0 --layer 1 --url https://layers.corp/base.tgz --to registry.corp/app:1.0-foreign
  sealift foreign mark registry.corp/app:1.0 --platform linux/amd64 --layer 1 --url https://a.corp/1 --url https://b.corp/1
      --layer 2 --url https://a.corp/2 --to registry.corp/app:1.0-foreign

Each --url belongs to the --layer before it; several are alternatives. In an index, every image that has the layer is
changed, and a number needs an index of one image, or --platform. The config, and digest and size of each layer, stay what
they were; manifest and index get new digests. Everything but foreign layers is pushed to --to.

The OCI image specification has deprecated such layers, and signatures of the old digest do not cover the new one.")]
    Mark(MarkArguments),
    /// Make an image of which no layer is foreign: the reverse of mark
    #[command(after_help = "Examples:
  sealift foreign unmark registry.corp/app:1.0-foreign --to registry.corp/app:1.0
  sealift foreign unmark registry.corp/win:1 --layer 1 --platform windows/amd64 --to registry.corp/win:1-whole

Without --layer, all foreign layers get the media types of others, and lose their urls. Their bytes have to be in the
repository of the source: nothing is fetched from urls. What was marked, and is unmarked, has its first digest again.")]
    Unmark(UnmarkArguments),
}

#[derive(clap::Args)]
pub(super) struct ListArguments {
    /// HOST/REPOSITORY:TAG or @DIGEST, or the folder of a store, a bundle or another OCI image layout
    what: String,
    #[command(flatten)]
    keys: KeysArgument,
    #[command(flatten)]
    config: ConfigArgument,
}

#[derive(clap::Args)]
pub(super) struct MarkArguments {
    /// The image: HOST/REPOSITORY:TAG or @DIGEST
    source: String,
    #[command(flatten)]
    marks: Marks,
    #[command(flatten)]
    common: CommonArguments,
    /// Push the foreign layers too, as far as the source has them
    #[arg(long)]
    push_layers: bool,
}

#[derive(clap::Args)]
pub(super) struct UnmarkArguments {
    /// The image: HOST/REPOSITORY:TAG or @DIGEST
    source: String,
    /// A layer: its number from 1, or its digest; all foreign ones where none is named
    #[arg(long = "layer", value_name = "N|DIGEST")]
    layers: Vec<LayerName>,
    #[command(flatten)]
    common: CommonArguments,
}

#[derive(clap::Args)]
struct CommonArguments {
    /// Where the new image goes
    #[arg(long, value_name = "HOST/REPOSITORY[:TAG]")]
    to: String,
    /// Only the images of an index that are for this platform
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<PlatformPattern>,
    /// Blobs to push at the same time
    #[arg(long, value_name = "N", default_value_t = Limits::default().concurrent_blobs, value_parser = super::parse_jobs)]
    jobs: usize,
    #[command(flatten)]
    config: ConfigArgument,
}

/// `--layer` and `--url`, which belong together by the order in which they stand.
struct Marks(Vec<Mark>);

impl clap::Args for Marks {
    fn augment_args(command: clap::Command) -> clap::Command {
        let layer = Arg::new("layer").long("layer").value_name("N|DIGEST").required(true).action(ArgAction::Append);
        let layer = layer.help("A layer that is to be foreign: its number from 1, or its digest");
        let layer = layer.value_parser(|text: &str| text.parse::<LayerName>());
        let url = Arg::new("url").long("url").value_name("URL").required(true).action(ArgAction::Append);
        let url = url.help("Where the layer named before it is to be had; several are alternatives");
        // Checked below: what is wrong with an address is said without repeating it.
        command.arg(layer).arg(url)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Marks {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut marks: Vec<(usize, Mark)> = Vec::new();
        for (at, layer) in in_place::<LayerName>(matches, "layer") {
            marks.push((at, Mark { layer, urls: Vec::new() }));
        }
        for (number, (at, url)) in (1..).zip(in_place::<String>(matches, "url")) {
            let Some((_, mark)) = marks.iter_mut().rev().find(|(layer, _)| *layer < at) else {
                return Err(misplaced(format!("--url {number} stands before any --layer that it could belong to")));
            };
            match parse_url(&url) {
                Ok(url) => mark.urls.push(url),
                Err(why) => return Err(misplaced(format!("--url {number} is not to be used: {why}"))),
            }
        }
        match marks.iter().find(|(_, mark)| mark.urls.is_empty()) {
            Some((_, mark)) => Err(misplaced(format!("{} has no --url behind it", mark.layer))),
            None => Ok(Marks(marks.into_iter().map(|(_, mark)| mark).collect())),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The values of an argument, and where on the command line each stands.
fn in_place<T: Clone + Send + Sync + 'static>(matches: &ArgMatches, name: &str) -> Vec<(usize, T)> {
    let given = matches.value_source(name) == Some(ValueSource::CommandLine);
    let places = matches.indices_of(name).filter(|_| given).into_iter().flatten();
    places.zip(matches.get_many::<T>(name).into_iter().flatten().cloned()).collect()
}

fn misplaced(text: String) -> clap::Error {
    let help = "each --layer is followed by its own --url: --layer 1 --url https://… --layer 2 --url https://…";
    clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, format!("{text}\n  help: {help}\n"))
}

pub(super) async fn run(command: ForeignCommand, output: Output) -> Result<Option<Kind>> {
    match command {
        ForeignCommand::List(arguments) => run_list(arguments, output).await,
        ForeignCommand::Mark(MarkArguments { source, marks, common, push_layers }) => {
            run_change(&source, &Wish::Mark(marks.0), &common, push_layers, output).await
        }
        ForeignCommand::Unmark(UnmarkArguments { source, layers, common }) => {
            run_change(&source, &Wish::Unmark(layers), &common, false, output).await
        }
    }
}

async fn run_list(arguments: ListArguments, output: Output) -> Result<Option<Kind>> {
    let config = arguments.config.load()?;
    let place = place(&arguments, &config)?;
    let report = list(&arguments.what, &place).await?;
    let verdict = report.verdict();
    output::report(output, &report, human_list)?;
    Ok(verdict)
}

/// What is meant: a folder that is there, or else a reference.
fn place(arguments: &ListArguments, config: &Config) -> Result<Place> {
    let folder = Path::new(&arguments.what);
    // Whoever names a key wants to know what it signed.
    if Place::is_bundle(folder) || (folder.is_dir() && !arguments.keys.is_empty()) {
        let keys = arguments.keys.load(&[])?;
        let folders = group_folders(&[folder.to_owned()]).into_iter().next().unwrap_or_default();
        return BundleReader::open(&folders, &keys).map(|reader| Place::Bundle(Box::new(reader)));
    }
    if Place::is_layout(folder) {
        return Ok(Place::Layout(folder.to_owned()));
    }
    if folder.is_dir() {
        return Err(Error::usage(format!("{} is neither a store, a bundle nor another image layout", arguments.what))
            .help("a bundle has a bundle.json, and a layout an oci-layout"));
    }
    if !arguments.keys.is_empty() {
        return Err(Error::usage("--key is for bundles, and this is the name of an image in a registry"));
    }
    let reference = reference("WHAT", &arguments.what).map_err(|error| {
        error.help("HOST/REPOSITORY:TAG, HOST/REPOSITORY@sha256:…, or the folder of a store, a bundle or a layout; there is no such folder")
    })?;
    let client = super::client(config, Side::Source)?;
    Place::registry(client.repository(&reference.repository), &reference)
}

/// An argument that names an image. A text that may hold a password is not repeated.
fn reference(argument: &str, text: &str) -> Result<Reference> {
    let is_digest = |text: &str| text.starts_with("sha256:") || text.starts_with("sha512:");
    if text.split_once('@').is_some_and(|(_, behind)| !is_digest(behind)) {
        return Err(Error::usage(format!("{argument}: there is an @ in it, and no digest behind that"))
            .help("log in with `docker login` or `podman login`, whose files are read. Change the password, if one stood there"));
    }
    text.parse().map_err(|error| Error::usage(format!("{argument}: {error}")))
}

async fn run_change(
    source: &str,
    wish: &Wish,
    common: &CommonArguments,
    push_foreign: bool,
    output: Output,
) -> Result<Option<Kind>> {
    let (source, target) = (reference("SOURCE", source)?, reference("--to", &common.to)?);
    if target.digest.is_some() {
        return Err(Error::usage("--to names a digest, and the new image gets one of its own")
            .help("HOST/REPOSITORY:TAG, or without a tag"));
    }
    let config = common.config.load()?;
    let order = Order {
        source: &source,
        target: &target,
        wish,
        platform: common.platform.as_ref(),
        push_foreign,
        limits: Limits { concurrent_blobs: common.jobs, keep_going: false },
    };
    let client = |side| super::client(&config, side).map(|client| client.with_jobs(common.jobs));
    let report = change(&order, &client(Side::Source)?, &client(Side::Target)?, &Progress::new()).await?;
    output::report(output, &report, human_change)?;
    Ok(None)
}

fn human_list(report: &ListReport) -> String {
    let looked_at = count(report.looked_at, "image");
    if report.images.is_empty() {
        return format!("{}: no foreign layers, and none with urls, in {looked_at}\n", report.what);
    }
    let mut text = format!("{}: {looked_at} looked at\n", report.what);
    for image in &report.images {
        image_rows(&mut text, image);
    }
    text
}

fn image_rows(text: &mut String, image: &ListedImage) {
    match image.names.is_empty() {
        true => _ = writeln!(text, "\n{}", image.root),
        false => _ = writeln!(text, "\n{}\n  {}", image.names.join(", "), image.root),
    }
    for layer in &image.layers {
        layer_rows(text, layer);
    }
    if image.not_here > 0 {
        let _ = writeln!(text, "  {} of it not here, and not looked at", count(image.not_here, "manifest"));
    }
    if let Some(problem) = &image.problem {
        let _ = writeln!(text, "  NOT looked at to the end: {}", problem.text);
    }
}

fn layer_rows(text: &mut String, layer: &ListedLayer) {
    let platform = layer.platform.as_deref().unwrap_or("no platform");
    let kind = if layer.foreign { "foreign" } else { "ordinary" };
    let here = if layer.here { "here" } else { "not here" };
    let _ = writeln!(
        text,
        "  {platform:<24} layer {:<3} {:>10}  {kind:<9} {here:<9} {}",
        layer.number,
        size(layer.size),
        layer.digest
    );
    let from = if layer.hosts.is_empty() { "nowhere: it has no urls".to_owned() } else { layer.hosts.join(", ") };
    let _ = writeln!(text, "  {:<24} from {from}", "");
}

fn human_change(report: &ChangeReport) -> String {
    let tag = report.tag.as_ref().map_or(String::new(), |tag| format!(":{tag}"));
    let mut text = format!("{}{tag}\n  was  {}\n  is   {}\n", report.target, report.old, report.new);
    for image in &report.images {
        let platform = image.platform.as_deref().unwrap_or("no platform");
        let _ = writeln!(text, "\n{platform}\n  was     {}\n  is      {}", image.old, image.new);
        let _ = writeln!(text, "  config  {}, as it was", image.config);
        for layer in report.layers.iter().filter(|layer| layer.manifest == image.new) {
            let pushed = if layer.pushed { "pushed" } else { "not pushed" };
            let _ = writeln!(text, "  layer {} of {}, {pushed}: {}", layer.number, size(layer.size), layer.digest);
            let _ = writeln!(text, "    {}", layer.is);
            for url in &layer.urls {
                let _ = writeln!(text, "    from {url}");
            }
        }
    }
    text.push('\n');
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}
