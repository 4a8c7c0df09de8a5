//! A disk in memory that forgets, on a crash, what was never synced: each sector of an unsynced
//! write survives or doesn't, in any combination. It can fail, and it can be full.

use crate::random::Random;
use agni_core::env::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SECTOR_BYTES: usize = 512;

/// What a crash may or may not undo.
enum Change {
    Written(usize, usize),
    Cut(usize),
}

#[derive(Default)]
struct Image {
    durable: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<Change>,
}

type File = Arc<Mutex<Image>>;

#[derive(Default)]
struct State {
    files: BTreeMap<PathBuf, File>,
    fails: bool,
    full: bool,
}

/// The disk of one node.
#[derive(Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

/// An open file: like a real one it goes on when its name changes.
struct SimFile {
    disk: SimDisk,
    file: File,
}

impl SimDisk {
    /// Syncs fail from now on, as with EIO.
    pub fn fail_syncs(&self) {
        self.state().fails = true;
    }

    /// Nothing can grow from now on.
    pub fn fill(&self) {
        self.state().full = true;
    }

    /// There is room again.
    pub fn make_room(&self) {
        self.state().full = false;
    }

    /// Whether there is no room.
    pub fn is_full(&self) -> bool {
        self.state().full
    }

    /// It works again.
    pub fn heal(&self) {
        let mut state = self.state();
        (state.fails, state.full) = (false, false);
    }

    /// The power goes.
    pub fn crash(&self, random: &mut Random) {
        let mut state = self.state();
        state.fails = false;
        // Each file has a stream of its own: how far a thread got with a file that nobody has
        // begun to use must not change what happens to the others.
        let seed = random.next();
        for (path, file) in &state.files {
            lock(file).crash(&mut Random::new(seed ^ name_hash(path)));
        }
    }

    /// The process died, the machine lives on: what was written stays written.
    pub fn keep_all(&self) {
        let mut state = self.state();
        state.fails = false;
        for file in state.files.values() {
            lock(file).sync();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn file(&self, path: &Path) -> io::Result<File> {
        self.state().files.get(path).cloned().ok_or_else(|| missing(path))
    }
}

impl Image {
    fn sync(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Cut(length) => self.durable.truncate(length),
                Change::Written(start, end) => self.keep(start, end),
            }
        }
        self.durable.resize(self.current.len(), 0);
    }

    fn crash(&mut self, random: &mut Random) {
        for change in std::mem::take(&mut self.unsynced) {
            match change {
                Change::Cut(length) if random.chance(500) => self.durable.truncate(length),
                Change::Cut(_) => {}
                Change::Written(start, end) => {
                    let mut at = start;
                    while at < end {
                        let next = end.min((at / SECTOR_BYTES + 1) * SECTOR_BYTES);
                        if random.chance(500) {
                            self.keep(at, next);
                        }
                        at = next;
                    }
                }
            }
        }
        self.current.clone_from(&self.durable);
    }

    fn keep(&mut self, start: usize, end: usize) {
        // What was cut off later has nothing to be kept.
        let end = end.min(self.current.len());
        let start = start.min(end);
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.current[start..end]);
    }
}

/// FNV-1a.
fn name_hash(path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn missing(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("{}: no such file", path.display()))
}

fn full() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

/// EIO, as Linux numbers it.
fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl DiskFile for SimFile {
    fn write_some_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let is_full = self.disk.is_full();
        let mut image = lock(&self.file);
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        if is_full && end > image.current.len() {
            return Err(full());
        }
        if image.current.len() < end {
            image.current.resize(end, 0);
        }
        image.current[start..end].copy_from_slice(bytes);
        image.unsynced.push(Change::Written(start, end));
        Ok(bytes.len())
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        if self.disk.is_full() {
            return Err(full());
        }
        let mut image = lock(&self.file);
        let length = image.current.len().max(bytes as usize);
        image.current.resize(length, 0);
        Ok(())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        let mut image = lock(&self.file);
        image.current.truncate(bytes as usize);
        image.unsynced.push(Change::Cut(bytes as usize));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if self.disk.state().fails {
            return Err(broken());
        }
        lock(&self.file).sync();
        Ok(())
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.state().files.insert(path.to_path_buf(), File::default());
        self.open(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(SimFile { disk: self.clone(), file: self.file(path)? }))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(lock(&*self.file(path)?).current.clone())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let file = self.file(from)?;
        let mut state = self.state();
        state.files.remove(from);
        state.files.insert(to.to_path_buf(), file);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if state.fails {
            return Err(broken());
        }
        state.files.remove(path);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let names = state.files.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        Ok(self.file(path).ok().map(|file| lock(&file).current.len() as u64))
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(if self.is_full() { 0 } else { 1 << 40 })
    }
}
