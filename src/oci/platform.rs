//! Platforms: what an index says of its children, and what a spec selects.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The platform of an image, normalised as containerd does (`platforms/database.go`), so that equal
/// platforms compare equal: `x86_64` is `amd64`, `arm64/v8` is `arm64`, a bare `arm` is `arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// The operating system: `linux`, `windows`, …
    pub os: String,
    /// The architecture: `amd64`, `arm64`, …
    pub architecture: String,
    /// The variant of the architecture; empty for its default.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    /// The version of the operating system (Windows builds); empty where none is named.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// Features that the operating system must have.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

impl Platform {
    /// A normalised platform.
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = normalise(architecture, variant);
        Platform { os: normalise_os(os), architecture, variant, os_version: String::new(), os_features: Vec::new() }
    }

    /// The platform of the machine that this runs on.
    pub fn of_this_machine() -> Self {
        let architecture = match std::env::consts::ARCH {
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            // The others are those of images, or names that are normalised.
            other => other,
        };
        Platform::new(std::env::consts::OS, architecture, "")
    }

    /// BuildKit's `unknown/unknown`, which is no platform.
    pub fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        if !self.os_version.is_empty() {
            write!(f, ":{}", self.os_version)?;
        }
        self.os_features.iter().try_for_each(|feature| write!(f, "+{feature}"))
    }
}

fn normalise_os(os: &str) -> String {
    match os.to_ascii_lowercase().as_str() {
        "macos" => "darwin".to_owned(),
        other => other.to_owned(),
    }
}

/// containerd's table, and names that other tools have for the 32-bit x86.
fn normalise(architecture: &str, variant: &str) -> (String, String) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.to_ascii_lowercase();
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "" | "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "" | "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        (architecture, variant) => (architecture, variant),
    };
    (architecture.to_owned(), variant.to_owned())
}

/// The variant that stands for none, by architecture: what [`normalise`] takes away.
fn implied_variant(architecture: &str) -> Option<&'static str> {
    match architecture {
        "amd64" => Some("v1"),
        "arm64" => Some("v8"),
        _ => None,
    }
}

/// What a spec selects: `os/arch[/variant][:os.version][+os.feature…]` with `*` allowed in each part, or `all`.
///
/// A pattern without a variant means the default variant of that architecture (`linux/arm64` is
/// `linux/arm64/v8`, `linux/arm` is `linux/arm/v7`), as in containerd; `linux/arm/*` takes every one.
/// A pattern without a version takes every version. Features say what a host must have, not what an image is, so one
/// that names none takes images with any; one that names some takes only images that need all of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlatformPattern {
    os: String,
    architecture: String,
    variant: String,
    os_version: Option<String>,
    os_features: Vec<String>,
}

/// A text that is no platform pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no platform: {why}; expected os/arch[/variant][:os.version][+os.feature], for example linux/amd64, or all"
)]
pub struct InvalidPlatform {
    text: String,
    why: &'static str,
}

/// The most features that a pattern names. The specification knows one, `win32k`.
const FEATURES_MAX: usize = 8;

/// Operating systems that images exist for; another name is taken for a slip of the pen.
const KNOWN_OS: &[&str] = &[
    "linux",
    "windows",
    "darwin",
    "freebsd",
    "netbsd",
    "openbsd",
    "solaris",
    "illumos",
    "aix",
    "android",
    "wasi",
    "wasip1",
    "js",
    "plan9",
    "dragonfly",
];

/// Architectures that images exist for.
const KNOWN_ARCHITECTURES: &[&str] = &[
    "amd64", "386", "arm", "arm64", "ppc64le", "ppc64", "s390x", "riscv64", "mips", "mipsle", "mips64", "mips64le",
    "loong64", "wasm", "sparc64",
];

impl PlatformPattern {
    /// The pattern that takes everything.
    pub fn all() -> Self {
        let any = || "*".to_owned();
        PlatformPattern { os: any(), architecture: any(), variant: any(), os_version: None, os_features: Vec::new() }
    }

    /// Whether the pattern names exactly one platform (no wildcard; a version may still be open).
    pub fn is_exact(&self) -> bool {
        ![&self.os, &self.architecture, &self.variant].iter().any(|part| part.contains('*'))
    }

    /// Whether `platform` is selected.
    pub fn matches(&self, platform: &Platform) -> bool {
        wildcard(&self.os, &platform.os)
            && wildcard(&self.architecture, &platform.architecture)
            && self.takes_variant(platform)
            && self.os_version.as_deref().is_none_or(|pattern| wildcard(pattern, &platform.os_version))
            && self
                .os_features
                .iter()
                .all(|wanted| platform.os_features.iter().any(|feature| wildcard(wanted, feature)))
    }

    /// `v*` takes `v8` of arm64, too, which is not written in a normalised platform.
    fn takes_variant(&self, platform: &Platform) -> bool {
        let implied =
            || implied_variant(&platform.architecture).is_some_and(|variant| wildcard(&self.variant, variant));
        wildcard(&self.variant, &platform.variant)
            || (platform.variant.is_empty() && self.variant.contains('*') && implied())
    }
}

impl FromStr for PlatformPattern {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let invalid = |why| InvalidPlatform { text: text.chars().take(80).collect(), why };
        if text == "all" {
            return Ok(Self::all());
        }
        let mut features = text.split('+');
        let named = features.next().unwrap_or_default();
        let os_features: Vec<String> = features.map(str::to_owned).collect();
        let (name, os_version) = match named.split_once(':') {
            Some((_, "")) => return Err(invalid("the version after the colon is empty")),
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (named, None),
        };
        let parts: Vec<&str> = name.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os, architecture] => (os, architecture, ""),
            [_, _, ""] => return Err(invalid("the variant after the slash is empty")),
            [os, architecture, variant] => (os, architecture, variant),
            _ => return Err(invalid("it has not two or three parts")),
        };
        let legal = |part: &str| {
            !part.is_empty()
                && part.len() <= 64
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-*".contains(c))
        };
        if !legal(os) || !legal(architecture) || !(variant.is_empty() || legal(variant)) {
            return Err(invalid("a part is empty or has an illegal character"));
        }
        if os_version.as_deref().is_some_and(|version| !legal(version)) {
            return Err(invalid("the version has an illegal character"));
        }
        if os_features.len() > FEATURES_MAX || !os_features.iter().all(|feature| legal(feature)) {
            return Err(invalid("a feature is empty or has an illegal character, or there are too many"));
        }
        let os = normalise_os(os);
        let (architecture, variant) = if architecture.contains('*') && variant.is_empty() {
            (architecture.to_ascii_lowercase(), "*".to_owned())
        } else {
            normalise(architecture, variant)
        };
        if !os.contains('*') && !KNOWN_OS.contains(&os.as_str()) {
            return Err(invalid("no images exist for that operating system"));
        }
        if !architecture.contains('*') && !KNOWN_ARCHITECTURES.contains(&architecture.as_str()) {
            return Err(invalid("no images exist for that architecture"));
        }
        Ok(PlatformPattern { os, architecture, variant, os_version, os_features })
    }
}

impl fmt::Display for PlatformPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all() {
            return f.write_str("all");
        }
        write!(f, "{}/{}", self.os, self.architecture)?;
        let implied = self.architecture.contains('*') && self.variant == "*";
        if !self.variant.is_empty() && !implied {
            write!(f, "/{}", self.variant)?;
        }
        if let Some(version) = &self.os_version {
            write!(f, ":{version}")?;
        }
        self.os_features.iter().try_for_each(|feature| write!(f, "+{feature}"))
    }
}

impl Serialize for PlatformPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PlatformPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for PlatformPattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PlatformPattern".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "os/arch[/variant][:os.version][+os.feature], `*` allowed in each part; or `all`.",
            "examples": ["linux/amd64", "linux/arm64/v8", "windows/amd64:10.0.17763.*", "windows/amd64+win32k", "linux/*", "all"]
        })
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any run of characters. Linear in practice:
/// on a mismatch only the last `*` is widened.
fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            p += 1;
            t += 1;
        } else if let Some((star_p, star_t)) = star {
            p = star_p + 1;
            t = star_t + 1;
            star = Some((star_p, star_t + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PlatformPattern {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn selection() {
        let arm64 = Platform::new("linux", "arm64", "v8");
        let amd64 = Platform::new("linux", "x86_64", "");
        let armv7 = Platform::new("linux", "arm", "v7");
        let armv6 = Platform::new("linux", "arm", "v6");
        let mut windows = Platform::new("windows", "amd64", "");
        windows.os_version = "10.0.17763.5576".into();
        let win32k = Platform { os_features: vec!["win32k".into()], ..windows.clone() };
        let amd64v3 = Platform::new("linux", "amd64", "v3");
        let rows: &[(&str, &[&Platform], &[&Platform])] = &[
            ("linux/arm64", &[&arm64], &[&amd64, &armv7, &windows]),
            ("linux/arm64/v8", &[&arm64], &[&amd64]),
            ("linux/aarch64", &[&arm64], &[]),
            ("linux/arm", &[&armv7], &[&armv6, &arm64]),
            ("linux/arm/*", &[&armv7, &armv6], &[&arm64]),
            ("linux/*", &[&arm64, &amd64, &armv7, &armv6], &[&windows]),
            ("*/amd64", &[&amd64, &windows], &[&arm64]),
            ("linux/arm64/v*", &[&arm64], &[&amd64]),
            ("linux/amd64/v*", &[&amd64, &amd64v3], &[]),
            ("linux/amd64/v3", &[&amd64v3], &[&amd64]),
            ("linux/amd64", &[&amd64], &[&amd64v3]),
            ("windows/amd64:10.0.17763.*", &[&windows, &win32k], &[&amd64]),
            ("windows/amd64+win32k", &[&win32k], &[&windows, &amd64]),
            ("windows/amd64:10.0.17763.*+win*", &[&win32k], &[&windows]),
            ("windows/amd64:10.0.20348.*+win32k", &[], &[&win32k]),
            ("windows/amd64+win32k+other", &[], &[&win32k]),
            ("windows/amd64:10.0.20348.*", &[], &[&windows]),
            ("windows/amd64", &[&windows, &win32k], &[]),
            ("all", &[&arm64, &amd64, &amd64v3, &armv7, &armv6, &windows, &win32k], &[]),
        ];
        for (text, taken, left) in rows {
            taken.iter().for_each(|p| assert!(pattern(text).matches(p), "{text} must take {p}"));
            left.iter().for_each(|p| assert!(!pattern(text).matches(p), "{text} must leave {p}"));
        }
    }

    /// The table of containerd's `platforms/database.go`: what is written, what it is.
    #[test]
    fn one_platform_in_many_spellings() {
        let rows: &[(&str, &str, &str, &str)] = &[
            ("linux", "amd64", "", "linux/amd64"),
            ("linux", "amd64", "v1", "linux/amd64"),
            ("linux", "amd64", "v2", "linux/amd64/v2"),
            ("linux", "x86_64", "", "linux/amd64"),
            ("linux", "x86-64", "v1", "linux/amd64"),
            ("Linux", "X86_64", "V3", "linux/amd64/v3"),
            ("linux", "i386", "", "linux/386"),
            ("linux", "i386", "v1", "linux/386"),
            ("linux", "aarch64", "", "linux/arm64"),
            ("linux", "aarch64", "v8", "linux/arm64"),
            ("linux", "arm64", "", "linux/arm64"),
            ("linux", "arm64", "8", "linux/arm64"),
            ("linux", "arm64", "v8", "linux/arm64"),
            ("linux", "arm64", "v8.0", "linux/arm64"),
            ("linux", "arm64", "v8.1", "linux/arm64/v8.1"),
            ("linux", "arm64", "9", "linux/arm64/v9"),
            ("linux", "arm64", "9.0", "linux/arm64/v9"),
            ("linux", "arm64", "v9.0", "linux/arm64/v9"),
            ("linux", "armhf", "", "linux/arm/v7"),
            ("linux", "armhf", "v6", "linux/arm/v7"),
            ("linux", "armel", "", "linux/arm/v6"),
            ("linux", "arm", "", "linux/arm/v7"),
            ("linux", "arm", "5", "linux/arm/v5"),
            ("linux", "arm", "6", "linux/arm/v6"),
            ("linux", "arm", "7", "linux/arm/v7"),
            ("linux", "arm", "8", "linux/arm/v8"),
            ("linux", "arm", "v5", "linux/arm/v5"),
            ("macos", "arm64", "", "darwin/arm64"),
            ("macOS", "aarch64", "v8", "darwin/arm64"),
            ("linux", "ppc64le", "", "linux/ppc64le"),
            ("linux", "s390x", "", "linux/s390x"),
        ];
        for (os, architecture, variant, expected) in rows {
            let platform = Platform::new(os, architecture, variant);
            assert_eq!(platform.to_string(), *expected, "{os}/{architecture}/{variant}");
            let again = Platform::new(&platform.os, &platform.architecture, &platform.variant);
            assert_eq!(again, platform, "normalised once and for all");
            // Whoever writes it in a spec, in whichever spelling, gets it.
            let variant = if variant.is_empty() { String::new() } else { format!("/{variant}") };
            for written in [format!("{os}/{architecture}{variant}"), (*expected).to_owned()] {
                assert!(pattern(&written).matches(&platform), "{written} must take {platform}");
            }
        }
    }

    #[test]
    fn display_parses_again() {
        for text in [
            "linux/amd64",
            "linux/arm64",
            "linux/arm/v6",
            "linux/*",
            "all",
            "windows/amd64:10.0.*",
            "windows/amd64:10.0.*+win32k",
            "windows/amd64+a+b",
        ] {
            assert_eq!(pattern(text).to_string(), text);
        }
        let mut platform = Platform::new("windows", "amd64", "");
        platform.os_version = "10.0.17763.1".into();
        platform.os_features = vec!["win32k".into()];
        assert_eq!(platform.to_string(), "windows/amd64:10.0.17763.1+win32k");
        assert!(pattern(&platform.to_string()).matches(&platform));
    }

    #[test]
    fn impossible_platforms_are_refused() {
        for text in [
            "",
            "linux",
            "linux/",
            "linus/amd64",
            "linux/amd46",
            "linux/arm64/",
            "linux/amd64:",
            "a/b/c/d",
            "linux/amd 64",
            "windows/amd64+",
            "windows/amd64++win32k",
            "windows/amd64+win 32k",
            "+win32k",
            "windows/amd64+1+2+3+4+5+6+7+8+9",
        ] {
            assert!(text.parse::<PlatformPattern>().is_err(), "{text:?} was taken");
        }
    }
}
