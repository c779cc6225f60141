//! The catalog: SQLite beside the blobs. An index over blobs and records, which are the truth: it can be deleted, and
//! is then made again.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::error::{Context, Error, Result, Side};
use crate::oci::Digest;

/// Marks the file as a sealift catalog: "seal" in ASCII.
const APPLICATION_ID: i32 = 0x7365_616c;

/// The first SQLite without the WAL-reset bug that can corrupt a database two connections write to.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How long a writer waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// The steps from an empty file to the current schema; `user_version` counts those that were taken.
const MIGRATIONS: [&str; 2] = [include_str!("migrations/0001.sql"), include_str!("migrations/0002.sql")];

/// File systems over a network, on which SQLite's shared memory does not work (`statfs` magic numbers).
const NETWORK_FILE_SYSTEMS: [(i64, &str); 5] =
    [(0x6969, "NFS"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB"), (0x0102_1997, "9p"), (0x0bd0_0bd0, "Lustre")];

/// The open catalog of a store.
pub struct Catalog {
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
        let mut connection = Connection::open(path).map_err(damaged)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;
                 PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;",
            )
            .map_err(damaged)?;
        migrate(&mut connection)?;
        Ok(Catalog { connection: Mutex::new(connection) })
    }

    /// Whether the catalog knows what the records say. Not so when its file is new, or when filling it was cut short.
    pub fn is_filled(&self) -> Result<bool> {
        Ok(self.connection().query_row("SELECT EXISTS (SELECT 1 FROM filled)", [], |row| row.get(0))?)
    }

    /// Notes that the catalog knows what the records say.
    pub fn set_filled(&self) -> Result<()> {
        self.durably(|connection| connection.execute("INSERT INTO filled (at) VALUES (datetime('now'))", [])).map(drop)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic while it was held rolled its transaction back: the connection is usable.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes everything that `work` notes one transaction, so that it is synced once.
    pub fn together(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        self.connection().execute_batch("PRAGMA synchronous = FULL; BEGIN IMMEDIATE")?;
        let done = work();
        let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
        self.connection().execute_batch(&format!("{end}; PRAGMA synchronous = NORMAL"))?;
        done
    }

    /// Does `work` with a full sync, so that a power loss cannot take it back.
    fn durably<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let connection = self.connection();
        if !connection.is_autocommit() {
            return Ok(work(&connection)?);
        }
        connection.execute_batch("PRAGMA synchronous = FULL")?;
        let done = work(&connection);
        connection.execute_batch("PRAGMA synchronous = NORMAL")?;
        Ok(done?)
    }

    /// Notes a blob that is durable, with the digests of its chunks. Not synced by itself, for it is written once for each
    /// blob of a pull: after a power loss the rows of the last moments may be missing, and are computed again.
    pub fn put_blob(&self, digest: &Digest, size: u64, chunks: &[u8]) -> Result<()> {
        self.connection()
            .prepare_cached("INSERT OR REPLACE INTO blobs (digest, size, chunks) VALUES (?1, ?2, ?3)")?
            .execute(params![key(digest), size.cast_signed(), chunks])?;
        Ok(())
    }

    /// The digests of the chunks of a blob, 32 bytes each; `None` where they have to be computed again.
    pub fn chunks(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let connection = self.connection();
        let mut query = connection.prepare_cached("SELECT chunks FROM blobs WHERE digest = ?1")?;
        Ok(query.query_row(params![key(digest)], |row| row.get(0)).optional()?)
    }

    /// Notes a run whose record is durable.
    pub fn put_run(&self, stream: &str, number: u64, started: &str) -> Result<()> {
        self.durably(|connection| {
            connection
                .prepare_cached("INSERT OR REPLACE INTO runs (stream, number, started) VALUES (?1, ?2, ?3)")?
                .execute(params![stream, number.cast_signed(), started])
        })
        .map(drop)
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

    /// What `index.json` lists of `stream`, and as of which run.
    pub fn listing(&self, stream: &str) -> Result<Option<(u64, String)>> {
        let connection = self.connection();
        let mut query = connection.prepare_cached("SELECT run, entries FROM listings WHERE stream = ?1")?;
        let row = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get(1)?));
        Ok(query.query_row(params![stream], row).optional()?)
    }

    /// The run as of which `index.json` lists `stream`.
    pub fn listed_run(&self, stream: &str) -> Result<Option<u64>> {
        let connection = self.connection();
        let mut query = connection.prepare_cached("SELECT run FROM listings WHERE stream = ?1")?;
        let run = query.query_row(params![stream], |row| row.get::<_, i64>(0)).optional()?;
        Ok(run.map(i64::cast_unsigned))
    }

    /// Notes what `index.json` lists of `stream` as of `run`.
    pub fn put_listing(&self, stream: &str, run: u64, entries: &str) -> Result<()> {
        self.connection()
            .prepare_cached("INSERT OR REPLACE INTO listings (stream, run, entries) VALUES (?1, ?2, ?3)")?
            .execute(params![stream, run.cast_signed(), entries])?;
        Ok(())
    }

    /// Notes a number that was given to a bundle.
    pub fn put_bundle(&self, stream: &str, epoch: u64, sequence: u64, digest: &Digest) -> Result<()> {
        self.durably(|connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO bundles (stream, epoch, sequence, digest) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![stream, epoch.cast_signed(), sequence.cast_signed(), digest.to_string()])
        })
        .map(drop)
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
fn migrate(connection: &mut Connection) -> Result<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let pragma = |name: &str| transaction.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i32>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let fresh = application == 0 && version == 0;
    if !fresh && application != APPLICATION_ID {
        return Err(
            Error::failed("the file is a database of another program").help("choose another folder with --store")
        );
    }
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    if done > MIGRATIONS.len() {
        return Err(
            Error::failed("the catalog was written by a newer sealift").help("use that version, or a newer one")
        );
    }
    for step in MIGRATIONS.iter().skip(done) {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    transaction.commit()?;
    Ok(())
}

fn damaged(error: rusqlite::Error) -> Error {
    let help = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::NotADatabase | rusqlite::ErrorCode::DatabaseCorrupt) => Some(
            "move the catalog (catalog.sqlite3 and its -wal and -shm files) out of the store and run again: it is made anew from the blobs and records",
        ),
        _ => None,
    };
    let error = Error::from(error);
    match help {
        Some(help) => error.help(help),
        None => error,
    }
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

    #[test]
    fn rows_survive_and_foreign_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("catalog.sqlite3");
        let digest = Digest::of(b"x");
        {
            let catalog = Catalog::open(&path).unwrap();
            assert!(!catalog.is_filled().unwrap());
            catalog.set_filled().unwrap();
            catalog.put_blob(&digest, 1, &[7; 32]).unwrap();
            catalog.put_bundle("s", 1, 9, &digest).unwrap();
            catalog.put_bundle("s", 1, 10, &digest).unwrap();
        }
        let catalog = Catalog::open(&path).unwrap();
        assert!(catalog.is_filled().unwrap());
        assert_eq!(catalog.chunks(&digest).unwrap(), Some(vec![7; 32]));
        assert_eq!(catalog.latest_bundle("s").unwrap(), Some((1, 10)));
        let other = folder.path().join("other.sqlite3");
        Connection::open(&other).unwrap().execute_batch("PRAGMA application_id = 7; CREATE TABLE t (x)").unwrap();
        assert!(Catalog::open(&other).is_err());
        let noise = folder.path().join("noise.sqlite3");
        std::fs::write(&noise, vec![0x55; 8192]).unwrap();
        let error = Catalog::open(&noise).err().unwrap();
        assert!(error.help_text().unwrap().contains("made anew"), "{error:?}");
    }
}
