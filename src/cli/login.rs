//! `sealift login`.

use std::path::PathBuf;

use serde::Serialize;

use super::{ConfigArgument, Output, client, output};
use crate::error::{Error, Kind, Problem, Result, Side};
use crate::oci::{Registry, Repository};
use crate::registry::{LoginCheck, LoginForm, LoginUsed, Place};

#[derive(clap::Subcommand)]
pub(super) enum LoginCommand {
    /// Say which login is used for a registry, where it comes from, and whether the registry takes it
    #[command(after_help = "Examples:
  sealift login check registry.corp:5000
  sealift login check docker.io/library/nginx

No secret is printed. A credential helper is asked only when the registry wants a login. sealift
keeps no logins: it reads the files of `docker login` and `podman login`.

Exit status:
  0  it works, also without a login where the registry wants none
  4  the registry or its token server refuses it
  1  it could not be found out: nobody answered, or a helper failed
  2  a file of credentials cannot be read")]
    Check {
        /// A registry, or one of its repositories: whether it may be pulled from
        #[arg(value_name = "REGISTRY[/REPOSITORY]")]
        name: String,
        #[command(flatten)]
        config: ConfigArgument,
    },
}

/// What `login check --output json` prints.
#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct LoginReport {
    /// The registry, by the name that logins are looked up by.
    pub registry: Registry,
    /// The repository, where one was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// The host that was asked.
    pub host: String,
    /// The login that is used, or would be if the registry wanted one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<ReportedLogin>,
    /// Where logins are looked for, in this order.
    pub places: Vec<ReportedPlace>,
    /// What came of it.
    pub outcome: Outcome,
    /// Why it does not work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// A login without its secret.
#[derive(Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ReportedLogin {
    /// The file that holds it, or that names its helper.
    pub file: String,
    /// The place in the file.
    pub entry: String,
    /// The helper that keeps it: what follows `docker-credential-`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub helper: Option<String>,
    /// The name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What kind of secret it is; left out when a helper keeps it that was not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<Form>,
}

/// A kind of secret.
#[derive(Clone, Copy, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Form {
    /// A password, or what stands in its place.
    Password,
    /// A refresh token for the token server.
    IdentityToken,
    /// A token for the registry itself.
    RegistryToken,
}

/// A file that is looked into.
#[derive(Serialize, schemars::JsonSchema)]
pub(super) struct ReportedPlace {
    /// Its path.
    pub file: PathBuf,
    /// Whether it is there.
    pub found: bool,
}

/// What came of it.
#[derive(Clone, Copy, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Outcome {
    /// The registry takes the login.
    Accepted,
    /// No login is known here, and the registry answers without one.
    Anonymous,
    /// The registry asks nobody for a login.
    NotWanted,
    /// The registry or its token server refuses.
    Refused,
    /// It could not be found out.
    Failed,
}

pub(super) async fn run(command: LoginCommand, output: Output) -> Result<Option<Kind>> {
    let LoginCommand::Check { name, config } = command;
    let (registry, repository) = parse(&name)?;
    let client = client(&config.load()?, Side::Source)?;
    let checked = client.check_login(&registry, repository.as_ref().map(Repository::path)).await;
    let failed = checked.result.as_ref().err().map(Error::kind);
    output::report(output, &LoginReport::new(registry, repository, checked), render)?;
    Ok(failed)
}

fn parse(name: &str) -> Result<(Registry, Option<Repository>)> {
    let wrong = |error: crate::oci::reference::InvalidName| {
        Error::usage(error.to_string()).help("name a registry, such as docker.io, or a repository with its registry")
    };
    match name.contains('/') {
        true => {
            let repository: Repository = name.parse().map_err(wrong)?;
            Ok((repository.registry().clone(), Some(repository)))
        }
        false => Ok((name.parse().map_err(wrong)?, None)),
    }
}

impl LoginReport {
    fn new(registry: Registry, repository: Option<Repository>, checked: LoginCheck) -> Self {
        let outcome = match &checked.result {
            Ok(()) if !checked.wanted => Outcome::NotWanted,
            Ok(()) if checked.login.is_none() => Outcome::Anonymous,
            Ok(()) => Outcome::Accepted,
            Err(error) if error.kind() == Kind::Refused => Outcome::Refused,
            Err(_) => Outcome::Failed,
        };
        LoginReport {
            registry,
            repository,
            host: checked.host,
            login: checked.login.map(ReportedLogin::from),
            places: checked.places.into_iter().map(ReportedPlace::from).collect(),
            outcome,
            problem: checked.result.as_ref().err().map(Problem::from),
        }
    }
}

impl From<LoginUsed> for ReportedLogin {
    fn from(used: LoginUsed) -> Self {
        let form = used.form.map(|form| match form {
            LoginForm::Password => Form::Password,
            LoginForm::IdentityToken => Form::IdentityToken,
            LoginForm::RegistryToken => Form::RegistryToken,
        });
        ReportedLogin {
            file: used.origin.file,
            entry: used.origin.entry,
            helper: used.origin.helper,
            user: used.user,
            form,
        }
    }
}

impl From<Place> for ReportedPlace {
    fn from(place: Place) -> Self {
        ReportedPlace { file: place.path, found: place.found }
    }
}

fn render(report: &LoginReport) -> String {
    let mut text = match &report.repository {
        Some(repository) => format!("repository  {repository}\n"),
        None => format!("registry    {}\n", report.registry),
    };
    match &report.login {
        Some(login) => text += &format!("login       {}\nfrom        {} ({})\n", who(login), login.file, login.entry),
        None => text += "login       none\n",
    }
    for (at, place) in report.places.iter().enumerate() {
        let label = if at == 0 { "looked in" } else { "" };
        let absent = if place.found { "" } else { " (not there)" };
        text += &format!("{label:<12}{}{absent}\n", place.file.display());
    }
    let host = &report.host;
    text += &match report.outcome {
        Outcome::Accepted => format!("works       {host} takes it\n"),
        Outcome::Anonymous => format!("works       {host} answers without a login\n"),
        Outcome::NotWanted => format!("works       {host} asks for no login, and none is shown to it\n"),
        Outcome::Refused => "refused     ".to_owned(),
        Outcome::Failed => "failed      ".to_owned(),
    };
    if let Some(problem) = &report.problem {
        text += &format!("{problem}\n");
        problem.help.iter().for_each(|help| text += &format!("  help: {help}\n"));
    }
    text
}

fn who(login: &ReportedLogin) -> String {
    let secret = match login.form {
        Some(Form::Password) => "a password",
        Some(Form::IdentityToken) => "an identity token",
        Some(Form::RegistryToken) => "a registry token",
        None => "not asked for",
    };
    let user = login.user.as_ref().map_or(String::new(), |user| format!("{user}, "));
    let kept = login.helper.as_ref().map_or(String::new(), |helper| format!(", kept by docker-credential-{helper}"));
    format!("{user}{secret}{kept}")
}
