//! Probes of a stock registry, and a plan that knows one.

use super::*;

const URLS_ALLOWED: &str = "validation: {manifests: {urls: {allow: [\"^https://layers.invalid/\"]}}}";

async fn probe(machine: &Machine, registry: &DockerRegistry) -> Value {
    let to = format!("{}/mirror", registry.host());
    machine.json(&["probe", &to, "--out", "far.profile.json"]).await
}

#[tokio::test]
async fn a_stock_registry_takes_stubs_and_no_foreign_layers() {
    let Some(registry) = DockerRegistry::start().await else { return };
    let machine = Machine::new();
    let profile = probe(&machine, &registry).await;
    let taken = |what: &str| profile[what]["taken"].as_str().unwrap().to_owned();
    for (what, expected) in [
        ("sparseIndex", "no"),
        ("stubs", "yes"),
        ("foreignLayers", "no"),
        ("dockerForeignLayers", "no"),
        ("dockerMediaTypes", "yes"),
        ("artifacts", "yes"),
        ("referrersApi", "no"),
        ("mounts", "yes"),
        ("nestedNames", "yes"),
        ("deletion", "yes"),
    ] {
        assert_eq!(taken(what), expected, "{what}: {profile}");
    }
    assert_eq!(profile.get("leftBehind"), None, "{profile}");
    let scratch = Reader::new(&registry.url(), "mirror/sealift-probe");
    assert_eq!(scratch.tags().await, Vec::<String>::new());
}

#[tokio::test]
async fn what_cannot_be_deleted_is_named_and_what_is_allowed_is_found() {
    let settings = Settings { delete: false, sections: URLS_ALLOWED.to_owned(), ..Settings::default() };
    let Some(registry) = DockerRegistry::start_with(settings).await else { return };
    let machine = Machine::new();
    let profile = probe(&machine, &registry).await;
    for what in ["foreignLayers", "dockerForeignLayers"] {
        assert_eq!(profile[what]["taken"], "yes", "{profile}");
    }
    assert_eq!(profile["deletion"]["taken"], "no", "{profile}");
    let left = profile["leftBehind"].as_array().unwrap();
    assert!(left.len() >= 6, "{profile}");
    for name in left {
        let (repository, digest) = name.as_str().unwrap().rsplit_once('@').unwrap();
        let path = repository.strip_prefix(&format!("{}/", registry.host())).unwrap();
        let digest: Digest = digest.parse().unwrap();
        assert!(Reader::new(&registry.url(), path).manifest(digest).await.is_some(), "{name}");
    }
    // What was written to the file is what was printed.
    let written: Value = serde_json::from_slice(&std::fs::read(machine.path("far.profile.json")).unwrap()).unwrap();
    assert_eq!(written, profile);
    let to = format!("{}/mirror", registry.host());
    let said = machine.run_to(0, &["probe", &to]).await;
    assert!(said.out.contains("left behind") && said.out.contains("taken with stubs beside it"), "{}", said.out);
}
