//! What is kept of an index, planned with the library.

use std::sync::Arc;

use bytes::Bytes;
use sealift::image::Image;
use sealift::monitor::Silent;
use sealift::oci::{Descriptor, Digest, MediaType, Tag};
use sealift::plan::{Plan, plan};
use sealift::sample::{ImageBuilder, SampleImage, seed};
use sealift::serve::{MemoryShelf, Running, Shelf};
use sealift::store::{Access, Store};
use sealift::{Side, spec};
use serde_json::{Value, json};

use crate::support::journey::quick_client;

/// A source with one repository, `app`, and its tag `1`.
pub struct Source {
    pub shelf: MemoryShelf,
    pub at: Running,
}

impl Source {
    pub async fn of(image: &SampleImage) -> Self {
        let source = Self::empty().await;
        seed(source.shelf.writer().unwrap(), "app", Some(&tag()), image).unwrap();
        source
    }

    pub async fn empty() -> Self {
        let shelf = MemoryShelf::new();
        let at = Running::start(Arc::new(shelf.clone())).await.unwrap();
        Source { shelf, at }
    }

    /// Puts a document that somebody else has written, and tags it.
    pub fn put(&self, media_type: MediaType, document: &Value) -> Descriptor {
        let bytes = Bytes::from(document.to_string());
        let descriptor = Descriptor::of(media_type, &bytes);
        self.shelf.writer().unwrap().put_manifest("app", Some(&tag()), &descriptor, &bytes).unwrap();
        descriptor
    }

    pub fn blob(&self, media_type: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(MediaType::new(media_type), bytes);
        let mut upload = self.shelf.writer().unwrap().begin_upload("app").unwrap();
        upload.write(bytes).unwrap();
        upload.commit(&descriptor.digest).unwrap();
        descriptor
    }

    /// A plan for `platforms`; `more` are the other lines of the entry.
    pub async fn plan(&self, platforms: &[&str], more: &str) -> Plan {
        let text = format!(
            "apiVersion: sealift/v1\nkind: MirrorSpec\nname: test\nimages:\n  - source: {}/app\n    tags: {{exact: ['1']}}\n    \
             platforms: {}\n{more}",
            self.at.address(),
            json!(platforms)
        );
        let spec = spec::parse(std::path::Path::new("test.yaml"), text.as_bytes()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path(), Access::Writer).unwrap());
        plan(&spec, &quick_client(Side::Source), &store, &Silent).await.unwrap()
    }

    async fn image(&self, platforms: &[&str]) -> Image {
        let planned = self.plan(platforms, "").await;
        assert!(planned.failed.is_empty(), "{platforms:?}: {:?}", planned.failed);
        planned.images[0].image.clone()
    }

    /// The platforms of the children that are kept, sorted; `-` for one without.
    async fn kept(&self, platforms: &[&str]) -> Vec<String> {
        let image = self.image(platforms).await;
        let mut kept: Vec<String> =
            image.kept.iter().map(|child| child.platform.clone().unwrap_or_else(|| "-".into())).collect();
        kept.sort();
        kept
    }
}

pub fn tag() -> Tag {
    "1".parse().unwrap()
}

/// One child for each platform; variants and architectures are spelled as different tools spell them.
fn wide(docker: bool) -> SampleImage {
    let mut builder = ImageBuilder::new();
    let linux = [
        ("x86_64", ""),
        ("amd64", "v3"),
        ("aarch64", ""),
        ("arm64", "v9.0"),
        ("arm", ""),
        ("arm", "6"),
        ("i386", ""),
        ("s390x", ""),
    ];
    for (number, (architecture, variant)) in (1..).zip(linux) {
        builder = builder.platform("linux", architecture, variant).random_layer(10, number);
    }
    for (number, (version, feature)) in
        (20..).zip([("10.0.17763.5576", "win32k"), ("10.0.17763.5577", ""), ("10.0.20348.2340", "")])
    {
        builder = builder.platform("windows", "amd64", "").os_version(version).random_layer(10, number);
        if !feature.is_empty() {
            builder = builder.os_feature(feature);
        }
    }
    let builder = builder.platform("macos", "aarch64", "v8").random_layer(10, 30);
    if docker { builder.docker_format() } else { builder }.build().unwrap()
}

const WIDE: &[(&[&str], &[&str])] = &[
    (&["linux/amd64"], &["linux/amd64"]),
    (&["linux/x86_64"], &["linux/amd64"]),
    (&["linux/amd64/v1"], &["linux/amd64"]),
    (&["linux/amd64/v3"], &["linux/amd64/v3"]),
    (&["linux/amd64/*"], &["linux/amd64", "linux/amd64/v3"]),
    (&["linux/arm64"], &["linux/arm64"]),
    (&["linux/arm64/v8"], &["linux/arm64"]),
    (&["linux/aarch64"], &["linux/arm64"]),
    (&["linux/arm64/v8.0"], &["linux/arm64"]),
    (&["linux/arm64/v9"], &["linux/arm64/v9"]),
    (&["linux/arm64/v*"], &["linux/arm64", "linux/arm64/v9"]),
    (&["linux/arm"], &["linux/arm/v7"]),
    (&["linux/arm/v7"], &["linux/arm/v7"]),
    (&["linux/armhf"], &["linux/arm/v7"]),
    (&["linux/armel"], &["linux/arm/v6"]),
    (&["linux/arm/v6"], &["linux/arm/v6"]),
    (&["linux/arm/*"], &["linux/arm/v6", "linux/arm/v7"]),
    (&["linux/386"], &["linux/386"]),
    (&["linux/i386"], &["linux/386"]),
    (&["darwin/arm64"], &["darwin/arm64"]),
    (&["macos/arm64/v8"], &["darwin/arm64"]),
    (&["*/s390x"], &["linux/s390x"]),
    (&["*/arm64"], &["darwin/arm64", "linux/arm64"]),
    (&["linux/amd64", "linux/s390x"], &["linux/amd64", "linux/s390x"]),
    (
        &["windows/amd64"],
        &["windows/amd64:10.0.17763.5576+win32k", "windows/amd64:10.0.17763.5577", "windows/amd64:10.0.20348.2340"],
    ),
    (&["windows/amd64:10.0.17763.*"], &["windows/amd64:10.0.17763.5576+win32k", "windows/amd64:10.0.17763.5577"]),
    (&["windows/amd64:10.0.20348.2340"], &["windows/amd64:10.0.20348.2340"]),
    (&["windows/*:*.5577"], &["windows/amd64:10.0.17763.5577"]),
    (&["windows/amd64+win32k"], &["windows/amd64:10.0.17763.5576+win32k"]),
    (&["windows/amd64:10.0.17763.*+win32k"], &["windows/amd64:10.0.17763.5576+win32k"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_is_taken_however_it_is_written() {
    for docker in [false, true] {
        let image = wide(docker);
        let source = Source::of(&image).await;
        for (platforms, expected) in WIDE {
            assert_eq!(source.kept(platforms).await, *expected, "{platforms:?} of {}", image.root.media_type);
        }
        let all = source.image(&["all"]).await;
        assert_eq!((all.kept.len(), all.left_out.len()), (12, 0));
        // Whatever is kept, the index itself is carried as it is.
        assert_eq!((all.root.digest, all.root.media_type), (image.root.digest, image.root.media_type.clone()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_index_does_not_have_is_said_with_what_it_has() {
    let source = Source::of(&wide(false)).await;
    for (missing, platforms) in [
        ("linux/riscv64", &["linux/amd64", "linux/riscv64"][..]),
        ("linux/arm/v5", &["linux/arm/v5"]),
        ("windows/amd64:10.0.26100.*", &["windows/amd64:10.0.26100.*"]),
        ("windows/amd64:10.0.20348.*+win32k", &["windows/amd64:10.0.20348.*+win32k"]),
    ] {
        let failed = source.plan(platforms, "").await;
        assert_eq!((failed.images.len(), failed.failed.len()), (0, 1), "{missing}");
        let text = format!("{:?}", failed.failed);
        assert!(text.contains(&format!("it has no {missing}; it has linux/amd64, linux/amd64/v3, ")), "{text}");
        let skipped = source.plan(platforms, "    missingPlatform: skip\n").await;
        assert!(skipped.failed.is_empty(), "{missing}: {:?}", skipped.failed);
        assert!(skipped.notes.iter().any(|note| note.contains(&format!("it has no {missing}"))), "{:?}", skipped.notes);
        assert_eq!(skipped.images.len(), platforms.len() - 1, "{missing}: what is there comes along");
    }
}

/// An index that lists two indexes and an image; an index has a platform, or none.
pub fn nested(source: &Source, platform_of_lists: &Value) -> (SampleImage, SampleImage, Descriptor) {
    let build = |seed: u64, docker: bool| {
        let builder = ImageBuilder::new()
            .platform("linux", "amd64", "")
            .random_layer(100, seed)
            .platform("linux", "arm64", "v8")
            .random_layer(100, seed + 1);
        if docker { builder.docker_format() } else { builder }.build().unwrap()
    };
    let (first, second) = (build(1, false), build(11, true));
    for inner in [&first, &second] {
        seed(source.shelf.writer().unwrap(), "app", None, inner).unwrap();
    }
    let entry = |list: &Descriptor| {
        let mut entry = json!({"mediaType": list.media_type, "digest": list.digest, "size": list.size});
        if !platform_of_lists.is_null() {
            entry["platform"] = platform_of_lists.clone();
        }
        entry
    };
    let index = json!({
        "schemaVersion": 2, "mediaType": MediaType::OCI_INDEX, "manifests": [entry(&first.root), entry(&second.root)],
    });
    let root = source.put(MediaType::OCI_INDEX, &index);
    (first, second, root)
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_indexes_are_walked() {
    for platform in [Value::Null, json!({"os": "linux", "architecture": "s390x"})] {
        let source = Source::empty().await;
        let (first, second, root) = nested(&source, &platform);
        let image = source.image(&["linux/arm64"]).await;
        let digests = |children: &[SampleImage], architecture| -> Vec<Digest> {
            children.iter().map(|inner| inner.child("linux", architecture, "").unwrap().digest).collect()
        };
        let lists = [first.root.digest, second.root.digest];
        let images = [first, second];
        let mut expected: Vec<Digest> = digests(&images, "arm64").into_iter().chain(lists).collect();
        let mut kept: Vec<Digest> = image.kept.iter().map(|child| child.descriptor.digest).collect();
        expected.sort();
        kept.sort();
        assert_eq!(kept, expected, "an index with a kept child is kept, whatever platform it names itself");
        let mut left: Vec<Digest> = image.left_out.iter().map(|child| child.descriptor.digest).collect();
        let mut expected = digests(&images, "amd64");
        left.sort();
        expected.sort();
        assert_eq!(left, expected);
        assert_eq!(image.root.digest, root.digest);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attestations_and_children_without_a_platform_go_by_their_own_rules() {
    let image = ImageBuilder::new()
        .platform("linux", "amd64", "")
        .random_layer(10, 1)
        .attestation()
        .platform("linux", "arm64", "v8")
        .random_layer(10, 2)
        .attestation()
        .platformless()
        .random_layer(10, 3)
        .build()
        .unwrap();
    let source = Source::of(&image).await;
    assert_eq!(source.kept(&["linux/amd64"]).await, ["-", "linux/amd64", "unknown/unknown"]);
    assert_eq!(source.image(&["linux/amd64"]).await.left_out.len(), 2);
    assert_eq!(source.image(&["all"]).await.left_out.len(), 0);
}
