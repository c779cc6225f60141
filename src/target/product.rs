//! [`Product`]: which registry it is, and how it can be made to take an index of which children are missing.
//!
//! No registry says its name in a way that all others share. It is told by where it is, by what its root lets be seen, and
//! by the words of its refusal. Where none of that is clear, it is nobody, and gets the remedies of all.

use crate::oci::{Digest, Registry};
use crate::registry::{Answer, Appearance};

/// A kind of registry, as far as remedies go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// distribution (docker-registry, `registry:2`, `registry:3`), and what is built on it without a sign of its own.
    Distribution,
    /// Docker Hub.
    DockerHub,
    /// Amazon ECR, private and public.
    Ecr,
    /// GitLab's registry, which began as distribution.
    GitLab,
    /// Gitea and Forgejo.
    Gitea,
    /// Harbor, which has a distribution inside.
    Harbor,
    /// Artifactory.
    Artifactory,
    /// Nexus.
    Nexus,
    /// olareg.
    Olareg,
    /// Quay: what it says of sparse indexes, from 3.17 on.
    Quay(Option<bool>),
    /// quay.io, whose settings are nobody's.
    QuayIo,
    /// zot.
    Zot,
}

/// What was done about the children's manifests before the last refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stubs {
    /// The site forbids them.
    Forbidden,
    /// The bundle has none.
    None,
    /// They lie beside the index.
    Pushed,
}

/// How all images can be carried to a registry that takes no sparse index.
const CARRY: &str = "carry what it takes: in the spec `index: full`, or `index: trim` (the index gets another digest, and what \
                     was signed comes along as its witness), or `index: child` for a single platform";

/// What distribution 3 has to be told. `list` is the other value that would do, and breaks the connection off at a child
/// that has no platform (3.0.0 to 3.1.1).
const DISTRIBUTION_3: &str = "set validation.manifests.indexes.platforms: none in its configuration \
                              (`validation: {manifests: {indexes: {platforms: none}}}`; in its environment \
                              `REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMS=none`) and restart it; not `list`, with which \
                              it breaks off at an index that has a child without a platform";

const QUAY: &str = "set `FEATURE_SPARSE_INDEX: true` in its config.yaml and restart it";

impl Product {
    /// Which one `registry` is, that looks like `appearance` and has refused with `answer`; `None` where that cannot be told.
    pub fn recognise(registry: &Registry, appearance: &Appearance, answer: &Answer) -> Option<Self> {
        Self::by_name(registry)
            .or_else(|| Self::by_appearance(appearance))
            .or_else(|| Self::by_words(appearance, answer))
    }

    fn by_name(registry: &Registry) -> Option<Self> {
        let name = registry.to_string();
        let host = name.split(':').next().unwrap_or_default();
        let of_amazon = host.contains(".dkr.ecr.") || host == "public.ecr.aws";
        match host {
            _ if registry.is_docker_hub() => Some(Product::DockerHub),
            _ if of_amazon => Some(Product::Ecr),
            "quay.io" => Some(Product::QuayIo),
            _ => None,
        }
    }

    fn by_appearance(appearance: &Appearance) -> Option<Self> {
        let header = |name| appearance.header(name);
        let (service, realm) = (appearance.service.as_deref(), appearance.realm_path.as_deref());
        if let Some(said) = header("x-sparse-manifest-support") {
            return Some(Product::Quay(Some(said.eq_ignore_ascii_case("true"))));
        }
        match (service, realm) {
            (Some("harbor-registry"), _) => return Some(Product::Harbor),
            (_, Some("/v2/auth")) => return Some(Product::Quay(None)),
            (_, Some("/jwt/auth")) => return Some(Product::GitLab),
            (Some("container_registry"), Some("/v2/token")) => return Some(Product::Gitea),
            _ => {}
        }
        match header("server") {
            Some(server) if server.starts_with("Nexus/") => Some(Product::Nexus),
            Some(server) if server.starts_with("Artifactory/") => Some(Product::Artifactory),
            _ if header("x-jfrog-version").is_some() => Some(Product::Artifactory),
            _ if header("gitlab-container-registry-version").is_some() => Some(Product::GitLab),
            _ => None,
        }
    }

    fn by_words(appearance: &Appearance, answer: &Answer) -> Option<Self> {
        let first = answer.errors.first()?;
        let is_digest = first.detail.parse::<Digest>().is_ok();
        let of_docker = appearance.header("docker-distribution-api-version").is_some();
        match (first.code.as_str(), first.message.as_str()) {
            ("MANIFEST_BLOB_UNKNOWN", "blob unknown to registry") if is_digest && of_docker => {
                Some(Product::Distribution)
            }
            ("MANIFEST_BLOB_UNKNOWN", _) if first.detail.starts_with("manifest not found: ") => Some(Product::Olareg),
            ("MANIFEST_INVALID", _) if first.detail.contains("Could not find child manifest") => {
                Some(Product::Quay(None))
            }
            // zot names what was put, and nothing else.
            ("MANIFEST_INVALID", _) if first.detail.starts_with("{\"reference\":") => Some(Product::Zot),
            _ => None,
        }
    }

    /// What can be done where `product` refuses an index for children that are missing.
    pub(super) fn remedy(product: Option<Self>, stubs: Stubs) -> String {
        let who = product.map_or(UNKNOWN, Self::name);
        let setting = match product {
            Some(product) => product.setting(stubs),
            None => Some(format!(
                "distribution 3: {DISTRIBUTION_3}; Quay 3.17 or later: {QUAY}; others have no such setting"
            )),
        };
        let stubs = stubs.help().filter(|_| product.is_none_or(Self::may_take_stubs)).map(str::to_owned);
        let ways: Vec<String> = stubs.into_iter().chain(setting).chain([CARRY.to_owned()]).collect();
        format!("{who}: {}", ways.join("; or "))
    }

    /// Who it is, and what is known of settings where there is none.
    fn name(self) -> &'static str {
        match self {
            Product::Distribution => "this is distribution",
            Product::DockerHub => "Docker Hub has no setting for that",
            Product::Ecr => "Amazon ECR has no setting for that",
            Product::GitLab => "this is GitLab's registry, of which no setting for that is known",
            Product::Gitea => "this is Gitea or Forgejo, which has no setting for that",
            Product::Harbor => "this is Harbor, which has no setting for that, and stubs do not help",
            Product::Artifactory => "this is Artifactory, of which no setting for that is known",
            Product::Nexus => "this is Nexus, which has no setting for that",
            Product::Olareg => "this is olareg",
            Product::Quay(_) => "this is Quay",
            Product::QuayIo => "quay.io decides that, and stubs do not help",
            Product::Zot => "this looks like zot, which has no setting for that",
        }
    }

    /// What its operator can set.
    fn setting(self, stubs: Stubs) -> Option<String> {
        match self {
            // 2.x takes stubs, and has no setting: where they lie there, it is 3.x.
            Product::Distribution if stubs == Stubs::Pushed => {
                Some(format!("as 3.x it has a setting: {DISTRIBUTION_3}"))
            }
            Product::Distribution => Some(format!("if it is 3.x, {DISTRIBUTION_3}")),
            Product::Olareg => {
                Some("start it with `--api-sparse-index`, where it knows that (0.1.2 does not)".to_owned())
            }
            Product::Quay(Some(true)) => Some("see its log, for it says that it takes sparse indexes".to_owned()),
            Product::Quay(_) => Some(format!("{QUAY} (3.17 or later; before there is no such setting)")),
            _ => None,
        }
    }

    /// Whether manifests that lie beside an index as blobs may be enough. Where children are rows of a database, they are not.
    fn may_take_stubs(self) -> bool {
        matches!(self, Product::Distribution | Product::GitLab | Product::Olareg | Product::Zot)
    }
}

impl Stubs {
    /// What has to be done for them to be tried.
    fn help(self) -> Option<&'static str> {
        match self {
            Stubs::Pushed => None,
            Stubs::Forbidden => Some(
                "it may take the index with stubs beside it, which the site forbids (`stubs: never`): allow them there",
            ),
            Stubs::None => Some(
                "it may take the index with stubs beside it, of which the bundle has none: probe this registry again, and plan \
                 with that profile, or with none, which carries stubs",
            ),
        }
    }
}

/// A registry that gives no sign of what it is.
const UNKNOWN: &str = "this registry wants all children of an index, and which one it is cannot be told";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_had_at_one_place_only() {
        let rows = [
            ("docker.io", Some(Product::DockerHub)),
            ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", Some(Product::Ecr)),
            ("public.ecr.aws", Some(Product::Ecr)),
            ("quay.io", Some(Product::QuayIo)),
            ("quay.io.example", None),
            ("registry.corp:5000", None),
        ];
        for (registry, expected) in rows {
            assert_eq!(Product::by_name(&registry.parse().unwrap()), expected, "{registry}");
        }
    }

    #[test]
    fn every_remedy_says_how_to_carry_it_and_stubs_where_they_may_help() {
        use Product::{
            Artifactory, Distribution, DockerHub, Ecr, GitLab, Gitea, Harbor, Nexus, Olareg, Quay, QuayIo, Zot,
        };
        let takes = [Distribution, GitLab, Olareg, Zot].map(Some);
        let not = [Artifactory, DockerHub, Ecr, Gitea, Harbor, Nexus, Quay(None), Quay(Some(true)), QuayIo].map(Some);
        for product in takes.into_iter().chain(not).chain([None]) {
            for stubs in [Stubs::Forbidden, Stubs::None, Stubs::Pushed] {
                let text = Product::remedy(product, stubs);
                assert!(text.ends_with(CARRY), "{text}");
                let helps = stubs != Stubs::Pushed && !not.contains(&product);
                assert_eq!(text.contains("it may take the index with stubs"), helps, "{product:?} {stubs:?}: {text}");
            }
        }
    }
}
