//! The vendor's side of foreign layers: an image is marked, put into a registry, and run by clients that get the layer from
//! its address.

use std::net::Ipv4Addr;

use axum::Router;
use axum::routing::get;
use sealift::oci::MediaType;
use sealift::oci::manifest::Content;

use super::*;

/// A plain web server with one layer; it stops with the runtime of the test.
async fn web_server(layer: bytes::Bytes) -> String {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let files = Router::new().route("/base.tgz", get(move || async move { layer }));
    tokio::spawn(async { axum::serve(listener, files).await });
    format!("http://{address}/base.tgz")
}

/// An image for this machine, in the registry `source` as `team/app:1`; its layer that will be marked.
async fn pushed(source: &DockerRegistry, docker: bool) -> (SampleImage, Descriptor) {
    let machine = sealift::oci::Platform::of_this_machine();
    let builder = ImageBuilder::new()
        .platform(&machine.os, &machine.architecture, &machine.variant)
        .layer_files(&[("etc/base", b"base\n")])
        .layer_files(&[("etc/app", b"app\n")])
        .command(&["/none"])
        .single();
    let image = if docker { builder.docker_format() } else { builder }.build().unwrap();
    push_sample(&source.url(), "team/app", Some("1"), &image).await;
    let Content::Image { layers, .. } = image.manifest().unwrap().content else { panic!("no image") };
    (image, layers[0].clone())
}

/// What the remedy says, as YAML for distribution.
fn remedy(said: &str) -> String {
    let (_, rest) = said.split_once("distribution: ").unwrap_or_else(|| panic!("{said}"));
    rest.split_once("}}}").unwrap().0.to_owned() + "}}}"
}

#[tokio::test]
async fn a_marked_image_runs_from_a_registry_that_was_told_what_the_refusal_says() {
    for docker in [false, true] {
        let (Some(source), Some(strict)) = (DockerRegistry::start().await, DockerRegistry::start().await) else {
            return;
        };
        if !have(&["podman", "skopeo"]) {
            return;
        }
        let machine = Machine::new();
        let (image, layer) = pushed(&source, docker).await;
        let url = web_server(image.bytes(&layer.digest).unwrap().clone()).await;
        let from = format!("{}/team/app:1", source.host());
        let mark = |to: &str, more: &[&str]| {
            let words = ["foreign", "mark", &from, "--layer", "1", "--url", &url, "--to", to];
            words.iter().chain(more).map(|word| (*word).to_owned()).collect::<Vec<_>>()
        };
        // As it comes, the registry takes no urls, whether it has the layer or not.
        let mut said = String::new();
        for more in [&[][..], &["--push-layers"]] {
            let words = mark(&format!("{}/vendor/app:1", strict.host()), more);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            said = machine.run_to(4, &words).await.err;
            let errors = said.lines().filter(|line| line.starts_with("error: ")).count();
            assert!(said.contains("MANIFEST_BLOB_UNKNOWN") && errors == 1, "{said}");
        }
        let told = DockerRegistry::start_logged(&remedy(&said)).await.unwrap();
        let to = format!("{}/vendor/app:1", told.host());
        let words = mark(&to, &[]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let report = machine.json(&words).await;
        keeps_to_its_schema(&machine, "foreign-change-report", &report).await;
        let reader = Reader::new(&told.url(), "vendor/app");
        assert!(!reader.has_blob(&layer.digest).await, "the layer is at its address alone");
        assert_eq!(Digest::of(&reader.manifest("1").await.unwrap()).to_string(), report["new"].as_str().unwrap());
        let listed = machine.json(&["foreign", "list", &to]).await;
        keeps_to_its_schema(&machine, "foreign-report", &listed).await;
        assert_eq!(listed["images"][0]["layers"][0]["here"], false);
        clients_get_the_same_image(&to, &image, &url).await;
        // And back, where the layer is.
        let back = format!("{}/back/app:1", told.host());
        let words = mark(&to, &["--push-layers"]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        machine.json(&words).await;
        let report = machine.json(&["foreign", "unmark", &to, "--to", &back]).await;
        assert_eq!(report["new"], image.root.digest.to_string());
        let uploaded: Vec<Access> =
            told.accesses().into_iter().filter(|access| access.path.contains("/back/app/blobs/uploads/")).collect();
        assert!(uploads(&uploaded).is_empty(), "within one registry blobs are mounted: {uploaded:?}");
    }
}

async fn keeps_to_its_schema(machine: &Machine, name: &str, report: &Value) {
    super::command_line::keeps_to_schema(machine, name, report).await;
}

async fn clients_get_the_same_image(reference: &str, image: &SampleImage, url: &str) {
    let clients = Clients::new();
    let raw = clients.skopeo_ok(&["inspect", "--tls-verify=false", "--raw", &format!("docker://{reference}")]).await;
    let raw: Value = serde_json::from_str(&raw).unwrap();
    assert_eq!(raw["layers"][0]["urls"], serde_json::json!([url]));
    assert!(MediaType::new(raw["layers"][0]["mediaType"].as_str().unwrap()).is_foreign_layer());
    clients.podman_ok(&["pull", "--tls-verify=false", reference]).await;
    let id = clients.podman_ok(&["image", "inspect", "--format", "{{.Id}}", reference]).await;
    let config = image.manifest().unwrap().successors().next().unwrap().digest;
    assert_eq!(id.trim().trim_start_matches("sha256:"), config.hex(), "the ID of an image is its config, which stayed");
}
