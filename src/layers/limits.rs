//! What a layer may cost. A layer that costs more is taken for a bomb.

/// What may come out of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// So many bytes may come out of any layer, however small it is.
    pub free: u64,
    /// Beyond that, so many for each byte of the layer.
    pub ratio_max: u64,
    /// Never more than this.
    pub output_max: u64,
}

const GIB: u64 = 1 << 30;

/// The limits of `verify --deep`.
///
/// *Free, 4 GiB:* a bomb costs a few seconds, and a layer with a large file of zeros, which gzip packs 1000:1 and zstd far
/// better, is no bomb yet. *Ratio, 200:* file systems of images pack 2:1 to 5:1, logs and databases 20:1; nothing honest is
/// both larger than 4 GiB and that empty. *Output, 1 TiB:* more than any registry takes as a layer, and a quarter of an
/// hour of work.
pub const LIMITS: Limits = Limits { free: 4 * GIB, ratio_max: 200, output_max: 1024 * GIB };

/// The largest window of a zstd frame: `zstd --long=27`, the most that zstd itself unpacks without being asked to.
pub const WINDOW_MAX: u64 = 1 << 27;

/// The windows of all zstd frames that are unpacked at the same time, together. A frame waits until its window fits: eight
/// of 8 MiB, which the builders of images use, go beside each other; one of 128 MiB goes alone.
pub const WINDOWS_MAX: u64 = WINDOW_MAX;

impl Limits {
    /// How many bytes may come out of a layer of `size` bytes.
    pub fn of(&self, size: u64) -> u64 {
        self.free.max(size.saturating_mul(self.ratio_max)).min(self.output_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_layers_are_free_and_large_ones_are_measured() {
        assert_eq!(LIMITS.of(0), 4 * GIB);
        assert_eq!(LIMITS.of(GIB), 200 * GIB);
        assert_eq!(LIMITS.of(u64::MAX), 1024 * GIB);
    }
}
