//! [`Credentials`]: who sealift is on which registry.
//!
//! The files of docker and podman are read when a command begins ([`places`], [`file`]). The credential helpers that they
//! name ([`helper`], [`helpers`]) are programs: one is started when a registry first demands a login, and never for a
//! registry that demands none.

mod file;
mod helper;
mod helpers;
mod places;
#[cfg(test)]
pub(super) mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use file::AuthFile;
pub(super) use helper::TOKEN_USER;
use helpers::Helpers;

use super::secret::Secret;
use crate::error::{Context, Result};
use crate::oci::Registry;

/// The names by which helpers know Docker Hub: docker's, then podman's.
const DOCKER_HUB_SERVERS: [&str; 2] = ["https://index.docker.io/v1/", "docker.io"];

/// Who sealift is on which registry. Cheap to clone; shows no secret, however it is printed.
#[derive(Clone, Debug, Default)]
pub struct Credentials(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: Vec<AuthFile>,
    places: Vec<Place>,
    helpers: Helpers,
}

/// A file that credentials are looked for in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its path.
    pub path: PathBuf,
    /// Whether it is there.
    pub found: bool,
}

/// What is shown to a registry or to its token server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// A name and a password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token for the registry's token server.
    Identity {
        /// The name that came with it; often none.
        user: String,
        /// The token.
        token: Secret,
    },
    /// A token for the registry itself, used as it is.
    Bearer {
        /// The token.
        token: Secret,
    },
}

/// Where a login comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file that holds it, or that names its helper.
    pub file: String,
    /// The place in the file: `auths "r.example/team"`, `credHelpers "r.example"` or `credsStore`.
    pub entry: String,
    /// The helper that keeps it: what follows `docker-credential-`.
    pub helper: Option<String>,
}

/// A login, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub login: Login,
    pub origin: Origin,
}

impl Login {
    /// The login of a name and a secret, as files and helpers hold them; `None` without a secret.
    fn of(user: &str, secret: &str) -> Option<Self> {
        match (user, secret) {
            (_, "") => None,
            (TOKEN_USER, token) => Some(Login::Identity { user: String::new(), token: Secret::new(token) }),
            (user, password) => Some(Login::Password { user: user.to_owned(), password: Secret::new(password) }),
        }
    }

    /// What must not be shown.
    pub fn secret(&self) -> &Secret {
        match self {
            Login::Password { password: secret, .. }
            | Login::Identity { token: secret, .. }
            | Login::Bearer { token: secret } => secret,
        }
    }
}

impl Credentials {
    /// Nobody, everywhere.
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// One name and password for one registry.
    pub fn of(registry: Registry, user: &str, password: &str) -> Self {
        let login = Login::Password { user: user.to_owned(), password: Secret::new(password) };
        let file = AuthFile::of("the credentials that were given", registry, login);
        Credentials(Arc::new(Inner { files: vec![file], ..Inner::default() }))
    }

    /// What the files of this user say: `$CREDENTIALS_DIRECTORY/registry-auth.json` (systemd), `$REGISTRY_AUTH_FILE`,
    /// `$DOCKER_CONFIG/config.json`, podman's `auth.json` (`$XDG_RUNTIME_DIR`, `$XDG_CONFIG_HOME`) and
    /// `~/.docker/config.json`, in this order; the first that knows a registry decides. A file that is not there is passed
    /// over, unless `$REGISTRY_AUTH_FILE` names it. No helper is asked yet.
    ///
    /// # Errors
    ///
    /// [`Kind::Usage`](crate::Kind::Usage) with the name of a file that is not readable or no JSON.
    pub fn from_environment() -> Result<Self> {
        let mut inner = Inner::default();
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        for candidate in places::candidates(variable) {
            let file = AuthFile::read(&candidate)?;
            inner.places.push(Place { path: candidate.path, found: file.is_some() });
            inner.files.extend(file);
        }
        Ok(Credentials(Arc::new(inner)))
    }

    /// The files that were looked for, in their order.
    pub fn places(&self) -> &[Place] {
        &self.0.places
    }

    /// The login for a repository; `None` for nobody. Within a file a helper comes first, and what it does not know may
    /// stand in the file itself. May start a helper.
    ///
    /// # Errors
    ///
    /// A helper that was to be asked failed. That it knows no login is no failure.
    pub(super) async fn find(&self, registry: &Registry, path: &str) -> Result<Option<Found>> {
        // In a box, for it is rare, and its state would lie in that of every request.
        Box::pin(self.look_up(registry, path, None)).await
    }

    /// After `refused` was shown and not taken: a newer login of the same helper, or what comes after it. `None` when there is
    /// nothing new.
    pub(super) async fn renew(&self, registry: &Registry, path: &str, refused: &Found) -> Result<Option<Found>> {
        if refused.origin.helper.is_none() {
            return Ok(None);
        }
        let found = Box::pin(self.look_up(registry, path, Some(&refused.login))).await?;
        Ok(found.filter(|found| found.login != refused.login))
    }

    async fn look_up(&self, registry: &Registry, path: &str, refused: Option<&Login>) -> Result<Option<Found>> {
        for file in &self.0.files {
            if let Some(named) = file.helper(registry, path) {
                for server in servers(registry) {
                    let asked = self.0.helpers.get(named.helper, &server, refused).await;
                    let login = asked.while_(|| format!("find credentials, as {} says", file.name()))?;
                    if let Some(login) = login {
                        return Ok(Some(Found { login, origin: named.origin }));
                    }
                }
            }
            if let Some(found) = file.login(registry, path) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Where the login for a repository comes from, as far as that is known without asking anybody.
    pub(super) fn known(&self, registry: &Registry, path: &str) -> Option<Origin> {
        self.0.files.iter().find_map(|file| {
            let answered = |helper: &str| servers(registry).iter().any(|server| self.0.helpers.known(helper, server));
            let helped = file.helper(registry, path).filter(|named| answered(named.helper));
            helped.map(|named| named.origin).or_else(|| Some(file.login(registry, path)?.origin))
        })
    }

    /// Where the login for a repository would be looked for first, and what is known of it. Asks nobody.
    pub(super) fn stored(&self, registry: &Registry, path: &str) -> Option<(Origin, Option<Login>)> {
        self.0.files.iter().find_map(|file| match file.helper(registry, path) {
            Some(named) => Some((named.origin, None)),
            None => file.login(registry, path).map(|found| (found.origin, Some(found.login))),
        })
    }

    /// Where was looked, for people: the answer to "why am I anonymous there?".
    pub(super) fn looked_in(&self) -> String {
        match self.0.files.as_slice() {
            [] => "no credentials file was found".to_owned(),
            files => {
                let names: Vec<&str> = files.iter().map(AuthFile::name).collect();
                format!("looked in {}", names.join(", "))
            }
        }
    }
}

/// The names by which helpers know a registry, in the order in which they are asked for.
fn servers(registry: &Registry) -> Vec<String> {
    match registry.is_docker_hub() {
        true => DOCKER_HUB_SERVERS.map(str::to_owned).to_vec(),
        false => vec![registry.to_string()],
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.helper {
            Some(helper) => write!(f, "docker-credential-{helper}, which {} names ({})", self.file, self.entry),
            None => write!(f, "{} ({})", self.file, self.entry),
        }
    }
}
