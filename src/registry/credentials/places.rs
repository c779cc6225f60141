//! Where the files of credentials are.

use std::path::PathBuf;

/// The name of the credential that a systemd unit loads for sealift (`LoadCredential=`, systemd.exec(5)).
const SYSTEMD_CREDENTIAL: &str = "registry-auth.json";

/// A file that is looked into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub path: PathBuf,
    /// It was named by itself: that it is not there is a mistake.
    pub required: bool,
}

/// The files in the order in which they are asked. `variable` gives the environment; empty values count as none.
pub(super) fn candidates(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<Candidate> {
    let home = variable("HOME");
    let config = variable("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
    let podman = |folder: PathBuf| folder.join("containers/auth.json");
    let named = [
        variable("CREDENTIALS_DIRECTORY").map(|folder| (folder.join(SYSTEMD_CREDENTIAL), false)),
        variable("REGISTRY_AUTH_FILE").map(|path| (path, true)),
        variable("DOCKER_CONFIG").map(|folder| (folder.join("config.json"), false)),
        variable("XDG_RUNTIME_DIR").map(|folder| (podman(folder), false)),
        config.map(|folder| (podman(folder), false)),
        home.map(|home| (home.join(".docker/config.json"), false)),
    ];
    let mut found: Vec<Candidate> = Vec::new();
    for (path, required) in named.into_iter().flatten() {
        // DOCKER_CONFIG often names the usual folder.
        if found.iter().all(|before| before.path != path) {
            found.push(Candidate { path, required });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<String> {
        candidates(variable).iter().map(|one| one.path.display().to_string()).collect()
    }

    #[test]
    fn the_order_of_the_files() {
        assert_eq!(
            paths(|name| Some(PathBuf::from(format!("/{name}")))),
            [
                "/CREDENTIALS_DIRECTORY/registry-auth.json",
                "/REGISTRY_AUTH_FILE",
                "/DOCKER_CONFIG/config.json",
                "/XDG_RUNTIME_DIR/containers/auth.json",
                "/XDG_CONFIG_HOME/containers/auth.json",
                "/HOME/.docker/config.json"
            ]
        );
        let home = |name: &str| (name == "HOME").then(|| PathBuf::from("/me"));
        assert_eq!(paths(home), ["/me/.config/containers/auth.json", "/me/.docker/config.json"]);
        assert!(paths(|_| None).is_empty());
    }

    #[test]
    fn a_file_that_is_named_twice_is_asked_once() {
        let same = |name: &str| match name {
            "HOME" => Some(PathBuf::from("/me")),
            "DOCKER_CONFIG" => Some(PathBuf::from("/me/.docker")),
            _ => None,
        };
        assert_eq!(paths(same), ["/me/.docker/config.json", "/me/.config/containers/auth.json"]);
    }
}
