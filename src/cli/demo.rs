//! `sealift demo`: the whole way on one machine, with nothing installed.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Output, output};
use crate::bundle::{BundleReader, PublicKey, ReadBack, SigningKey, generate_key};
use crate::config::Config;
use crate::content::{Limits, read_limited};
use crate::error::{Context, Error, Kind, Result, Side};
use crate::export::{ExportOptions, ExportReport, export};
use crate::monitor::Silent;
use crate::oci::{Digest, MANIFEST_SIZE_MAX, Manifest, Name, Registry, Repository, Tag};
use crate::plan::plan;
use crate::pull::pull;
use crate::registry::{Client, Credentials, Pull, Remote};
use crate::replay::{Destination, ReplayReport, replay};
use crate::sample::{ImageBuilder, SampleImage, seed};
use crate::serve::{Running, Shelf, StoreShelf};
use crate::site::state::State;
use crate::store::{Access, Store};
use crate::target::Known;
use crate::verify::{VerifyReport, verify};
use crate::{durable, spec};

/// Small enough for the demo's layers to need two volumes.
const VOLUME_SIZE: u64 = 300 * 1024;

#[derive(clap::Args)]
#[command(after_help = "Examples:
  sealift demo
  sealift demo --keep ./try

Two registries on loopback addresses, a store and a \"drive\" below a temporary folder; everything is removed in the end,
unless --keep names a folder for it.")]
pub(super) struct DemoArguments {
    /// Keep everything in this folder, which must be new or empty
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

pub(super) async fn run(arguments: DemoArguments, output: Output) -> Result<Option<Kind>> {
    let temporary = tempfile::Builder::new().prefix("sealift-demo-").tempdir()?;
    let folder = match &arguments.keep {
        Some(folder) => empty_folder(folder)?,
        None => temporary.path().to_owned(),
    };
    let report = Demo::new(&folder, output)?.run().await?;
    if output == Output::Json {
        output::report(output, &report, |_| String::new())?;
    }
    if let Some(folder) = &arguments.keep {
        output::say(&kept(folder, &report));
    }
    Ok(None)
}

fn empty_folder(folder: &Path) -> Result<PathBuf> {
    durable::create_folder(folder)?;
    if std::fs::read_dir(folder)?.next().is_some() {
        return Err(Error::usage(format!("{} is not empty", folder.display())).help("name a new folder"));
    }
    Ok(folder.canonicalize()?)
}

fn kept(folder: &Path, report: &DemoReport) -> String {
    let folder = folder.display();
    format!(
        "\nEverything is in {folder}. Try:\n  \
         sealift verify {folder}/drive/{bundle} --key {folder}/keys/exporter.pub\n  \
         sealift serve {folder}/drive/{bundle} --key {folder}/keys/exporter.pub\n  \
         sealift serve {folder}/target",
        bundle = report.export.bundle
    )
}

/// What `demo --output json` prints.
#[derive(serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DemoReport {
    /// What export did.
    export: ExportReport,
    /// What verify said of the fresh bundle.
    verified: VerifyReport,
    /// What replay did.
    replayed: ReplayReport,
    /// What verify said after one byte was flipped.
    damaged: VerifyReport,
}

struct Demo<'a> {
    folder: &'a Path,
    /// Where the story goes: nowhere when standard output is for JSON.
    tell: bool,
    images: Vec<(&'static str, SampleImage)>,
}

impl<'a> Demo<'a> {
    fn new(folder: &'a Path, output: Output) -> Result<Self> {
        Ok(Demo { folder, tell: output == Output::Human, images: images()? })
    }

    fn step(&self, title: &str, lines: &[String]) -> Result<()> {
        if !self.tell {
            return Ok(());
        }
        let lines: String = lines.iter().map(|line| format!("    {line}\n")).collect();
        output::print(&format!("{title}\n{lines}"))
    }

    async fn run(&self) -> Result<DemoReport> {
        let source = self.start_source().await?;
        let spec = self.write_spec(&source)?;
        let store = Arc::new(Store::open(&self.folder.join("store"), Access::Writer)?);
        self.plan_and_pull(&spec, &store).await?;
        source.stop().await?;
        let key = self.make_key()?;
        let export = self.export(&store, &key).await?;
        let verified = self.verify(&export, &key)?;
        let replayed = self.replay(&export, &key).await?;
        let damaged = self.damage(&export, &key)?;
        self.step(
            "Done. Nothing left this machine. What to try next",
            &[
                "sealift demo --keep ./try               and look at the files".to_owned(),
                "sealift spec check mirror-specs/*.yaml  then write your own".to_owned(),
                "sealift plan SPEC --store ./store       what would it bring?".to_owned(),
            ],
        )?;
        Ok(DemoReport { export, verified, replayed, damaged })
    }

    async fn start_source(&self) -> Result<Running> {
        let shelf = shelf(&self.folder.join("source"))?;
        let mut lines = Vec::new();
        for (name, image) in &self.images {
            let writer = shelf.writer().ok_or_else(|| Error::failed("the demo's registry takes no pushes"))?;
            let tag: Tag = "1.0".parse().map_err(|error| Error::failed(format!("{error}")))?;
            seed(writer, name, Some(&tag), image)?;
            lines.push(format!("{name}:1.0  {}", image.root.digest));
        }
        let running = Running::start(shelf).await?;
        lines.insert(0, format!("an embedded registry at {}", running.url()));
        self.step("1. A registry on the connected side, with images for three platforms", &lines)?;
        Ok(running)
    }

    fn write_spec(&self, source: &Running) -> Result<spec::MirrorSpec> {
        let address = source.address();
        let entries: String = self
            .images
            .iter()
            .map(|(name, _)| format!("  - source: {address}/{name}\n    tags: {{exact: [\"1.0\"]}}\n"))
            .collect();
        let text = format!(
            "apiVersion: sealift/v1\nkind: MirrorSpec\nname: demo\ndefaults:\n  platforms: [linux/amd64, linux/arm64]\nimages:\n{entries}"
        );
        let file = self.folder.join("demo.yaml");
        durable::write_file(&file, text.as_bytes(), 0o644)?;
        Ok(spec::load(&file)?)
    }

    async fn plan_and_pull(&self, spec: &spec::MirrorSpec, store: &Arc<Store>) -> Result<()> {
        let client = client(Side::Source)?;
        let plan = plan(spec, &client, store, &Silent).await?;
        let mut lines = Vec::new();
        for planned in &plan.images {
            let left: Vec<String> = planned.image.left_out_platforms().into_keys().collect();
            let kept: Vec<&str> =
                planned.platforms.iter().filter(|row| row.kept).map(|row| row.platform.as_str()).collect();
            lines.push(format!(
                "{}: keep {}; leave out {}",
                planned.image.repository,
                kept.join(", "),
                or_none(&left.join(", "))
            ));
        }
        lines.push(format!(
            "to fetch {}, left out {}",
            output::size(plan.totals.new),
            output::size(plan.totals.left_out)
        ));
        self.step("2. Plan: two platforms of three, the index's bytes untouched", &lines)?;
        let report = pull(&plan, &Pull::new(client), store, Limits::default(), &Silent).await?;
        if let Some(failure) = report.failed.first() {
            return Err(Error::failed(format!("{}: {}", failure.subject, failure.problem)));
        }
        let fetched = format!(
            "{} whole; {} blobs, {}",
            output::count(report.complete, "image"),
            report.fetched_blobs,
            output::size(report.fetched_bytes)
        );
        self.step("3. Pull into an OCI image layout", &[fetched])
    }

    fn make_key(&self) -> Result<SigningKey> {
        let out = self.folder.join("keys/exporter");
        let public = generate_key(&out)?;
        self.step(
            "4. A key that signs bundles (ECDSA P-256: openssl and cosign can check it)",
            &[format!("fingerprint {}", public.id())],
        )?;
        SigningKey::load(&durable::with_suffix(&out, ".key"))
    }

    async fn export(&self, store: &Arc<Store>, key: &SigningKey) -> Result<ExportReport> {
        let options =
            ExportOptions { recorded: None, volume_size: VOLUME_SIZE, epoch: None, read_back: ReadBack::Direct };
        let report = export("demo", store, &self.folder.join("drive"), key, options, &Silent).await?;
        if report.volumes != 3 {
            return Err(Error::failed(format!(
                "the demo's layers need {} volumes instead of 2 and meta.tar",
                report.volumes
            )));
        }
        let mut lines = vec![format!("{}: {}", report.bundle, output::size(report.bytes))];
        let mut files: Vec<_> = std::fs::read_dir(&report.folder)?.collect::<std::io::Result<_>>()?;
        files.sort_by_key(std::fs::DirEntry::file_name);
        for file in files {
            lines.push(format!("{:>10}  {}", output::size(file.metadata()?.len()), file.file_name().to_string_lossy()));
        }
        self.step("5. Export to a drive: metadata, two volumes, one signature", &lines)?;
        Ok(report)
    }

    fn verify(&self, export: &ExportReport, key: &SigningKey) -> Result<VerifyReport> {
        let report = verify(std::slice::from_ref(&export.folder), std::slice::from_ref(key.public()), &Silent)?;
        if report.verdict().is_some() {
            return Err(Error::verification("the fresh bundle does not verify").on(Side::Bundle));
        }
        self.step(
            "6. Verify on the disconnected side: signature first, then every chunk",
            &[format!("good: {} in {} volumes", output::size(report.bytes), report.volumes.len())],
        )?;
        Ok(report)
    }

    async fn replay(&self, export: &ExportReport, key: &SigningKey) -> Result<ReplayReport> {
        let target = Running::start(shelf(&self.folder.join("target"))?).await?;
        let registry: Registry =
            target.address().to_string().parse().map_err(|error| Error::failed(format!("{error}")))?;
        let reader = Arc::new(BundleReader::open(std::slice::from_ref(&export.folder), &[public(key)])?);
        let mut state = State::lock(&self.folder.join("site"), "demo", &key.public().id())?;
        let host = registry.clone();
        let destination = Destination {
            client: client(Side::Target)?,
            known: Known::default(),
            stubs: true,
            tag_children: false,
            rollback: None,
            limits: Limits::default(),
            name: Box::new(move |source| {
                let path = source.target_path("mirror").map_err(|error| Error::usage(error.to_string()))?;
                Repository::new(host.clone(), &path).map_err(|error| Error::usage(error.to_string()))
            }),
        };
        let report = replay(&reader, &destination, &mut state, &Silent).await?;
        if let Some(problem) = report.images.iter().find_map(|image| image.problem.as_ref()) {
            return Err(Error::failed(problem.text.clone()));
        }
        let mut lines = vec![format!("another embedded registry at {}", target.url())];
        for image in &report.images {
            let repository: Repository = image.target.parse().map_err(|error| Error::failed(format!("{error}")))?;
            let read = read_back(&destination.client.repository(&repository), &image.root).await?;
            lines.push(format!("{}@{}", image.target, image.root));
            lines.push(format!(
                "  read back by that digest: {read}; signatures and referrers: {} of {}",
                image.signatures.present, image.signatures.expected
            ));
        }
        target.stop().await?;
        self.step("7. Replay into a registry: every digest unchanged, though one platform stayed behind", &lines)?;
        Ok(report)
    }

    /// Flips one bit in the middle of a volume, looks, and flips it back.
    fn damage(&self, export: &ExportReport, key: &SigningKey) -> Result<VerifyReport> {
        let volume = export.folder.join("vol-0001.tar");
        let middle = volume.metadata()?.len() / 2;
        flip(&volume, middle)?;
        let report = verify(std::slice::from_ref(&export.folder), std::slice::from_ref(key.public()), &Silent)?;
        flip(&volume, middle)?;
        let Some(damage) = report.damages.first() else {
            return Err(Error::verification("a flipped bit was not found"));
        };
        let whole = report.images.iter().filter(|image| image.problem.is_none()).count();
        self.step(
            &format!("8. One bit flipped at byte {middle} of vol-0001.tar: verify finds it"),
            &[
                format!(
                    "{}, bytes {} to {}, blob {}",
                    damage.volume,
                    damage.offset,
                    damage.offset + damage.length,
                    damage.blob.short()
                ),
                format!("{} of {} images can still be replayed", whole, report.images.len()),
            ],
        )?;
        Ok(report)
    }
}

fn public(key: &SigningKey) -> PublicKey {
    key.public().clone()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "nothing" } else { text }
}

fn shelf(folder: &Path) -> Result<Arc<dyn Shelf>> {
    let store = Store::open(folder, Access::Writer)?;
    Ok(Arc::new(StoreShelf::new(Arc::new(store), true)?))
}

fn client(side: Side) -> Result<Client> {
    Client::new(&Config::default(), Credentials::anonymous(), side)
}

fn flip(path: &Path, at: u64) -> Result<()> {
    // The demo's own drive: files there are read-only, and this is the damage that verify is to find.
    let before = path.metadata()?.permissions();
    let mut writable = before.clone();
    std::os::unix::fs::PermissionsExt::set_mode(&mut writable, 0o600);
    std::fs::set_permissions(path, writable)?;
    let file = File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ 1], at)?;
    std::fs::set_permissions(path, before)?;
    Ok(())
}

/// Reads the image of `root` from a target as a client would, and checks every byte of what is there.
async fn read_back(remote: &Remote, root: &Digest) -> Result<String> {
    let attempt = || format!("read back {}@{root}", remote.repository());
    let missing = || Error::failed("it is not there");
    let (descriptor, bytes) =
        remote.get_manifest(&Name::from(*root), None).await?.ok_or_else(missing).while_(attempt)?;
    let index = Manifest::parse(&descriptor.media_type, &bytes).map_err(|error| Error::failed(error.to_string()))?;
    let (mut kept, mut left_out, mut blobs) = (0, 0, 0);
    for child in index.children() {
        let Some((found, bytes)) = remote.get_manifest(&Name::from(child.digest), Some(child)).await? else {
            left_out += 1;
            continue;
        };
        kept += 1;
        let manifest = Manifest::parse(&found.media_type, &bytes).map_err(|error| Error::failed(error.to_string()))?;
        for blob in manifest.successors() {
            let bytes = read_limited(remote.open_blob(blob, 0).await?, blob.size.max(MANIFEST_SIZE_MAX)).await?;
            if Digest::of(&bytes) != blob.digest {
                return Err(Error::verification(format!("blob {} came back changed", blob.digest)).while_(attempt()));
            }
            blobs += 1;
        }
    }
    Ok(format!("{kept} children with {blobs} blobs are there, {left_out} answer 404"))
}

/// A few small but true images.
fn images() -> Result<Vec<(&'static str, SampleImage)>> {
    let platforms = |mut builder: ImageBuilder, seed: u64, size: usize, zstd: bool, attested: bool| {
        for (at, (architecture, variant)) in [("amd64", ""), ("arm64", "v8"), ("s390x", "")].into_iter().enumerate() {
            builder = builder.platform("linux", architecture, variant).random_layer(size, seed + at as u64);
            let text = format!("built for {architecture}\n");
            let files: &[(&str, &[u8])] = &[("etc/platform", text.as_bytes())];
            builder = if zstd { builder.layer_files_zstd(files) } else { builder.layer_files(files) };
            builder = if attested { builder.attestation() } else { builder };
        }
        builder
    };
    let base = || ImageBuilder::new().layer_files(&[("etc/motd", b"carried by sealift\n")]);
    let web = platforms(base(), 100, 90 * 1024, false, true).build()?;
    let tool = platforms(base(), 200, 60 * 1024, false, false)
        .referrer("application/spdx+json", b"{\"spdxVersion\":\"SPDX-2.3\",\"name\":\"tool\"}")
        .build()?;
    let agent = platforms(base(), 300, 70 * 1024, true, false).build()?;
    Ok(vec![("team/web", web), ("team/tool", tool), ("team/agent", agent)])
}
