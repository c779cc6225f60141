//! [`BundleName`]: the number of a bundle within its stream.

/// The name of a bundle and of its folder: `<stream>-<epoch>-<sequence>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BundleName {
    /// The stream.
    pub stream: String,
    /// The epoch, from 1.
    pub epoch: u64,
    /// The sequence within the epoch, from 1.
    pub sequence: u64,
}

impl std::fmt::Display for BundleName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.stream, self.epoch, self.sequence)
    }
}

impl std::str::FromStr for BundleName {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (rest, sequence) = text.rsplit_once('-').ok_or(())?;
        let (stream, epoch) = rest.rsplit_once('-').ok_or(())?;
        let number = |text: &str| text.parse::<u64>().ok().filter(|&n| n > 0 && n.to_string() == text).ok_or(());
        Ok(BundleName { stream: stream.to_owned(), epoch: number(epoch)?, sequence: number(sequence)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_spelling_is_a_name() {
        let name = BundleName { stream: "base-images".into(), epoch: 1, sequence: 12 };
        assert_eq!(name.to_string().parse(), Ok(name));
        for text in ["base-images", "a-1", "a-0-1", "a-1-01", "a-1-x", ""] {
            assert!(text.parse::<BundleName>().is_err(), "{text}");
        }
    }
}
