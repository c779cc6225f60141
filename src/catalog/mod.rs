//! The catalog: SQLite beside the blobs. An index over blobs and records, which are the truth: it can be deleted, and
//! is then made again. Runs and bundles are compared with their records whenever a store is opened; the digests of chunks
//! carry a check. So a catalog that was damaged without SQLite noticing gives an error or is mended, never a wrong number.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::durable;
use crate::error::{Context, Error, REBUILD, Result, Side};
use crate::image::BundleName;
use crate::oci::{Digest, Hasher};

/// Marks the file as a sealift catalog: "seal" in ASCII.
const APPLICATION_ID: i32 = 0x7365_616c;

/// The first SQLite without the WAL-reset bug that can corrupt a database two connections write to.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How long a writer waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The steps from an empty file to the current schema; `user_version` counts those that were taken.
const MIGRATIONS: [&str; 3] =
    [include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql"), include_str!("migrations/0003.sql")];

/// How many bytes of a digest over key and chunks follow the chunks in their row. SQLite has no checksums: a bit that
/// flips in a digest of a chunk would else be signed, and a good blob be blamed for it.
const CHECK_SIZE: usize = 8;

/// File systems over a network, on which SQLite's shared memory does not work (`statfs` magic numbers).
const NETWORK_FILE_SYSTEMS: [(i64, &str); 5] =
    [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB"), (0x0102_1997, "9p"), (0x0bd0_0bd0, "Lustre")];

/// The open catalog of a store.
pub struct Catalog {
    path: PathBuf,
    connection: Mutex<Connection>,
}

impl Catalog {
    /// Opens the catalog at `path`, creating or migrating it.
    ///
    /// Refuses a file of another program, one of a newer sealift, and network file systems; never repairs.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_inner(path).on(Side::Store).while_(|| format!("open catalog {}", path.display()))
    }

    fn open_inner(path: &Path) -> Result<Self> {
        if rusqlite::version_number() < SQLITE_VERSION_MIN {
            return Err(Error::failed(format!("SQLite {} can corrupt a catalog", rusqlite::version()))
                .help("build sealift with the bundled SQLite"));
        }
        refuse_network(path)?;
        let mut connection = Connection::open(path)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // Not FULL: what a power loss takes is computed again, or found in the records when the store is opened next.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
                 PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;",
        )?;
        migrate(path, &mut connection)?;
        Ok(Catalog { path: path.to_owned(), connection: Mutex::new(connection) })
    }

    /// Every run that is noted: stream and number.
    pub fn runs(&self) -> Result<BTreeSet<(String, u64)>> {
        let connection = self.connection();
        let mut query = connection.prepare("SELECT stream, number FROM runs")?;
        let runs = query.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned())))?;
        Ok(runs.collect::<rusqlite::Result<_>>()?)
    }

    /// Every number of a bundle that is noted.
    pub fn bundles(&self) -> Result<BTreeSet<BundleName>> {
        let connection = self.connection();
        let mut query = connection.prepare("SELECT stream, epoch, sequence FROM bundles")?;
        let bundles = query.query_map([], |row| {
            let (epoch, sequence) = (row.get::<_, i64>(1)?.cast_unsigned(), row.get::<_, i64>(2)?.cast_unsigned());
            Ok(BundleName { stream: row.get(0)?, epoch, sequence })
        })?;
        Ok(bundles.collect::<rusqlite::Result<_>>()?)
    }

    /// Notes runs and bundles whose records are durable: all of them, or none.
    pub fn put_all(&self, runs: &[(String, u64)], bundles: &[BundleName]) -> Result<()> {
        let mut connection = self.changing()?;
        let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for (stream, number) in runs {
            insert_run(&transaction, stream, *number)?;
        }
        for name in bundles {
            insert_bundle(&transaction, name)?;
        }
        Ok(transaction.commit()?)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic while it was held rolled its transaction back: the connection is usable.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, for a change.
    fn changing(&self) -> Result<MutexGuard<'_, Connection>> {
        durable::before_commit(&self.path)?;
        Ok(self.connection())
    }

    /// Notes a blob that is durable, with the digests of its chunks. After a power loss the rows of the last moments may be
    /// missing, and are computed again.
    pub fn put_blob(&self, digest: &Digest, size: u64, chunks: &[u8]) -> Result<()> {
        let chunks = [chunks, &check(digest, chunks)].concat();
        self.changing()?
            .prepare_cached("INSERT OR REPLACE INTO blobs (digest, size, chunks) VALUES (?1, ?2, ?3)")?
            .execute(params![key(digest), size.cast_signed(), chunks])?;
        Ok(())
    }

    /// The digests of the chunks of a blob, 32 bytes each; `None` where they have to be computed again, as when the row is not
    /// what was written.
    pub fn chunks(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let connection = self.connection();
        let mut query = connection.prepare_cached("SELECT chunks FROM blobs WHERE digest = ?1")?;
        let found: Option<Vec<u8>> = query.query_row(params![key(digest)], |row| row.get(0)).optional()?;
        let Some(mut chunks) = found else { return Ok(None) };
        let found = chunks.split_off(chunks.len().saturating_sub(CHECK_SIZE));
        Ok((found == check(digest, &chunks)).then_some(chunks))
    }

    /// Notes a run whose record is durable.
    pub fn put_run(&self, stream: &str, number: u64) -> Result<()> {
        let connection = self.changing()?;
        insert_run(&connection, stream, number)
    }

    /// The number of the latest run of `stream`.
    pub fn latest_run(&self, stream: &str) -> Result<Option<u64>> {
        let connection = self.connection();
        let mut query = connection.prepare_cached("SELECT MAX(number) FROM runs WHERE stream = ?1")?;
        let number: Option<i64> = query.query_row(params![stream], |row| row.get(0))?;
        Ok(number.map(i64::cast_unsigned))
    }

    /// The names of all streams that have a run.
    pub fn streams(&self) -> Result<Vec<String>> {
        let connection = self.connection();
        let mut query = connection.prepare_cached("SELECT DISTINCT stream FROM runs ORDER BY stream")?;
        let streams = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        Ok(streams)
    }

    /// What `index.json` lists of `stream`, and as of which run; `None` where it has to be made again, as when the row is not
    /// what was written.
    pub fn listing(&self, stream: &str) -> Result<Option<(u64, String)>> {
        let connection = self.connection();
        let mut query = connection.prepare_cached("SELECT run, entries, \"check\" FROM listings WHERE stream = ?1")?;
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?, row.get(2)?));
        let found: Option<(u64, String, Vec<u8>)> = query.query_row(params![stream], row).optional()?;
        let right = found.filter(|(run, entries, check)| *check == listing_check(stream, *run, entries));
        Ok(right.map(|(run, entries, _)| (run, entries)))
    }

    /// Notes what `index.json` lists of `stream` as of `run`.
    pub fn put_listing(&self, stream: &str, run: u64, entries: &str) -> Result<()> {
        self.changing()?
            .prepare_cached(
                "INSERT OR REPLACE INTO listings (stream, run, entries, \"check\") VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![stream, run.cast_signed(), entries, listing_check(stream, run, entries)])?;
        Ok(())
    }

    /// Notes a number that was given to a bundle.
    pub fn put_bundle(&self, name: &BundleName) -> Result<()> {
        let connection = self.changing()?;
        insert_bundle(&connection, name)
    }

    /// The highest number of `stream`: epoch and sequence.
    pub fn latest_bundle(&self, stream: &str) -> Result<Option<(u64, u64)>> {
        Ok(self
            .connection()
            .query_row(
                "SELECT epoch, sequence FROM bundles WHERE stream = ?1 ORDER BY epoch DESC, sequence DESC LIMIT 1",
                params![stream],
                |row| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned())),
            )
            .optional()?)
    }
}

fn insert_run(connection: &Connection, stream: &str, number: u64) -> Result<()> {
    let mut insert = connection.prepare_cached("INSERT OR REPLACE INTO runs (stream, number) VALUES (?1, ?2)")?;
    insert.execute(params![stream, number.cast_signed()])?;
    Ok(())
}

fn insert_bundle(connection: &Connection, name: &BundleName) -> Result<()> {
    let mut insert =
        connection.prepare_cached("INSERT OR REPLACE INTO bundles (stream, epoch, sequence) VALUES (?1, ?2, ?3)")?;
    insert.execute(params![name.stream, name.epoch.cast_signed(), name.sequence.cast_signed()])?;
    Ok(())
}

/// What follows the digests of the chunks of a blob.
fn check(digest: &Digest, chunks: &[u8]) -> Vec<u8> {
    check_of(&[&key(digest), chunks])
}

/// What stands beside a listing.
fn listing_check(stream: &str, run: u64, entries: &str) -> Vec<u8> {
    check_of(&[stream.as_bytes(), &run.to_be_bytes(), entries.as_bytes()])
}

fn check_of(parts: &[&[u8]]) -> Vec<u8> {
    let mut hasher = Hasher::sha256();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finish().bytes().iter().take(CHECK_SIZE).copied().collect()
}

fn key(digest: &Digest) -> Vec<u8> {
    let algorithm = match digest {
        Digest::Sha256(_) => 1,
        Digest::Sha512(_) => 2,
    };
    let mut key = vec![algorithm];
    key.extend_from_slice(digest.bytes());
    key
}

/// Brings the schema up to date in one transaction.
fn migrate(path: &Path, connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let pragma = |name: &str| transaction.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let fresh = application == 0 && version == 0;
    if !fresh && application != APPLICATION_ID {
        return Err(Error::failed("the file is a database of another program")
            .help(format!("if this is a store, {REBUILD}; else choose another folder with --store")));
    }
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        return Err(Error::failed("the catalog was written by a newer sealift")
            .help(format!("use that version, or a newer one; if there was none, {REBUILD}")));
    }
    for step in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    durable::before_commit(path)?;
    transaction.commit()?;
    Ok(())
}

fn refuse_network(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let Ok(found) = rustix::fs::statfs(folder) else { return Ok(()) };
    #[allow(clippy::unnecessary_cast, reason = "the type of f_type differs between architectures")]
    let magic = found.f_type as i64;
    match NETWORK_FILE_SYSTEMS.iter().find(|(number, _)| *number == magic & 0xffff_ffff) {
        Some((_, name)) => {
            Err(Error::failed(format!("{name} cannot hold a catalog: SQLite needs a local file system"))
                .help("put the store on a local file system"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(sequence: u64) -> BundleName {
        BundleName { stream: "s".into(), epoch: 1, sequence }
    }

    #[test]
    fn rows_survive_and_foreign_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.sqlite3");
        let digest = Digest::of(b"x");
        {
            let catalog = Catalog::open(&path).unwrap();
            catalog.put_blob(&digest, 1, &[7; 32]).unwrap();
            catalog.put_all(&[("s".into(), 3)], &[bundle(9), bundle(10)]).unwrap();
        }
        let catalog = Catalog::open(&path).unwrap();
        assert_eq!(catalog.latest_run("s").unwrap(), Some(3));
        assert_eq!(catalog.chunks(&digest).unwrap(), Some(vec![7; 32]));
        assert_eq!(catalog.latest_bundle("s").unwrap(), Some((1, 10)));
        let other = folder.path().join("other.sqlite3");
        Connection::open(&other).unwrap().execute_batch("PRAGMA application_id = 7; CREATE TABLE t (x)").unwrap();
        assert!(Catalog::open(&other).is_err());
        let noise = folder.path().join("noise.sqlite3");
        std::fs::write(&noise, vec![0x55; 8192]).unwrap();
        let error = Catalog::open(&noise).err().unwrap();
        assert!(error.help_text().unwrap().contains("--rebuild"), "{error:?}");
    }

    #[test]
    fn a_row_that_is_not_what_was_written_counts_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&folder.path().join("catalog.sqlite3")).unwrap();
        let (digest, other) = (Digest::of(b"x"), Digest::of(b"y"));
        let update = |sql: &str| catalog.connection().execute(sql, []).unwrap();
        catalog.put_blob(&digest, 1, &[7; 32]).unwrap();
        catalog.put_blob(&other, 1, &[8; 32]).unwrap();
        update("UPDATE blobs SET chunks = (SELECT chunks FROM blobs AS b WHERE b.digest != blobs.digest)");
        assert_eq!(catalog.chunks(&digest).unwrap(), None, "the row of another blob");
        catalog.put_blob(&digest, 1, &[7; 32]).unwrap();
        assert_eq!(catalog.chunks(&digest).unwrap(), Some(vec![7; 32]));
        update("UPDATE blobs SET chunks = zeroblob(40)");
        assert_eq!(catalog.chunks(&digest).unwrap(), None);
        update("UPDATE blobs SET chunks = x'01'");
        assert_eq!(catalog.chunks(&digest).unwrap(), None);
    }
}
