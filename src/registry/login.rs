//! [`Client::check_login`]: which login is used for a registry, and whether the registry takes it.

use reqwest::Method;

use super::Client;
use super::answer::ANSWER_SIZE_MAX;
use super::credentials::{Found, Login, Origin, Place};
use super::endpoint::Call;
use super::remote::Door;
use super::scope::Scope;
use crate::error::{Context, Error, Kind, Result};
use crate::oci::{Name, Registry, Tag};

/// The tag that is looked for to see whether a repository may be read. It need not be there.
const TAG: &str = "latest";

/// What was found out about the login for a registry. Holds no secret.
#[derive(Debug)]
pub struct LoginCheck {
    /// The host that was asked.
    pub host: String,
    /// The files that were looked for, in their order.
    pub places: Vec<Place>,
    /// The login that is used, or would be if the registry wanted one.
    pub login: Option<LoginUsed>,
    /// Whether the registry wants a login, or a token for nobody.
    pub wanted: bool,
    /// Whether it works; why not.
    pub result: Result<()>,
}

/// A login without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginUsed {
    /// Where it comes from.
    pub origin: Origin,
    /// The name, where it has one.
    pub user: Option<String>,
    /// What kind of secret it is; `None` when a helper keeps it that was not asked.
    pub form: Option<LoginForm>,
}

/// A kind of secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginForm {
    /// A password, or what stands in its place.
    Password,
    /// A refresh token for the token server.
    IdentityToken,
    /// A token for the registry itself.
    RegistryToken,
}

impl Client {
    /// Asks `registry` (not its mirrors) whether it takes the login that is known here, and for the repository at `path`
    /// whether that may be pulled from. A helper is asked only when the registry wants a login.
    pub async fn check_login(&self, registry: &Registry, path: Option<&str>) -> LoginCheck {
        let door = self.door(registry, path.unwrap_or_default());
        let mut result = door.greet().await;
        // Nobody may be refused at the door, and let in to public repositories nevertheless.
        let refused = result.as_ref().is_err_and(|error| error.kind() == Kind::Refused);
        let nobody = refused && matches!(door.shown().await, Ok(None));
        if path.is_some() && (result.is_ok() || nobody) {
            result = door.may_pull().await;
        }
        let (wanted, found) = (door.endpoint.authority().is_challenged(), door.shown().await);
        let login = match found {
            Ok(found) if wanted => found.map(|Found { login, origin }| LoginUsed::of(origin, Some(login))),
            _ => self.credentials().stored(registry, &door.path).map(|(origin, login)| LoginUsed::of(origin, login)),
        };
        LoginCheck {
            host: door.endpoint.host().to_owned(),
            places: self.credentials().places().to_vec(),
            login,
            wanted,
            result,
        }
    }
}

impl Door {
    /// Whether there is a registry that lets us in.
    async fn greet(&self) -> Result<()> {
        let call = Call::new(Method::GET, self.endpoint.root()?, &self.path, Scope::default());
        let asked = self.read(&call, ANSWER_SIZE_MAX).await.and_then(|read| match read {
            Ok(_) => Ok(()),
            Err(answer) if answer.is_absent() => Err(Error::failed(format!("{} answered {answer}", answer.host))
                .help("that is no registry: check its name, its port, and what is between it and here")),
            Err(answer) => Err(answer.into_error()),
        });
        asked.while_(|| format!("log in to {}", self.endpoint.host()))
    }

    /// The login that was shown. A helper that was asked for it is not asked again.
    async fn shown(&self) -> Result<Option<Found>> {
        match self.endpoint.authority().is_challenged() {
            true => self.endpoint.authority().login(&self.path).await,
            false => Ok(None),
        }
    }

    /// Whether manifests of the repository can be had. That there is none of this name is an answer too.
    async fn may_pull(&self) -> Result<()> {
        let tag: Tag = TAG.parse().map_err(|_| Error::failed("no tag"))?;
        let asked = self.head_manifest(&Name::Tag(tag)).await;
        asked.while_(|| format!("pull from {}/{}", self.endpoint.host(), self.path)).map(|_| ())
    }
}

impl LoginUsed {
    fn of(origin: Origin, login: Option<Login>) -> Self {
        let (user, form) = match login {
            None => (None, None),
            Some(Login::Password { user, .. }) => (Some(user), Some(LoginForm::Password)),
            Some(Login::Identity { user, .. }) => (Some(user), Some(LoginForm::IdentityToken)),
            Some(Login::Bearer { .. }) => (None, Some(LoginForm::RegistryToken)),
        };
        LoginUsed { origin, user: user.filter(|user| !user.is_empty()), form }
    }
}
