//! The uploads in flight: bounded in number, forgotten when nobody goes on with them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::fault::{Code, Fault};
use super::path::UUID_GROUPS;
use super::shelf::Upload;
use crate::error::Error;
use crate::oci::digest::to_hex;

/// How many uploads may be in flight. Clients send three to six blobs at once.
pub(super) const UPLOADS_MAX: usize = 256;

/// How long an upload is kept that nobody goes on with.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(15 * 60);

/// How long a request waits for another one that writes to the same upload. After a connection broke off, its
/// last bytes may still be on their way to the disk.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// How soon a client may ask again when too many uploads are in flight, in seconds.
const RETRY_AFTER: &str = "10";

/// An upload; `None` when it was committed, cancelled or spoilt.
type Slot = Arc<AsyncMutex<Option<Box<dyn Upload>>>>;

/// All uploads in flight, by id.
pub(super) struct Sessions {
    entries: Mutex<HashMap<String, Entry>>,
    idle_max: Duration,
}

struct Entry {
    repository: String,
    slot: Slot,
    used: Instant,
}

/// An upload that this request alone may write to.
pub(super) struct Held(OwnedMutexGuard<Option<Box<dyn Upload>>>);

impl Sessions {
    /// A table in which uploads are kept for `idle_max`.
    pub fn new(idle_max: Duration) -> Self {
        Sessions { entries: Mutex::default(), idle_max }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // A panic elsewhere leaves a whole map behind: each change of it is one call.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a new upload in; its id. Forgets idle ones before, and may block while their files are removed.
    pub fn insert(&self, repository: &str, upload: Box<dyn Upload>) -> Result<String, Fault> {
        let id = new_id()?;
        let slot = Arc::new(AsyncMutex::new(Some(upload)));
        let entry = Entry { repository: repository.to_owned(), slot, used: Instant::now() };
        drop(self.take_idle());
        let mut entries = self.entries();
        if entries.len() >= UPLOADS_MAX {
            return Err(Fault::new(Code::TooManyRequests, "too many uploads are in flight")
                .header(axum::http::header::RETRY_AFTER, RETRY_AFTER));
        }
        entries.insert(id.clone(), entry);
        Ok(id)
    }

    /// Takes idle uploads out of the table; they are dropped by the caller, without the lock.
    fn take_idle(&self) -> Vec<Entry> {
        let mut entries = self.entries();
        let idle = |entry: &Entry| entry.used.elapsed() > self.idle_max && entry.slot.try_lock().is_ok();
        let ids: Vec<String> = entries.iter().filter(|(_, entry)| idle(entry)).map(|(id, _)| id.clone()).collect();
        ids.iter().filter_map(|id| entries.remove(id)).collect()
    }

    /// Holds an upload of `repository` for writing, once no other request does.
    pub async fn hold(&self, repository: &str, id: &str) -> Result<Held, Fault> {
        let slot = match self.entries().get_mut(id) {
            Some(entry) if entry.repository == repository => {
                entry.used = Instant::now();
                Arc::clone(&entry.slot)
            }
            _ => return Err(unknown()),
        };
        let held = tokio::time::timeout(WAIT_MAX, slot.lock_owned()).await;
        held.map(Held).map_err(|_| {
            Fault::new(Code::BlobUploadInvalid, "another request is writing to this upload")
                .status(axum::http::StatusCode::CONFLICT)
        })
    }

    /// Says that an upload was just gone on with.
    pub fn touch(&self, id: &str) {
        if let Some(entry) = self.entries().get_mut(id) {
            entry.used = Instant::now();
        }
    }

    /// Forgets an upload.
    pub fn remove(&self, id: &str) {
        self.entries().remove(id);
    }
}

impl Held {
    /// A new upload that is in no table.
    pub fn alone(upload: Box<dyn Upload>) -> Result<Self, Fault> {
        let slot = Arc::new(AsyncMutex::new(Some(upload)));
        slot.try_lock_owned().map(Held).map_err(|error| Error::failed(error.to_string()).into())
    }

    /// The upload.
    pub fn get(&mut self) -> Result<&mut Box<dyn Upload>, Fault> {
        self.0.as_mut().ok_or_else(unknown)
    }

    /// Takes the upload out: for committing, for cancelling, or because a failed write has spoilt it.
    pub fn take(&mut self) -> Result<Box<dyn Upload>, Fault> {
        self.0.take().ok_or_else(unknown)
    }
}

/// A random UUID, which the specification wants in the location of an upload ("Pushing blobs"): 122 random bits that
/// nobody guesses, version 4, variant 1 (RFC 9562, section 5.4).
fn new_id() -> Result<String, Error> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::failed("no random numbers are to be had"))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = to_hex(&bytes);
    let (mut rest, mut groups) = (hex.as_str(), Vec::new());
    for length in UUID_GROUPS {
        let (group, others) = rest.split_at(length);
        groups.push(group);
        rest = others;
    }
    Ok(groups.join("-"))
}

fn unknown() -> Fault {
    Fault::new(Code::BlobUploadUnknown, "there is no such upload; begin again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Result;
    use crate::oci::Digest;
    use crate::serve::Committed;

    struct Nothing;

    impl Upload for Nothing {
        fn write(&mut self, _: &[u8]) -> Result<()> {
            Ok(())
        }

        fn written(&self) -> u64 {
            0
        }

        fn commit(self: Box<Self>, _: &Digest) -> Result<Committed> {
            Ok(Committed::Kept(0))
        }
    }

    #[test]
    fn uploads_in_flight_are_bounded_and_idle_ones_make_room() {
        let full = |idle_max| {
            let sessions = Sessions::new(idle_max);
            for _ in 0..UPLOADS_MAX {
                sessions.insert("a", Box::new(Nothing)).unwrap();
            }
            sessions.insert("a", Box::new(Nothing)).is_ok()
        };
        assert!(!full(IDLE_MAX));
        assert!(full(Duration::ZERO));
    }

    #[tokio::test]
    async fn an_upload_belongs_to_its_repository_and_to_one_request() {
        let sessions = Sessions::new(IDLE_MAX);
        let id = sessions.insert("a", Box::new(Nothing)).unwrap();
        assert!(sessions.hold("b", &id).await.is_err());
        let mut held = sessions.hold("a", &id).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(20), sessions.hold("a", &id)).await.is_err());
        held.take().unwrap();
        drop(held);
        assert!(sessions.hold("a", &id).await.unwrap().get().is_err());
    }
}
