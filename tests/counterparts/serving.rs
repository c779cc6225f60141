//! crane, regctl and oras against `sealift serve`: a sparse index is read by its digest from a bundle, and everything that
//! the tools write with goes into a store.

use super::*;

/// The child that is kept, and one that is not, out of a sparse index that is named by its digest.
#[tokio::test]
async fn a_bundle_is_read_by_the_digest_of_its_index() {
    let Some(tools) = Counterparts::with(&["crane", "regctl", "oras"]) else { return };
    let Some(carried) = Carried::start().await else { return };
    let serving = carried.serve_bundle().await;
    tools.regctl_without_tls(serving.host()).await;
    let name = format!("{}/{}", serving.host(), carried.repository());
    let (by_digest, by_tag) = (carried.by_digest(&name), format!("{name}:1"));
    for reference in [&by_digest, &by_tag] {
        let readers: [(&str, &[&str]); 3] = [
            ("crane", &["manifest"]),
            ("regctl", &["manifest", "get", "--format", "raw-body"]),
            ("oras", &["manifest", "fetch", "--plain-http"]),
        ];
        for (tool, arguments) in readers {
            let bytes = tools.ok(tool, &[arguments, &[reference]].concat()).await;
            assert_eq!(Digest::of(bytes.as_bytes()), carried.index(), "{tool}");
        }

        tools.ok("crane", &["validate", "--platform", KEPT, "--remote", reference]).await;
        tools.ok("crane", &["pull", "--platform", KEPT, reference, "kept.tar"]).await;
        tools.refused("crane", &["pull", "--platform", LEFT_OUT, reference, "x.tar"], "MANIFEST_UNKNOWN").await;
        let config = tools.ok("regctl", &["image", "config", "--platform", KEPT, reference]).await;
        assert!(config.contains("\"amd64\""), "{config}");
        tools.refused("regctl", &["image", "config", "--platform", LEFT_OUT, reference], "not found").await;
        let oras = ["manifest", "fetch-config", "--plain-http", "--platform"];
        let config = tools.ok("oras", &[&oras[..], &[KEPT, reference]].concat()).await;
        assert!(config.contains("\"amd64\""), "{config}");
        tools.refused("oras", &[&oras[..], &[LEFT_OUT, reference]].concat(), "not found").await;
    }
    assert_eq!(tools.ok("crane", &["ls", &name]).await, "1\n");
    assert_eq!(tools.ok("regctl", &["tag", "ls", &name]).await, "1\n");
    assert_eq!(tools.ok("oras", &["repo", "tags", "--plain-http", &name]).await, "1\n");
    let spdx = carried.image.referrers(&carried.index())[0].digest.to_string();
    let found = tools.ok("oras", &["discover", "--plain-http", "--format", "json", &by_digest]).await;
    assert!(found.contains(&spdx), "{found}");
    let found = tools.ok("regctl", &["artifact", "list", "--format", "{{json .}}", &by_digest]).await;
    assert!(found.contains(&spdx), "{found}");
    tools.refused("crane", &["tag", &by_tag, "2"], "UNSUPPORTED").await;
    assert_eq!(serving.terminate().await, Some(0));
}

/// The whole image, at `name:1` in a writable store, is what it was at the source.
async fn is_whole(carried: &Carried, serving: &Serving, repository: &str) {
    let reader = Reader::new(&serving.url(), repository);
    assert_eq!(reader.manifest("1").await.as_ref(), carried.image.bytes(&carried.index()), "{repository}");
    for child in carried.image.children() {
        assert!(reader.manifest(child.digest).await.is_some(), "{repository}: {child:?}");
        for blob in carried.image.parsed(&child).unwrap().successors() {
            assert!(reader.has_blob(&blob.digest).await, "{repository}: {blob:?}");
        }
    }
}

#[tokio::test]
async fn crane_copies_lists_tags_and_deletes() {
    let Some(tools) = Counterparts::with(&["crane"]) else { return };
    let Some(carried) = Carried::start().await else { return };
    let serving = carried.serve_store().await;
    let (source, name) = (format!("{}:1", carried.at_source()), format!("{}/by/crane", serving.host()));
    let one = format!("{name}:1");
    tools.ok("crane", &["copy", &source, &one]).await;
    is_whole(&carried, &serving, "by/crane").await;
    assert_eq!(tools.ok("crane", &["digest", &one]).await.trim(), carried.index().to_string());
    // Within one registry crane asks for the blobs, and for mounts of those that are not there.
    let mounted = format!("{}/by/mount:1", serving.host());
    tools.ok("crane", &["copy", &one, &mounted]).await;
    is_whole(&carried, &serving, "by/mount").await;
    tools.ok("crane", &["tag", &one, "second"]).await;
    tools.ok("crane", &["pull", "--platform", KEPT, &one, "image.tar"]).await;
    tools.ok("crane", &["push", "image.tar", &format!("{name}:pushed")]).await;
    assert_eq!(tools.ok("crane", &["ls", &name]).await, "1\npushed\nsecond\n");
    let catalog = tools.ok("crane", &["catalog", serving.host()]).await;
    assert_eq!(catalog, format!("{}\nby/crane\nby/mount\n", carried.repository()));
    tools.ok("crane", &["delete", &format!("{name}:second")]).await;
    assert_eq!(tools.ok("crane", &["ls", &name]).await, "1\npushed\n");
    tools.ok("crane", &["delete", &carried.by_digest(&name)]).await;
    tools.refused("crane", &["digest", &one], "404").await;
    is_whole(&carried, &serving, "by/mount").await;
    assert_eq!(serving.terminate().await, Some(0));
}

#[tokio::test]
async fn regctl_copies_with_referrers_and_deletes() {
    let Some(tools) = Counterparts::with(&["regctl"]) else { return };
    let Some(carried) = Carried::start().await else { return };
    let serving = carried.serve_store().await;
    tools.regctl_without_tls(serving.host()).await;
    tools.regctl_without_tls(carried.source.host()).await;
    let name = format!("{}/by/regctl", serving.host());
    let one = format!("{name}:1");
    // docker-registry has no referrers API: regctl reads the fallback tag there, and the API here.
    tools.ok("regctl", &["image", "copy", "--referrers", &format!("{}:1", carried.at_source()), &one]).await;
    is_whole(&carried, &serving, "by/regctl").await;
    let listed = tools.ok("regctl", &["artifact", "list", "--format", "{{json .}}", &one]).await;
    let spdx = carried.image.referrers(&carried.index())[0].digest.to_string();
    assert!(listed.contains(&spdx), "{listed}");
    let mounted = format!("{}/by/mount:1", serving.host());
    tools.ok("regctl", &["image", "copy", &one, &mounted]).await;
    is_whole(&carried, &serving, "by/mount").await;

    std::fs::write(tools.folder().join("note.txt"), "a note").unwrap();
    let put = ["artifact", "put", "--artifact-type", "application/vnd.example.note", "--file", "note.txt", "--subject"];
    tools.ok("regctl", &[&put[..], &[&one]].concat()).await;
    let by_type = ["artifact", "list", "--filter-artifact-type", "application/vnd.example.note", "--format"];
    let listed = tools.ok("regctl", &[&by_type[..], &["{{len .Descriptors}}", &one]].concat()).await;
    assert_eq!(listed.trim(), "1");
    let get = ["artifact", "get", "--filter-artifact-type", "application/vnd.example.note", "--subject", &one];
    assert_eq!(tools.ok("regctl", &get).await, "a note");

    tools.ok("regctl", &["image", "copy", &one, &format!("{name}:second")]).await;
    assert_eq!(tools.ok("regctl", &["tag", "ls", &name]).await, "1\nsecond\n");
    tools.ok("regctl", &["tag", "rm", &format!("{name}:second")]).await;
    assert_eq!(tools.ok("regctl", &["tag", "ls", &name]).await, "1\n");
    tools.ok("regctl", &["manifest", "rm", &carried.by_digest(&name)]).await;
    tools.refused("regctl", &["manifest", "head", &one], "not found").await;
    let repositories = tools.ok("regctl", &["repo", "ls", serving.host()]).await;
    assert!(repositories.contains("by/mount\n"), "{repositories}");
    assert_eq!(serving.terminate().await, Some(0));
}

#[tokio::test]
async fn oras_pushes_attaches_discovers_and_deletes() {
    let Some(tools) = Counterparts::with(&["oras"]) else { return };
    let Some(carried) = Carried::start().await else { return };
    let serving = carried.serve_store().await;
    let name = format!("{}/by/oras", serving.host());
    let one = format!("{name}:1");
    let copy = ["copy", "--recursive", "--from-plain-http", "--to-plain-http"];
    tools.ok("oras", &[&copy[..], &[&format!("{}:1", carried.at_source()), &one]].concat()).await;
    is_whole(&carried, &serving, "by/oras").await;
    let mounted = format!("{}/by/mount:1", serving.host());
    tools.ok("oras", &[&copy[..], &[&one, &mounted]].concat()).await;
    is_whole(&carried, &serving, "by/mount").await;

    std::fs::write(tools.folder().join("note.txt"), "a note").unwrap();
    let note = ["--plain-http", "--artifact-type", "application/vnd.example.note"];
    tools.ok("oras", &[&["attach"], &note[..], &[&one, "note.txt"]].concat()).await;
    let discover = ["discover", "--format", "go-template", "--template", "{{len .manifests}}"];
    let both = tools.ok("oras", &[&discover[..], &["--plain-http", &one]].concat()).await;
    assert_eq!(both.trim(), "2", "the SBOM from the source, and the note");
    assert_eq!(tools.ok("oras", &[&discover[..], &note[..], &[&one]].concat()).await.trim(), "1");

    let artifact = format!("{name}:artifact");
    tools.ok("oras", &[&["push"], &note[..], &[&artifact, "note.txt"]].concat()).await;
    tools.ok("oras", &["pull", "--plain-http", "--output", "pulled", &artifact]).await;
    assert_eq!(std::fs::read_to_string(tools.folder().join("pulled/note.txt")).unwrap(), "a note");
    tools.ok("oras", &["tag", "--plain-http", &artifact, "second"]).await;
    assert_eq!(tools.ok("oras", &["repo", "tags", "--plain-http", &name]).await, "1\nartifact\nsecond\n");
    tools.ok("oras", &["manifest", "delete", "--plain-http", "--force", &artifact]).await;
    assert_eq!(tools.ok("oras", &["repo", "tags", "--plain-http", &name]).await, "1\n", "oras deletes by digest");

    let blob = tools.ok("oras", &["blob", "push", "--plain-http", &name, "note.txt"]).await;
    let digest = Digest::of(b"a note");
    assert!(blob.contains(&digest.to_string()), "{blob}");
    let place = format!("{name}@{digest}");
    assert_eq!(tools.ok("oras", &["blob", "fetch", "--plain-http", "--output", "-", &place]).await, "a note");
    let delete = ["blob", "delete", "--plain-http", "--force", &place];
    tools.refused("oras", &delete, "blobs are not removed here").await;
    assert_eq!(serving.terminate().await, Some(0));
}
