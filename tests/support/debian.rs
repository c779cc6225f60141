//! [`debian_busybox_image`]: a true multi-platform image from real packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use sealift::sample::{ImageBuilder, SampleImage};

/// Architecture of Debian, architecture and variant of images.
const PLATFORMS: [(&str, &str, &str); 3] = [("amd64", "amd64", ""), ("arm64", "arm64", "v8"), ("s390x", "s390x", "")];

/// An index of three platforms; the layer of each is the content of Debian's `busybox-static`, with an attestation.
/// `None` when the test is to be skipped: the packages are not in `$SEALIFT_TEST_DEBS` or `target/test-debs`, where
/// `tests/fetch-debs` puts them.
pub fn debian_busybox_image() -> Option<SampleImage> {
    if !super::have(&["dpkg-deb"]) {
        return None;
    }
    let folder = std::env::var_os("SEALIFT_TEST_DEBS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-debs"), PathBuf::from);
    let mut image = ImageBuilder::new().command(&["/bin/busybox", "uname", "-m"]);
    for (debian, architecture, variant) in PLATFORMS {
        let Some(package) = find(&folder, &format!("_{debian}.deb")) else {
            super::skip(&format!("busybox-static for {debian} is not in {}; run tests/fetch-debs", folder.display()));
            return None;
        };
        let unpacked = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&package).output().unwrap();
        assert!(unpacked.status.success(), "{}: {}", package.display(), String::from_utf8_lossy(&unpacked.stderr));
        image = image.platform("linux", architecture, variant).layer_archive(unpacked.stdout).attestation();
    }
    Some(image.build().unwrap())
}

fn find(folder: &Path, end: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let mut found: Vec<PathBuf> = entries
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("busybox-static_") && name.ends_with(end)
        })
        .collect();
    found.sort();
    found.pop()
}
