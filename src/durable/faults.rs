//! Disks that fill up, fail, and lose power: what tests put below [`super::disk`].
//!
//! A [`World`] watches a folder. It counts the operations below it, lets the Nth fail or stops everything at it, and knows
//! what a power loss would leave: of each file what was synced, of each folder the names that were. Both are lost apart
//! from each other: a file system may keep a name and lose the bytes, or the other way round.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};

use rustix::io::Errno;

use super::disk::Op;

static WORLDS: RwLock<Vec<Weak<World>>> = RwLock::new(Vec::new());

/// What happens at the Nth operation, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It does not happen (half of a write does), and nothing after it: the process is gone.
    Stop(u64),
    /// It fails with this error number; half of a write is done.
    Once(u64, i32),
    /// It fails, and so does every later one that needs room.
    Full(u64),
    /// It fails with this error number, and so does every later one.
    Forever(u64, i32),
}

impl Fault {
    fn at(self) -> u64 {
        match self {
            Fault::None => u64::MAX,
            Fault::Stop(at) | Fault::Once(at, _) | Fault::Full(at) | Fault::Forever(at, _) => at,
        }
    }
}

/// What a power loss takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: the process was killed.
    Nothing,
    /// Unsynced bytes are zeros; lengths stay.
    Bytes,
    /// Unsynced bytes are gone; what was cut off and not synced is back.
    Lengths,
    /// Names that were not synced are gone, or back.
    Names,
    /// Lengths and names.
    All,
}

pub const LOSSES: [Loss; 5] = [Loss::Nothing, Loss::Bytes, Loss::Lengths, Loss::Names, Loss::All];

/// A watched folder, until it is dropped.
pub struct World {
    root: PathBuf,
    disk: Mutex<Disk>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

/// What of a file would survive.
#[derive(Default)]
struct Kept {
    /// How many of its bytes were synced, and not cut off since.
    synced: u64,
    /// What lay behind them when they were synced.
    tail: Vec<u8>,
    /// All of it, once it has no name any more.
    nameless: Option<Vec<u8>>,
}

struct Disk {
    fault: Fault,
    operations: u64,
    stopped: bool,
    /// The names as they are.
    now: BTreeMap<PathBuf, Node>,
    /// The names as they were synced.
    durable: BTreeMap<PathBuf, Node>,
    files: Vec<Kept>,
}

impl World {
    /// Watches `root`: what lies there is taken for durable.
    pub fn watch(root: &Path, fault: Fault) -> Arc<World> {
        let mut disk = Disk {
            fault,
            operations: 0,
            stopped: false,
            now: BTreeMap::new(),
            durable: BTreeMap::new(),
            files: Vec::new(),
        };
        disk.add_all(root);
        disk.durable.clone_from(&disk.now);
        let world = Arc::new(World { root: root.to_owned(), disk: Mutex::new(disk) });
        let mut worlds = WORLDS.write().unwrap();
        worlds.retain(|world| world.strong_count() > 0);
        worlds.push(Arc::downgrade(&world));
        world
    }

    fn of(path: &Path) -> Option<Arc<World>> {
        let worlds = WORLDS.read().unwrap();
        worlds.iter().filter_map(Weak::upgrade).find(|world| path.starts_with(&world.root))
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Whether the fault came.
    pub fn met(&self) -> bool {
        let disk = self.lock();
        disk.operations >= disk.fault.at()
    }

    /// Stops everything from here on, as when the process is killed.
    pub fn stop(&self) {
        self.lock().stopped = true;
    }

    /// From here on nothing is disturbed: another process begins. What was not synced before still is not.
    pub fn revive(&self) {
        let mut disk = self.lock();
        (disk.fault, disk.stopped) = (Fault::None, false);
    }

    /// Makes `into`, which must not be there, what is found after a power loss now.
    pub fn after(&self, loss: Loss, into: &Path) {
        let disk = self.lock();
        fs::create_dir(into).unwrap();
        let names = if matches!(loss, Loss::Names | Loss::All) { &disk.durable } else { &disk.now };
        let paths: HashMap<usize, &PathBuf> = disk
            .now
            .iter()
            .filter_map(|(path, node)| if let Node::File(id) = node { Some((*id, path)) } else { None })
            .collect();
        for (path, node) in names {
            let place = into.join(path.strip_prefix(&self.root).unwrap());
            if !place.parent().is_some_and(Path::is_dir) {
                continue;
            }
            match node {
                Node::Folder => fs::create_dir(&place).unwrap(),
                Node::File(id) => {
                    let kept = &disk.files[*id];
                    let there = paths.get(id).map(|path| fs::read(path).unwrap());
                    let bytes = there.or_else(|| kept.nameless.clone()).unwrap();
                    fs::write(&place, kept.after(loss, bytes)).unwrap();
                }
            }
        }
        // A database may lose its latest changes with the power: here it loses all of them, which is worse.
        if loss != Loss::All {
            copy_others(&self.root, &disk.now, &self.root, into);
        }
    }
}

/// Copies what is none of this layer's: databases keep their own promises.
fn copy_others(root: &Path, known: &BTreeMap<PathBuf, Node>, folder: &Path, into: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let place = into.join(path.strip_prefix(root).unwrap());
        if path.is_dir() {
            copy_others(root, known, &path, into);
        } else if !known.contains_key(&path) && place.parent().is_some_and(Path::is_dir) {
            fs::copy(&path, &place).unwrap();
        }
    }
}

impl Kept {
    fn after(&self, loss: Loss, mut bytes: Vec<u8>) -> Vec<u8> {
        let synced = usize::try_from(self.synced).unwrap().min(bytes.len());
        match loss {
            Loss::Nothing | Loss::Names => {}
            Loss::Bytes => bytes[synced..].fill(0),
            Loss::Lengths | Loss::All => {
                bytes.truncate(synced);
                bytes.extend_from_slice(&self.tail);
            }
        }
        bytes
    }
}

/// Does `act`, unless a world has other plans.
pub(super) fn step<T>(op: Op<'_>, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Some(world) = World::of(op.path()) else { return act() };
    let mut disk = world.lock();
    disk.operations += 1;
    if let Some(error) = disk.verdict(&op) {
        disk.half(&op);
        return Err(error);
    }
    disk.before(&op);
    let done = act();
    if done.is_ok() {
        disk.happened(&op);
    }
    done
}

impl Op<'_> {
    fn path(&self) -> &Path {
        match self {
            Op::Open(path)
            | Op::Write(path, ..)
            | Op::SetLen(path, _)
            | Op::Sync(path, _)
            | Op::Rename(path, _)
            | Op::Remove(path)
            | Op::CreateFolder(path)
            | Op::SyncFolder(path)
            | Op::Mode(path)
            | Op::Commit(path) => path,
        }
    }

    fn needs_room(&self) -> bool {
        matches!(self, Op::Open(_) | Op::Write(..) | Op::Rename(..) | Op::CreateFolder(_) | Op::Commit(_))
    }
}

impl Disk {
    fn add_all(&mut self, folder: &Path) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                self.add_all(&path);
                self.now.insert(path, Node::Folder);
            } else if !is_database(&path) {
                let synced = path.metadata().unwrap().len();
                self.add(path, synced);
            }
        }
    }

    fn add(&mut self, path: PathBuf, synced: u64) {
        self.files.push(Kept { synced, ..Kept::default() });
        self.now.insert(path, Node::File(self.files.len() - 1));
    }

    fn file(&mut self, path: &Path) -> Option<&mut Kept> {
        match self.now.get(path) {
            Some(Node::File(id)) => self.files.get_mut(*id),
            _ => None,
        }
    }

    fn verdict(&mut self, op: &Op<'_>) -> Option<io::Error> {
        let (at, now) = (self.fault.at(), self.operations);
        let number = match self.fault {
            _ if self.stopped => Some(Errno::IO.raw_os_error()),
            Fault::Stop(_) => (now >= at).then(|| Errno::IO.raw_os_error()),
            Fault::Once(_, number) => (now == at).then_some(number),
            Fault::Full(_) => (now >= at && op.needs_room()).then(|| Errno::NOSPC.raw_os_error()),
            Fault::Forever(_, number) => (now >= at).then_some(number),
            Fault::None => None,
        };
        number.map(io::Error::from_raw_os_error)
    }

    /// What is done of an operation that fails.
    fn half(&mut self, op: &Op<'_>) {
        match op {
            Op::Write(_, file, bytes) if !self.stopped => {
                let mut file: &File = file;
                file.write_all(&bytes[..bytes.len() / 2]).unwrap();
            }
            // The kernel takes pages for clean that it could not write.
            Op::Sync(path, file) if !self.stopped && !matches!(self.fault, Fault::Stop(_)) => {
                let synced = self.file(path).map_or(0, |kept| kept.synced);
                let length = file.metadata().unwrap().len();
                let zeros = vec![0; usize::try_from(length.saturating_sub(synced)).unwrap()];
                file.write_all_at(&zeros, synced).unwrap();
            }
            _ => {}
        }
        self.stopped |= matches!(self.fault, Fault::Stop(_));
    }

    /// Keeps what the operation takes away and a power loss would bring back.
    fn before(&mut self, op: &Op<'_>) {
        match op {
            Op::Remove(path) | Op::Rename(_, path) => {
                if let Some(kept) = self.file(path) {
                    kept.nameless = fs::read(path).ok();
                }
            }
            Op::SetLen(path, length) => {
                let bytes = fs::read(path).unwrap_or_default();
                let Some(kept) = self.file(path) else { return };
                if *length < kept.synced {
                    let (from, to) = (usize::try_from(*length).unwrap(), usize::try_from(kept.synced).unwrap());
                    kept.tail = [&bytes[from..to], &kept.tail].concat();
                    kept.synced = *length;
                }
            }
            _ => {}
        }
    }

    fn happened(&mut self, op: &Op<'_>) {
        match op {
            Op::Open(path) => {
                if !self.now.contains_key(*path) {
                    self.add(path.to_path_buf(), 0);
                }
            }
            Op::Sync(path, file) => {
                let length = file.metadata().unwrap().len();
                if let Some(kept) = self.file(path) {
                    (kept.synced, kept.tail) = (length, Vec::new());
                }
            }
            Op::Rename(from, to) => {
                if let Some(node) = self.now.remove(*from) {
                    self.now.insert(to.to_path_buf(), node);
                }
            }
            Op::Remove(path) => {
                self.now.remove(*path);
            }
            Op::CreateFolder(path) => {
                self.now.insert(path.to_path_buf(), Node::Folder);
            }
            Op::SyncFolder(folder) => {
                self.durable.retain(|path, _| path.parent() != Some(folder));
                let names = self.now.iter().filter(|(path, _)| path.parent() == Some(folder));
                self.durable.extend(names.map(|(path, node)| (path.clone(), *node)));
            }
            Op::Write(..) | Op::SetLen(..) | Op::Mode(_) | Op::Commit(_) => {}
        }
    }
}

fn is_database(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(".sqlite3"))
}
