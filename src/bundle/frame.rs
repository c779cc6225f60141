//! The tar frames of a volume: ustar headers that are a function of a name and a length, and nothing else.

use crate::oci::Digest;

/// The unit of tar.
pub(super) const BLOCK: u64 = 512;

/// What ends a volume: two blocks of zeros.
pub(super) const TRAILER: u64 = 2 * BLOCK;

/// The longest part, in bytes: below the 8 GiB of a ustar size field, and a multiple of the chunk size.
pub(super) const PART_MAX: u64 = 8 * 1024 * 1024 * 1024 - crate::content::CHUNK_SIZE;

/// The header block of a member, byte for byte as `docs/bundle-format.md` section 6 has it.
pub(super) fn header(path: &str, length: u64) -> [u8; BLOCK as usize] {
    let mut header = tar::Header::new_ustar();
    // Paths are made by this module and fit; lengths are below 8 GiB.
    let fits = header.set_path(path).is_ok();
    debug_assert!(fits, "{path} does not fit into a ustar header");
    header.set_size(length);
    header.set_mode(0o444);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_entry_type(tar::EntryType::Regular);
    let _ = header.set_device_major(0);
    let _ = header.set_device_minor(0);
    header.set_cksum();
    *header.as_bytes()
}

/// How many zero bytes follow a payload.
pub(super) fn padding(length: u64) -> u64 {
    length.next_multiple_of(BLOCK) - length
}

/// What a member takes in a volume: header, payload, padding.
pub(super) fn member_size(length: u64) -> u64 {
    BLOCK + length.next_multiple_of(BLOCK)
}

/// The name of part `part` (from 0) of a blob that has `parts`.
pub(super) fn member_path(digest: &Digest, part: usize, parts: usize) -> String {
    let hex = digest.hex();
    match (digest, parts) {
        (Digest::Sha256(_), 1) => format!("blobs/sha256/{hex}"),
        (Digest::Sha256(_), _) => format!("parts/sha256/{hex}/{:04}", part + 1),
        (Digest::Sha512(_), _) => {
            let (first, last) = hex.split_at(64);
            format!("parts/sha512/{first}/{last}/{:04}", part + 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_what_the_format_says() {
        let digest = Digest::of(b"");
        let bytes = header(&member_path(&digest, 0, 1), 1234);
        let mut expected = [0u8; 512];
        let mut put = |at: usize, text: &[u8]| expected[at..at + text.len()].copy_from_slice(text);
        put(0, digest.layout_path().as_bytes());
        put(100, b"0000444\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, b"00000002322\0");
        put(136, b"00000000000\0");
        put(156, b"0");
        put(257, b"ustar\x0000");
        put(329, b"0000000\0");
        put(337, b"0000000\0");
        let sum: u32 = expected.iter().map(|&b| u32::from(b)).sum::<u32>() + 8 * 32;
        expected[148..156].copy_from_slice(format!("{sum:07o}\0").as_bytes());
        assert_eq!(bytes, expected);
    }

    #[test]
    fn every_name_fits_and_is_read_back_by_tar() {
        let long = Digest::Sha512([0xab; 64]);
        for path in [member_path(&long, 9998, 9999), member_path(&Digest::of(b"x"), 3, 7), "index.json".to_owned()] {
            let bytes = header(&path, PART_MAX);
            let header = tar::Header::from_byte_slice(&bytes);
            assert_eq!(header.path().unwrap().to_str().unwrap(), path);
            assert_eq!(header.entry_size().unwrap(), PART_MAX);
        }
    }
}
