//! Probes of registries that no distribution packages.

use super::support::Settings;
use super::*;

const NONE: &str = "validation:\n  manifests:\n    indexes:\n      platforms: none";

/// The same as a variable, as it stands in the help of a refusal.
const NONE_IN_ENVIRONMENT: &[(&str, &str)] = &[("REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMS", "none")];

/// How distribution 3 takes a sparse index, alone and with stubs.
async fn sparse(sections: &str, environment: &'static [(&str, &str)]) -> Option<(String, String)> {
    let program = Some(counterpart("registry")?);
    let settings = Settings { program, sections: sections.to_owned(), environment, ..Settings::default() };
    let registry = DockerRegistry::start_with(settings).await?;
    let profile = Machine::new().json(&["probe", registry.host()]).await;
    let taken = |what: &str| profile[what]["taken"].as_str().unwrap().to_owned();
    assert_eq!(taken("foreignLayers"), "no", "{profile}");
    assert_eq!(taken("deletion"), "yes", "{profile}");
    Some((taken("sparseIndex"), taken("stubs")))
}

#[tokio::test]
async fn distribution_3_takes_a_sparse_index_where_that_is_allowed_and_stubs_never() {
    let rows: [(&str, &[_], _); 3] =
        [("", &[], ("no", "no")), (NONE, &[], ("yes", "unknown")), ("", NONE_IN_ENVIRONMENT, ("yes", "unknown"))];
    for (sections, environment, expected) in rows {
        let Some((alone, with_stubs)) = sparse(sections, environment).await else { return };
        assert_eq!((alone.as_str(), with_stubs.as_str()), expected, "{sections} {environment:?}");
    }
}
