//! [`Place`]: where a layout goes, in which form, and what is there already.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::LayoutContents;
use crate::durable;
use crate::error::{Context, Error, Result, Side};

/// What a layout is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub enum Form {
    /// A folder.
    #[serde(rename = "folder")]
    Folder,
    /// A tar archive.
    #[serde(rename = "tar")]
    Tar,
    /// The same, compressed with gzip.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// The same, compressed with zstd.
    #[serde(rename = "tar.zst")]
    TarZst,
}

/// Endings of archives, by the form that they stand for.
const ENDINGS: [(&str, Form); 3] = [(".tar", Form::Tar), (".tar.gz", Form::TarGz), (".tar.zst", Form::TarZst)];

/// Endings that are no form: whoever writes one of them does not want a folder.
const OTHER_ENDINGS: [&str; 12] =
    [".tgz", ".tzst", ".tbz2", ".txz", ".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip", ".7z", ".oci"];

/// Of how many bytes that cannot be compressed one more may come; measured: of 3 000 with gzip, of 40 000 with zstd.
const COMPRESSED_MORE: u64 = 1000;

/// Where a layout goes.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its final name.
    pub path: PathBuf,
    /// What the name says that it is.
    pub form: Form,
    /// Whether something is there already: then it is compared and never touched.
    pub there: bool,
}

impl Place {
    /// Looks at `path`, whose ending names the form. Fails when something is there that this export cannot have written.
    pub fn of(path: &Path) -> Result<Self> {
        // Without a slash at its end, which would make another name of `PATH.partial`.
        let path: PathBuf = path.components().collect();
        let Some(name) = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()) else {
            return Err(Error::usage(format!("{} has no name of its own", path.display()))
                .on(Side::Layout)
                .help("name a folder or a file that does not exist yet"));
        };
        let form = form_of(&name).ok_or_else(|| {
            Error::usage(format!("no layout can be written as {}", path.display()))
                .on(Side::Layout)
                .help("end the name with .tar, .tar.gz or .tar.zst for an archive, or with none of these for a folder")
        })?;
        let there = match path.symlink_metadata() {
            Ok(found) if form == Form::Folder && found.is_dir() => there_in_folder(&path, found.dev())?,
            Ok(found) if form != Form::Folder && found.is_file() => true,
            Ok(_) => return Err(other_contents(&path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) => {
                return Err(Error::from(error).while_(format!("look at {}", path.display())).on(Side::Layout));
            }
        };
        Ok(Place { path, form, there })
    }

    /// The name that it has until it is whole.
    pub fn partial(&self) -> PathBuf {
        durable::with_suffix(&self.path, ".partial")
    }

    /// The folder in which it gets its name.
    pub fn parent(&self) -> &Path {
        self.path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
    }

    /// How many bytes more `contents` needs here at the most. What an interrupted export left is gone on with, written over, or
    /// removed before anything else is written: all of it counts.
    pub fn wanted(&self, contents: &LayoutContents) -> u64 {
        if self.there {
            return 0;
        }
        let size = match self.form {
            Form::Folder => contents.size(),
            form => archive_size_max(form, contents),
        };
        size.saturating_sub(length_below(&self.partial(), LAYOUT_DEPTH))
    }
}

/// How deep the files of a layout lie as a folder: `blobs/sha256/<hex>`.
const LAYOUT_DEPTH: usize = 3;

/// How many bytes a file has, or all files of a folder down to `depth`. What cannot be looked at counts nothing.
fn length_below(path: &Path, depth: usize) -> u64 {
    match path.symlink_metadata() {
        Ok(found) if found.is_file() => found.len(),
        Ok(found) if found.is_dir() && depth > 0 => {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| length_below(&entry.path(), depth - 1)).fold(0, u64::saturating_add)
        }
        _ => 0,
    }
}

/// How long an archive may become. Compression is not counted on: layers are compressed already, and what cannot be made
/// shorter becomes a little longer.
fn archive_size_max(form: Form, contents: &LayoutContents) -> u64 {
    const BLOCK: u64 = 512;
    let member = |path: &str, size: u64| {
        let long_name = if path.len() > tar::Header::new_ustar().as_old().name.len() { 2 * BLOCK } else { 0 };
        long_name + BLOCK + size.next_multiple_of(BLOCK)
    };
    let files = contents.files.iter().map(|(path, bytes)| member(path, bytes.len() as u64));
    let blobs = contents.blobs.iter().map(|blob| member(&blob.digest.layout_path(), blob.size));
    let plain = files.chain(blobs).fold(2 * BLOCK, u64::saturating_add);
    match form {
        Form::Folder | Form::Tar => plain,
        Form::TarGz | Form::TarZst => plain.saturating_add(plain / COMPRESSED_MORE + BLOCK),
    }
}

fn form_of(name: &str) -> Option<Form> {
    match ENDINGS.iter().find(|(ending, _)| name.ends_with(ending)) {
        Some((_, form)) => Some(*form),
        None => (!OTHER_ENDINGS.iter().any(|ending| name.ends_with(ending))).then_some(Form::Folder),
    }
}

/// Whether the folder holds something. An empty one is replaced by the layout, which a mounted one cannot be.
fn there_in_folder(path: &Path, device: u64) -> Result<bool> {
    let mut entries = std::fs::read_dir(path).on(Side::Layout).while_(|| format!("look at {}", path.display()))?;
    if entries.next().is_some() {
        return Ok(true);
    }
    let above = path.join("..").metadata().on(Side::Layout).while_(|| format!("look at {}", path.display()))?;
    if above.dev() != device {
        return Err(Error::usage(format!("{} is where a file system is mounted", path.display()))
            .on(Side::Layout)
            .help("name a new folder below it"));
    }
    Ok(false)
}

/// Something else bears the name.
pub(super) fn other_contents(path: &Path) -> Error {
    Error::failed(format!("{} is there already, with other contents", path.display()))
        .on(Side::Layout)
        .help("what is there is never modified: remove it, or choose another name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::oci::{Descriptor, MediaType};

    #[test]
    fn the_ending_names_the_form() {
        let folder = tempfile::tempdir().unwrap();
        let form = |name: &str| Place::of(&folder.path().join(name)).map(|place| (place.form, place.path));
        let at = |name: &str| folder.path().join(name);
        assert_eq!(form("x").unwrap(), (Form::Folder, at("x")));
        assert_eq!(form("x.d/").unwrap(), (Form::Folder, at("x.d")));
        assert_eq!(form("base-1.2").unwrap(), (Form::Folder, at("base-1.2")));
        assert_eq!(form("x.tar").unwrap(), (Form::Tar, at("x.tar")));
        assert_eq!(form("x.TAR.GZ").unwrap(), (Form::TarGz, at("x.TAR.GZ")));
        assert_eq!(form("x.tar.zst").unwrap(), (Form::TarZst, at("x.tar.zst")));
        for name in ["x.tgz", "x.tar.xz", "x.zip", "x.zst", ".."] {
            assert_eq!(form(name).unwrap_err().kind(), Kind::Usage, "{name}");
        }
    }

    #[test]
    fn what_an_interrupted_export_left_counts() {
        let folder = tempfile::tempdir().unwrap();
        let blobs: Vec<Descriptor> =
            [&b"first"[..], b"second"].map(|bytes| Descriptor::of(MediaType::OCTET_STREAM, bytes)).into();
        let path = blobs[1].digest.layout_path();
        let contents = LayoutContents::new(b"{}".to_vec(), b"[]".to_vec(), blobs);
        let all = crate::image::OCI_LAYOUT.len() as u64 + 2 + 2 + 5 + 6;
        let wanted = |name: &str| Place::of(&folder.path().join(name)).unwrap().wanted(&contents);
        let tar = 5 * 2 * 512 + 1024;
        assert_eq!((wanted("x"), wanted("x.tar"), wanted("x.tar.gz")), (all, tar, tar + 6 + 512));
        std::fs::create_dir_all(folder.path().join("x.partial/blobs/sha256")).unwrap();
        let partial = folder.path().join("x.partial");
        std::fs::write(partial.join(&path), "second").unwrap();
        std::fs::write(partial.join(path + ".partial"), "sec").unwrap();
        std::fs::write(partial.join("blobs/sha256/of-another-content"), "1234").unwrap();
        std::fs::write(folder.path().join("x.tar.partial"), "0123456789").unwrap();
        assert_eq!((wanted("x"), wanted("x.tar")), (all - 6 - 3 - 4, tar - 10));
        std::fs::write(folder.path().join("x.tar"), "").unwrap();
        assert_eq!(wanted("x.tar"), 0);
    }

    #[test]
    fn what_is_there_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("empty")).unwrap();
        std::fs::create_dir(at("full")).unwrap();
        std::fs::write(at("full/x"), "").unwrap();
        std::fs::write(at("x.tar"), "").unwrap();
        std::os::unix::fs::symlink(at("full"), at("link")).unwrap();
        std::fs::create_dir(at("folder.tar")).unwrap();
        let there = |name: &str| Place::of(&at(name)).map(|place| place.there).map_err(|error| error.kind());
        assert_eq!(there("nothing"), Ok(false));
        assert_eq!(there("empty"), Ok(false));
        assert_eq!(there("full"), Ok(true));
        assert_eq!(there("x.tar"), Ok(true));
        assert_eq!(there("link"), Err(Kind::Failed));
        assert_eq!(there("folder.tar"), Err(Kind::Failed));
    }
}
