//! From a registry to a registry: one platform of three is carried, and nothing that has a digest changes.

use sealift::oci::Tag;
use sealift::sample::pseudo_random;

use super::*;

/// Everything that an index can hold: platforms with attestations, a child without a platform, referrers of the index
/// and of a child, a cosign signature.
fn app() -> SampleImage {
    ImageBuilder::new()
        .layer_files(&[("etc/base", &pseudo_random(200_000, 7))])
        .platform("linux", "amd64", "")
        .random_layer(1_000_000, 1)
        .attestation()
        .child_referrer("application/spdx+json", b"{\"name\":\"amd64\"}")
        .platform("linux", "arm64", "v8")
        .random_layer(1_000_000, 2)
        .attestation()
        .child_referrer("application/spdx+json", b"{\"name\":\"arm64\"}")
        .platformless()
        .random_layer(10_000, 3)
        .referrer("application/vnd.dev.sigstore.bundle.v0.3+json", b"{\"bundle\":1}")
        .cosign_tag("registry.example/team/app", |payload| Digest::of(payload).bytes().to_vec())
        .build()
        .unwrap()
}

fn docker_list() -> SampleImage {
    ImageBuilder::new()
        .docker_format()
        .platform("linux", "amd64", "")
        .random_layer(300_000, 4)
        .platform("linux", "arm64", "v8")
        .random_layer(300_000, 5)
        .build()
        .unwrap()
}

struct Journey {
    sides: Sides,
    busybox: SampleImage,
    app: SampleImage,
    docker: SampleImage,
    bundle: String,
}

impl Journey {
    /// Seeds the source, and carries linux/amd64 of everything into a bundle.
    async fn to_bundle() -> Option<Self> {
        let busybox = debian_busybox_image()?;
        let sides = Sides::start().await?;
        let (app, docker) = (app(), docker_list());
        push_sample(&sides.source.url(), "debian/busybox", Some("1"), &busybox).await;
        push_sample(&sides.source.url(), "team/app", Some("2.0"), &app).await;
        push_sample(&sides.source.url(), "team/docker", Some("1"), &docker).await;
        let images = [
            (sides.source_of("debian/busybox"), "tags: {exact: [\"1\"]}"),
            (sides.source_of("team/app"), "tags: {semver: \">=1\", newest: 1}"),
            (sides.source_of("team/docker"), "tags: {glob: [\"*\"]}"),
        ];
        let machine = &sides.machine;
        machine.write("spec.yaml", &spec("real", "linux/amd64", &images));
        let checked = machine.json(&["spec", "check", "spec.yaml"]).await;
        assert_eq!(checked["specs"][0]["images"], 3);
        let plan = machine.json(&["plan", "spec.yaml", "--store", "store"]).await;
        assert_eq!(plan["plans"][0]["failed"], serde_json::json!([]));
        assert!(blobs_asked(&sides.source.accesses(), "GET").is_empty(), "a plan moves no layer");
        let pulled = pull(machine, "spec.yaml").await;
        assert_eq!(pulled["reports"][0]["complete"], 3);
        let bundle = export(machine, "real", VOLUME_SIZE).await;
        let verified = verify(machine, &bundle).await;
        assert!(verified["reports"][0]["volumes"].as_array().unwrap().len() >= 3, "meta.tar and two volumes");
        Some(Journey { sides, busybox, app, docker, bundle })
    }

    fn images(&self) -> [(&'static str, &'static str, &SampleImage); 3] {
        [("debian/busybox", "1", &self.busybox), ("team/app", "2.0", &self.app), ("team/docker", "1", &self.docker)]
    }

    fn reference(&self, repository: &str, image: &SampleImage) -> String {
        format!(
            "{}/{}@{}",
            self.sides.target.host(),
            self.sides.name_on_target("mirror", repository),
            image.root.digest
        )
    }
}

#[tokio::test]
async fn one_platform_of_three_crosses_and_every_digest_stays() {
    let Some(journey) = Journey::to_bundle().await else { return };
    the_source_was_not_asked_for_what_stays_behind(&journey);
    let report = journey.sides.replay(&journey.bundle, "mirror").await;
    for (repository, tag, image) in journey.images() {
        let found = replayed(&report, repository);
        assert_eq!(found["rung"], "stubs", "{found}");
        assert_eq!(found["tags"], serde_json::json!([tag]));
        let target = journey.sides.on_target(repository);
        let bytes = image.bytes(&image.root.digest);
        assert_eq!(target.manifest(image.root.digest).await.as_ref(), bytes);
        assert_eq!(target.manifest(tag).await.as_ref(), bytes);
        kept_children_are_whole(&target, image).await;
    }
    what_speaks_about_an_image_came_along(&journey).await;
    clients_pull_what_was_kept(&journey).await;
    again_nothing_is_uploaded(&journey).await;
}

fn the_source_was_not_asked_for_what_stays_behind(journey: &Journey) {
    let asked = blobs_asked(&journey.sides.source.accesses(), "GET");
    for (repository, _, image) in journey.images() {
        let kept: Vec<Digest> = children_for(image, "amd64").iter().flat_map(|child| blobs_of(image, child)).collect();
        assert!(kept.iter().all(|blob| asked.contains(blob)), "{repository}");
        for architecture in ["arm64", "s390x"] {
            for child in children_for(image, architecture) {
                let own = blobs_of(image, &child).into_iter().filter(|blob| !kept.contains(blob));
                own.for_each(|blob| assert!(!asked.contains(&blob), "{repository}: {blob} of {architecture}"));
            }
        }
    }
}

/// Children for amd64, with their attestations, and those without a platform are there with all blobs; of the others
/// no blob is.
async fn kept_children_are_whole(target: &Reader, image: &SampleImage) {
    let mut kept = children_for(image, "amd64");
    kept.extend(image.children().into_iter().filter(|child| child.platform.is_none()));
    let mut present = Vec::new();
    for child in &kept {
        assert_eq!(target.manifest(child.digest).await.as_ref(), image.bytes(&child.digest));
        for blob in blobs_of(image, child) {
            assert!(target.has_blob(&blob).await, "{blob}");
            present.push(blob);
        }
    }
    let left_out = ["arm64", "s390x"].into_iter().flat_map(|architecture| children_for(image, architecture));
    for blob in left_out.flat_map(|child| blobs_of(image, &child)).filter(|blob| !present.contains(blob)) {
        assert!(!target.has_blob(&blob).await, "{blob}");
    }
}

async fn what_speaks_about_an_image_came_along(journey: &Journey) {
    let (app, target) = (&journey.app, journey.sides.on_target("team/app"));
    let amd64 = app.child("linux", "amd64", "").unwrap().digest;
    let arm64 = app.child("linux", "arm64", "").unwrap().digest;
    for subject in [app.root.digest, amd64] {
        let list = target.document(Tag::referrers_fallback(&subject)).await;
        let referrer = &app.referrers(&subject)[0];
        assert_eq!(list["manifests"][0]["digest"], referrer.digest.to_string());
        assert_eq!(target.manifest(referrer.digest).await.as_ref(), app.bytes(&referrer.digest));
    }
    assert_eq!(target.manifest(Tag::referrers_fallback(&arm64)).await, None);
    assert_eq!(target.manifest(app.referrers(&arm64)[0].digest).await, None);
    let (tag, signature) = &app.tags[0];
    assert_eq!(target.manifest(tag).await.as_ref(), app.bytes(&signature.digest));
    for blob in blobs_of(app, signature) {
        assert!(target.has_blob(&blob).await);
    }
}

async fn clients_pull_what_was_kept(journey: &Journey) {
    if !have(&["skopeo", "podman"]) {
        return;
    }
    let clients = Clients::new();
    for (repository, _, image) in journey.images() {
        let reference = journey.reference(repository, image);
        let from = format!("docker://{reference}");
        let copy = |architecture: &'static str| {
            let to = format!("dir:{}", clients.folder().join(architecture).display());
            let (clients, from) = (&clients, &from);
            async move {
                let choice = ["--override-os", "linux", "--override-arch", architecture];
                clients.skopeo(&[&choice[..], &["copy", "--src-tls-verify=false", from, &to]].concat()).await
            }
        };
        let copied = copy("amd64").await;
        assert!(copied.status.success(), "{copied:?}");
        let refused = copy("arm64").await;
        let said = String::from_utf8_lossy(&refused.stderr);
        // The stub's manifest answers; its config does not.
        assert!(!refused.status.success() && said.contains("404 (Not Found)"), "{said}");
        let pull = ["pull", "--quiet", "--tls-verify=false", "--arch"];
        clients.podman_ok(&[&pull[..], &["amd64", &reference]].concat()).await;
        let architecture = clients.podman_ok(&["image", "inspect", "--format", "{{.Architecture}}", &reference]).await;
        assert_eq!(architecture.trim(), "amd64");
        let refused = clients.podman(&[&pull[..], &["arm64", &reference]].concat()).await;
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("404 (Not Found)"), "{said}");
    }
}

async fn again_nothing_is_uploaded(journey: &Journey) {
    let before = journey.sides.target.accesses().len();
    let report = journey.sides.replay(&journey.bundle, "mirror").await;
    let accesses = journey.sides.target.accesses();
    assert_eq!(uploads(&accesses[before..]), Vec::<&Access>::new());
    assert!(accesses[before..].iter().any(|access| access.method == "PUT"), "manifests are always put");
    assert!(replayed(&report, "team/app")["problem"].is_null());
}

/// A blob that two repositories need is uploaded to the first and mounted into the second.
#[tokio::test]
async fn what_another_repository_has_is_mounted() {
    let Some(sides) = Sides::start().await else { return };
    let image = ImageBuilder::new().platform("linux", "amd64", "").random_layer(400_000, 9).build().unwrap();
    let repositories = ["team/one", "team/two"];
    for repository in repositories {
        push_sample(&sides.source.url(), repository, Some("1"), &image).await;
    }
    let images = repositories.map(|repository| (sides.source_of(repository), "tags: {exact: [\"1\"]}"));
    sides.machine.write("spec.yaml", &spec("mounts", "linux/amd64", &images));
    pull(&sides.machine, "spec.yaml").await;
    let bundle = export(&sides.machine, "mounts", VOLUME_SIZE).await;
    sides.replay(&bundle, "mirror").await;
    let accesses = sides.target.accesses();
    let of_second = |access: &&Access| access.path.contains("/team/two/blobs/");
    let second: Vec<Access> = accesses.iter().filter(of_second).cloned().collect();
    assert_eq!(uploads(&second), Vec::<&Access>::new());
    let mounted = second.iter().filter(|access| access.path.contains("mount=") && access.status == 201).count();
    assert_eq!(mounted, 2, "config and layer: {second:?}");
    assert_eq!(sides.on_target("team/two").manifest("1").await.as_ref(), image.bytes(&image.root.digest));
}
