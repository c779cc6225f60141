//! Query parameters. Those that an endpoint does not know are passed over: containerd adds `ns=` to every request
//! that it sends to a mirror.

/// The parameters of a request, decoded.
pub(super) struct Query(Vec<(String, String)>);

/// The most parameters that are looked at.
const PARAMETERS_MAX: usize = 32;

impl Query {
    /// Reads the query part of a URL.
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Query(pairs.into_owned().take(PARAMETERS_MAX).collect())
    }

    /// The value of a parameter; of several with one name, the first.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}
