//! What a layer may cost. A layer that costs more is taken for a bomb.

/// What may come out of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many bytes may come out of all layers together beyond what the ratio grants each.
    pub free: u64,
    /// So many bytes for each byte of a layer.
    pub ratio_max: u64,
    /// The ratio grants no layer more than this.
    pub output_max: u64,
}

const GIB: u64 = 1 << 30;

/// The limits of `verify --deep`.
///
/// *Free, 4 GiB for the whole run:* bombs cost a few seconds, however many there are, and a layer with a large file of zeros, which gzip packs 1000:1 and zstd far
/// better, is no bomb yet. *Ratio, 200:* file systems of images pack 2:1 to 5:1, logs and databases 20:1; nothing honest is
/// more than 4 GiB beyond that. *Output, 1 TiB:* more than any registry takes as a layer, and a quarter of an
/// hour of work.
pub const LIMITS: Limits = Limits { free: 4 * GIB, ratio_max: 200, output_max: 1024 * GIB };

/// The largest window of a zstd frame: `zstd --long=27`, the most that zstd itself unpacks without being asked to.
pub const WINDOW_MAX: u64 = 1 << 27;

/// The windows of all zstd frames that are unpacked at the same time, together. A frame waits until its window fits: eight
/// of 8 MiB, which the builders of images use, go beside each other; one of 128 MiB goes alone.
pub const WINDOWS_MAX: u64 = WINDOW_MAX;

impl Limits {
    /// How many bytes may come out of a layer of `size` bytes without any that are free.
    pub fn of(&self, size: u64) -> u64 {
        size.saturating_mul(self.ratio_max).min(self.output_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_measured() {
        assert_eq!(LIMITS.of(0), 0);
        assert_eq!(LIMITS.of(GIB), 200 * GIB);
        assert_eq!(LIMITS.of(u64::MAX), 1024 * GIB);
    }
}
