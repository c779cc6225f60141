//! Asking one credential helper: `docker-credential-NAME get` (docker/docker-credential-helpers).
//!
//! The server goes in on standard input, a document with a name and a secret comes out on standard output. What it says
//! when it fails goes to either stream. Nothing that is secret is ever in its arguments.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::process::{Pid, Signal};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::Login;
use crate::error::{Error, Result};
use crate::oci::json;
use crate::registry::answer::readable;

/// What the name of every helper begins with.
const PREFIX: &str = "docker-credential-";

/// How long a helper may take. Those of clouds ask a server of theirs; nobody is there at night to answer one that asks
/// a person.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest answer of a helper. Tokens of clouds have a few kilobytes.
const ANSWER_SIZE_MAX: usize = 64 * 1024;

/// How much of what a helper says beside its answer is kept.
const WORDS_SIZE_MAX: usize = 16 * 1024;

/// The longest name of a helper.
const NAME_LENGTH_MAX: usize = 64;

/// What helpers say when they know nothing of a server; what follows differs between them.
const NOT_FOUND: &str = "credentials not found";

/// What values that are nobody's business are called, or how such names end.
const NAMES: [&str; 8] = ["secret", "password", "passwd", "token", "apikey", "api_key", "access_key", "authorization"];

/// What stands before a secret in a header.
const SCHEMES: [&str; 2] = ["bearer ", "basic "];

/// The shortest word that is taken for a secret there: user and password of three letters each, in base64.
const CODED_LENGTH_MIN: usize = 6;

/// The name that stands beside a refresh token (docker/cli, `credentials/native_store.go`).
pub(in crate::registry) const TOKEN_USER: &str = "<token>";

/// Runs helpers. A seam for tests: they have no programs.
pub(in crate::registry) trait Programs: fmt::Debug + Send + Sync {
    /// Runs `program` with `server` on its standard input, to its end.
    fn get<'a>(&'a self, program: &'a str, server: &'a str) -> BoxFuture<'a, Result<Said>>;
}

/// What a helper said.
#[derive(Clone)]
pub(in crate::registry) struct Said {
    /// How it ended where that was no success, for people.
    pub failed: Option<String>,
    pub answer: Vec<u8>,
    pub words: Vec<u8>,
}

/// The programs of this machine.
#[derive(Debug)]
pub(super) struct Installed;

impl Programs for Installed {
    fn get<'a>(&'a self, program: &'a str, server: &'a str) -> BoxFuture<'a, Result<Said>> {
        Box::pin(run(program, server))
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "Username", default)]
    user: String,
    #[serde(rename = "Secret", default)]
    secret: String,
}

/// The login that the helper `name` keeps for `server`; `None` when it knows none.
pub(super) async fn ask(programs: &dyn Programs, name: &str, server: &str) -> Result<Option<Login>> {
    let program = program(name)?;
    let help = || {
        format!(
            "run `{program} list` as this user to see what is wrong with it, or take it out of the file that names it"
        )
    };
    let asked = async { understand(&programs.get(&program, server).await?) };
    asked.await.map_err(|error| error.while_(format_args!("ask {program} for the login of {server}")).help(help()))
}

/// The program of a helper. Its name comes from a file, so it could be a path, or an option.
fn program(name: &str) -> Result<String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > NAME_LENGTH_MAX || !name.chars().all(legal) {
        let text = format!("{:?} is no name of a credential helper", readable(name));
        return Err(Error::failed(text).help("name only what follows `docker-credential-`: letters, digits, - _ ."));
    }
    Ok(format!("{PREFIX}{name}"))
}

async fn run(program: &str, server: &str) -> Result<Said> {
    let path = find(program, std::env::var_os("PATH")).ok_or_else(|| Error::failed("it is not on the PATH"))?;
    let child = Command::new(path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        // Helpers are often scripts: what they have started ends with them.
        .process_group(0)
        .spawn()
        .map_err(|error| Error::failed(format!("it cannot be run: {error}")))?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)));
    match tokio::time::timeout(HELPER_TIMEOUT, listen(child, server)).await {
        Ok(said) => said.inspect(|_| group.let_go()),
        Err(_) => Err(Error::failed(format!("it did not end within {} s", HELPER_TIMEOUT.as_secs()))),
    }
}

/// A helper with everything that it has started; dropped, all of it is killed.
struct Group(Option<Pid>);

impl Group {
    /// It has ended by itself. What it left running, such as an agent, is meant to stay.
    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One that has gone already is no loss.
        if let Some(group) = self.0 {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
    }
}

/// The program in a folder of the search path; relative ones are left out, for what is in the current folder is nobody's
/// choice.
fn find(program: &str, path: Option<OsString>) -> Option<PathBuf> {
    let runs = |path: &PathBuf| path.metadata().is_ok_and(|it| it.is_file() && it.permissions().mode() & 0o111 != 0);
    let folders = std::env::split_paths(path.as_ref()?).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(program)).find(runs)
}

/// Talks to a helper until it ends.
async fn listen(mut child: Child, server: &str) -> Result<Said> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let tell = async {
        if let Some(mut stdin) = stdin {
            // One that ends without reading has a reason, which it says elsewhere.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        Ok(())
    };
    let ((), answer, words) = tokio::try_join!(tell, whole(stdout), beginning(stderr))?;
    let status = child.wait().await?;
    Ok(Said { failed: (!status.success()).then(|| format!("it ended with {status}")), answer, words })
}

async fn whole(stream: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(ANSWER_SIZE_MAX as u64 + 1).read_to_end(&mut bytes).await?;
    }
    match bytes.len() > ANSWER_SIZE_MAX {
        true => Err(Error::failed(format!("it answered with more than {ANSWER_SIZE_MAX} bytes"))),
        false => Ok(bytes),
    }
}

/// The beginning of a stream; the rest is read and forgotten, so that nobody waits for a reader.
async fn beginning(stream: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        (&mut stream).take(WORDS_SIZE_MAX as u64).read_to_end(&mut bytes).await?;
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    }
    Ok(bytes)
}

/// What a helper means.
fn understand(said: &Said) -> Result<Option<Login>> {
    // The parser's message could quote the secret.
    let document: Option<Document> = json::parse(&said.answer).ok();
    match (&said.failed, document) {
        (None, Some(document)) => Ok(Login::of(&document.user, &document.secret)),
        (None, None) => Err(Error::failed("it answered with what is no login")),
        (Some(how), document) => {
            let told = words(said, document.as_ref());
            match told.as_str() {
                _ if knows_nothing(said) => Ok(None),
                "" => Err(Error::failed(format!("{how} and said nothing"))),
                told => Err(Error::failed(format!("{how}: {told}"))),
            }
        }
    }
}

/// Whether a helper failed because it knows nothing of the server, in whichever form it says so.
fn knows_nothing(said: &Said) -> bool {
    [&said.words, &said.answer]
        .iter()
        .any(|stream| String::from_utf8_lossy(stream).to_ascii_lowercase().contains(NOT_FOUND))
}

/// What a helper that failed says to people, without its secret: standard error, or what is no document of its answer.
fn words(said: &Said, document: Option<&Document>) -> String {
    let told = [&said.words, &said.answer].map(|stream| before_secrets(&String::from_utf8_lossy(stream)).to_owned());
    let told = told.join(" ");
    match document.map(|document| document.secret.as_str()).filter(|secret| !secret.is_empty()) {
        Some(secret) => readable(&told.replace(secret, "…")),
        None => readable(&told),
    }
}

/// The beginning of a text, up to where a helper may be showing what it keeps: a document, as it is or escaped, or a value
/// after one of [`NAMES`]. What such a word says without a value, as in "the token has expired", stays.
fn before_secrets(text: &str) -> &str {
    // Of ASCII letters alone, so that places are the same in both.
    let lower = text.to_ascii_lowercase();
    let shows = |&(at, name): &(usize, &str)| {
        let after = lower.get(at + name.len()..).unwrap_or_default();
        let after = after.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\'));
        after.starts_with(['=', ':'])
    };
    let values = NAMES.iter().flat_map(|name| lower.match_indices(name)).filter(shows).map(|(at, _)| at);
    let schemes = SCHEMES.iter().flat_map(|scheme| lower.match_indices(scheme));
    let schemes = schemes.filter(|(at, scheme)| is_coded(text.get(at + scheme.len()..))).map(|(at, _)| at);
    let end = values.chain(schemes).chain(lower.find('{')).min();
    end.and_then(|end| text.get(..end)).unwrap_or(text)
}

/// Whether a text begins with what is no word of a sentence, such as "bearer token".
fn is_coded(text: Option<&str>) -> bool {
    let word = text.and_then(|text| text.split_ascii_whitespace().next()).unwrap_or_default();
    word.len() >= CODED_LENGTH_MIN && !word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_punctuation())
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Said").field("failed", &self.failed).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::secret::Secret;

    fn understood(failed: bool, answer: &str, words: &str) -> Result<Option<Login>> {
        let failed = failed.then(|| "it ended with exit status: 1".to_owned());
        understand(&Said { failed, answer: answer.into(), words: words.into() })
    }

    #[test]
    fn what_helpers_answer() {
        let good = r#"{"ServerURL":"r.example","Username":"me","Secret":"pw"}"#;
        let password = Login::Password { user: "me".into(), password: Secret::new("pw") };
        assert_eq!(understood(false, good, "a warning").unwrap(), Some(password));
        let identity = Login::Identity { user: String::new(), token: Secret::new("t") };
        assert_eq!(understood(false, r#"{"Username":"<token>","Secret":"t"}"#, "").unwrap(), Some(identity));
        assert_eq!(understood(false, r#"{"Username":"","Secret":""}"#, "").unwrap(), None);
        for (answer, words) in [
            ("credentials not found in native keychain\n", ""),
            ("", "Error: Credentials not found for r.example"),
            ("", r#"{"msg":"credentials not found"}"#),
        ] {
            assert_eq!(understood(true, answer, words).unwrap(), None);
        }
    }

    #[test]
    fn what_goes_wrong_is_said_without_a_secret() {
        let rows = [
            (false, "s3cr3t", "", "it answered with what is no login"),
            (false, r#"{"Username":7,"Secret":"s3cr3t"}"#, "", "it answered with what is no login"),
            (true, "", "", "it ended with exit status: 1 and said nothing"),
            (true, "the vault\n is sealed\u{1b}[m", "", "it ended with exit status: 1: the vault is sealed [m"),
            (true, "", "no https://v.example/x?sig=s3cr3t", "it ended with exit status: 1: no https://v.example/x?…"),
            (true, r#"{"Username":"me","Secret":"s3cr3t"}"#, "+ echo s3cr3t", "it ended with exit status: 1: + echo …"),
            (true, r#"{"Secret":"s3cr3t"#, "cut", "it ended with exit status: 1: cut"),
            (
                true,
                "",
                r#"not stored: {"Username":"me","Secret":"s3cr3t"}"#,
                "it ended with exit status: 1: not stored:",
            ),
            (true, "", r#"no: \"Secret\" : \"s3cr3t\""#, r#"it ended with exit status: 1: no: \""#),
            (true, "", "+ DB_PASSWORD=s3cr3t", "it ended with exit status: 1: + DB_"),
            (true, "Password: s3cr3t", "sealed", "it ended with exit status: 1: sealed"),
            (true, "", "403 for Bearer s3cr3t", "it ended with exit status: 1: 403 for"),
            (true, "", "the bearer token is old", "it ended with exit status: 1: the bearer token is old"),
            (true, "", "the token has expired", "it ended with exit status: 1: the token has expired"),
            (true, "", "no https://me:s3cr3t@v.example/x", "it ended with exit status: 1: no https://…@v.example/x"),
        ];
        for (failed, answer, words, expected) in rows {
            let error = understood(failed, answer, words).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        let long = understood(true, &"x ".repeat(5_000), "").unwrap_err().to_string();
        assert!(long.len() < 1_000, "{}", long.len());
        let said = Said { failed: None, answer: b"s3cr3t".into(), words: b"s3cr3t".into() };
        assert!(!format!("{said:?}").contains("s3cr3t"));
    }

    #[test]
    fn a_name_is_no_path() {
        assert_eq!(program("ecr-login").unwrap(), "docker-credential-ecr-login");
        for name in ["", "../x", "a/b", "a b", "a\0", "ä", &"a".repeat(65)] {
            assert!(program(name).is_err(), "{name}");
        }
    }

    #[test]
    fn programs_are_found_in_absolute_folders_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("docker-credential-x");
        std::fs::write(&file, "").unwrap();
        let path = |text: String| Some(OsString::from(text));
        let absolute = format!(":relative:{}", folder.path().display());
        assert_eq!(find("docker-credential-x", path(absolute.clone())), None, "it does not run");
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(find("docker-credential-x", path(absolute)), Some(file));
        assert_eq!(find("docker-credential-x", path(":.".into())), None);
        assert_eq!(find("docker-credential-x", None), None);
    }
}
