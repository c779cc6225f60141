//! [`Appearance`]: what a registry lets everybody see of what it is. There is no question for that in the specification, but
//! the root of the API answers everybody, and says one thing or the other on the way.

use reqwest::Method;
use reqwest::header::HeaderMap;
use url::Url;

use super::answer::readable;
use super::challenge::Challenge;
use super::endpoint::{Call, Endpoint};
use super::remote::Remote;
use super::retry::Trouble;
use super::scope::Scope;

/// The headers by which registries are told apart. Nothing else of an answer is kept.
const TELLING: [&str; 5] = [
    "docker-distribution-api-version",
    "gitlab-container-registry-version",
    "server",
    "x-jfrog-version",
    "x-sparse-manifest-support",
];

/// By what a registry may be recognised, beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appearance {
    /// Telling headers of the root of its API, names in lower case; texts from outside, shortened.
    pub headers: Vec<(String, String)>,
    /// The name by which its token server knows it.
    pub service: Option<String>,
    /// The path of its token server.
    pub realm_path: Option<String>,
}

impl Appearance {
    fn new(headers: &HeaderMap) -> Self {
        let value = |name: &&str| Some(((*name).to_owned(), readable(headers.get(*name)?.to_str().ok()?)));
        let mut found = Appearance { headers: TELLING.iter().filter_map(value).collect(), ..Appearance::default() };
        if let Some(Challenge::Bearer(bearer)) = Challenge::from_headers(headers) {
            found.service = bearer.service.as_deref().map(readable);
            found.realm_path = Url::parse(&bearer.realm).ok().map(|realm| readable(realm.path()));
        }
        found
    }

    /// What it says in one of the telling headers.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl Remote {
    /// What the registry lets be seen of what it is; nothing, where it does not answer at once. Asked once for each
    /// registry, and without a login: the challenge to somebody whom it does not know says most.
    pub async fn appearance(&self) -> Appearance {
        self.own.endpoint.appearance(&self.own.path).await
    }
}

impl Endpoint {
    async fn appearance(&self, path: &str) -> Appearance {
        let asked = self.appearance.get_or_try_init(|| async {
            let call = Call::new(Method::GET, self.root()?, path, Scope::pull(path));
            let headers = self.headers_for_anybody(&call).await?;
            Ok::<_, Trouble>(Appearance::new(&headers))
        });
        asked.await.cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_an_answer() {
        let headers = [
            ("server", "nginx/1.22"),
            ("docker-distribution-api-version", "registry/2.0"),
            ("set-cookie", "sid=0029ac0c"),
            ("www-authenticate", "Bearer realm=\"https://h.example/service/token?x=1\",service=\"harbor-registry\""),
        ];
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        let found = Appearance::new(&map);
        assert_eq!(found.headers.len(), 2, "no cookie: {found:?}");
        assert_eq!(found.header("server"), Some("nginx/1.22"));
        assert_eq!(found.service.as_deref(), Some("harbor-registry"));
        assert_eq!(found.realm_path.as_deref(), Some("/service/token"));
    }
}
