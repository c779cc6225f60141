//! Where each blob goes: decided before anything is written, from sizes alone.

use super::contents::Extent;
use super::{INTEGER_MAX, VOLUMES_MAX, frame};
use crate::content::CHUNK_SIZE;
use crate::error::{Error, Result};
use crate::oci::Digest;

/// The volume size where none is chosen: FAT32 takes files of up to 4 GiB − 1.
pub const VOLUME_SIZE_DEFAULT: u64 = 4095 * 1024 * 1024;

/// The smallest volume size that may be chosen. Blobs larger than that need at least a chunk's worth.
pub const VOLUME_SIZE_MIN: u64 = 64 * 1024;

/// A blob that is to be placed.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// Its digest.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
    /// Whether it travels in `meta.tar`.
    pub in_meta: bool,
}

/// The places of all blobs.
#[derive(Debug, PartialEq, Eq)]
pub struct Packing {
    /// For each blob, in the order in which they lie: which of the given ones, and where.
    pub blobs: Vec<(usize, Vec<Extent>)>,
    /// For each of the files given for `meta.tar`, where its payload begins.
    pub files: Vec<u64>,
    /// The length of each volume; `meta.tar` first.
    pub volumes: Vec<u64>,
}

/// Places `files` (lengths) and then the blobs: those of `meta.tar` there, the others first-fit in the order given, so
/// that the layers of an image lie together and gaps are still filled. A pure function: the same input gives the same
/// volumes on every machine.
pub fn pack(files: &[u64], blobs: &[Placed], volume_size: u64) -> Result<Packing> {
    let mut packer = Packer { volume_size: volume_size.min(INTEGER_MAX), volumes: vec![0], first_open: 1 };
    let files = files.iter().map(|&length| packer.put(0, length)).collect();
    let mut placed: Vec<(usize, Vec<Extent>)> = Vec::with_capacity(blobs.len());
    for (at, blob) in blobs.iter().enumerate() {
        let extents = if blob.in_meta { vec![packer.extent(0, blob.size)] } else { packer.place(blob)? };
        placed.push((at, extents));
    }
    placed.sort_by_key(|(_, extents)| extents.first().map(|first| (first.volume, first.offset)));
    let volumes: Vec<u64> = packer.volumes.iter().map(|used| used + frame::TRAILER).collect();
    let meta_max = volume_size.max(VOLUME_SIZE_DEFAULT);
    if volumes.first().is_some_and(|&size| size > meta_max) {
        return Err(Error::usage(format!("meta.tar would have more than {meta_max} bytes"))
            .help("divide the stream: several specs with fewer images each"));
    }
    if volumes.iter().any(|&size| size > INTEGER_MAX) {
        return Err(
            Error::usage("a volume would be larger than any reader takes").help("choose a smaller --volume-size")
        );
    }
    Ok(Packing { blobs: placed, files, volumes })
}

struct Packer {
    volume_size: u64,
    /// How much of each volume is used, without its trailer.
    volumes: Vec<u64>,
    /// Volumes before this one have no room for anything.
    first_open: usize,
}

impl Packer {
    /// The longest payload that an empty volume holds.
    fn capacity(&self) -> u64 {
        let room = self.volume_size.saturating_sub(frame::TRAILER + frame::BLOCK);
        (room / frame::BLOCK * frame::BLOCK).min(frame::PART_MAX)
    }

    fn place(&mut self, blob: &Placed) -> Result<Vec<Extent>> {
        let capacity = self.capacity();
        if blob.size <= capacity {
            let volume = self.volume_with_room(blob.size)?;
            return Ok(vec![self.extent(volume, blob.size)]);
        }
        let part = capacity / CHUNK_SIZE * CHUNK_SIZE;
        if part == 0 {
            return Err(Error::usage(format!(
                "blob {} has {} bytes, more than a volume of {} holds, and volumes that small cannot share a blob",
                blob.digest, blob.size, self.volume_size
            ))
            .help("choose a --volume-size of at least 17MiB"));
        }
        let mut extents = Vec::new();
        let mut rest = blob.size;
        while rest > 0 {
            let length = rest.min(part);
            let volume = self.volume_with_room(length)?;
            extents.push(self.extent(volume, length));
            rest -= length;
        }
        Ok(extents)
    }

    /// The first volume with room for a payload of `length`; a new one where there is none.
    fn volume_with_room(&mut self, length: u64) -> Result<usize> {
        let fits = |used: u64| used + frame::member_size(length) + frame::TRAILER <= self.volume_size;
        let smallest = frame::member_size(1) + frame::TRAILER;
        while self.volumes.get(self.first_open).is_some_and(|used| used + smallest > self.volume_size) {
            self.first_open += 1;
        }
        match (self.first_open..self.volumes.len()).find(|&volume| fits(self.volumes[volume])) {
            Some(volume) => Ok(volume),
            // A manifest may claim sizes that would need millions: that is found out before they are counted.
            None if self.volumes.len() == VOLUMES_MAX => {
                Err(Error::usage(format!("more than {VOLUMES_MAX} volumes would be needed"))
                    .help("choose a larger --volume-size"))
            }
            None => {
                self.volumes.push(0);
                Ok(self.volumes.len() - 1)
            }
        }
    }

    fn extent(&mut self, volume: usize, length: u64) -> Extent {
        Extent { volume, offset: self.put(volume, length), length }
    }

    /// Reserves a member; where its payload begins.
    fn put(&mut self, volume: usize, length: u64) -> u64 {
        let offset = self.volumes[volume] + frame::BLOCK;
        self.volumes[volume] += frame::member_size(length);
        offset
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blob(number: u8, size: u64) -> Placed {
        Placed { digest: Digest::Sha256([number; 32]), size, in_meta: false }
    }

    #[test]
    fn gaps_are_filled_and_limits_are_kept() {
        let size = 100 * 1024;
        let blobs = [blob(1, 60 * 1024), blob(2, 60 * 1024), blob(3, 20 * 1024), blob(4, 20 * 1024), blob(5, 0)];
        let packing = pack(&[30, 400], &blobs, size).unwrap();
        assert_eq!(packing.volumes.len(), 3);
        assert!(packing.volumes[1..].iter().all(|&volume| volume <= size));
        let volume_of = |number: usize| packing.blobs.iter().find(|(at, _)| *at == number).unwrap().1[0].volume;
        assert_eq!([volume_of(0), volume_of(1), volume_of(2), volume_of(3)], [1, 2, 1, 2]);
        assert_eq!(packing.files, [512, 1024 + 512]);
    }

    #[test]
    fn a_blob_is_split_at_chunk_borders_only_when_it_must_be() {
        let size = 40 * 1024 * 1024;
        let packing = pack(&[], &[blob(1, 39 * 1024 * 1024), blob(2, 70 * 1024 * 1024)], size).unwrap();
        assert_eq!(packing.blobs[0].1.len(), 1);
        let parts: Vec<u64> = packing.blobs[1].1.iter().map(|extent| extent.length).collect();
        assert_eq!(parts, [2 * CHUNK_SIZE, 2 * CHUNK_SIZE, 70 * 1024 * 1024 - 4 * CHUNK_SIZE]);
        assert!(packing.volumes.iter().all(|&volume| volume <= size));
        assert!(pack(&[], &[blob(1, 1024 * 1024)], VOLUME_SIZE_MIN).is_err());
        let huge = pack(&[], &[blob(1, 20 << 30)], 1 << 40).unwrap();
        assert_eq!(huge.blobs[0].1.len(), 3, "no part reaches the 8 GiB of a ustar size field");
        assert!(pack(&[], &[blob(1, INTEGER_MAX), blob(2, INTEGER_MAX)], VOLUME_SIZE_DEFAULT).is_err());
    }
}
