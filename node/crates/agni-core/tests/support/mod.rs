//! A disk with faults, for the tests of everything that writes files.

use agni_core::env::{Disk, DiskFile, RealDisk};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard};

/// The real file system, except for what `Faults` says. Clones share their faults.
#[derive(Clone, Default)]
pub struct FaultyDisk(pub Arc<Faults>);

/// What goes wrong, from the moment it is set.
#[derive(Default)]
pub struct Faults {
    /// Bytes that files may still grow by; what is removed or cut gives its bytes back.
    pub space: Mutex<Option<u64>>,
    /// Every write takes new space, also over old bytes, as on a file system that copies on write.
    pub copies_on_write: AtomicBool,
    /// The most that one write takes; 0 for as much as it is given.
    pub write_bytes_max: AtomicUsize,
    /// The next write takes so many bytes, and the one after it finds the disk full.
    pub next_write_takes: Mutex<Option<usize>>,
    /// Every write fails.
    pub writes_fail: AtomicBool,
    /// Every sync of a file fails.
    pub syncs_fail: AtomicBool,
    /// Every rename fails.
    pub renames_fail: AtomicBool,
    /// The next removal happens, but can't be made durable.
    pub next_removal_is_not_durable: AtomicBool,
    /// The file system can't set space aside.
    pub no_allocation: AtomicBool,
    /// Writes to files whose names begin so wait for a permit each.
    gate: Mutex<Option<Gate>>,
    /// What was done, in order: "create NAME", "write NAME", "sync NAME", "rename NAME", ….
    pub done: Mutex<Vec<String>>,
}

type Gate = (String, Arc<Mutex<Receiver<()>>>);

pub fn error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}

#[allow(dead_code)] // not every test needs every fault
impl FaultyDisk {
    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    pub fn set_space(&self, bytes: Option<u64>) {
        *lock(&self.0.space) = bytes;
    }

    /// From now on each write to a file whose name begins so waits for what is sent.
    pub fn gate(&self, name: &str) -> Sender<()> {
        let (permits, gate) = channel();
        *lock(&self.0.gate) = Some((name.into(), Arc::new(Mutex::new(gate))));
        permits
    }

    /// What was done since the last call.
    pub fn take_done(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.0.done))
    }

    fn note(&self, what: &str, path: &Path) {
        let name = path.file_name().unwrap().to_string_lossy();
        lock(&self.0.done).push(format!("{what} {name}"));
    }

    /// Takes as much of the space asked for as there is.
    fn take_space(&self, wanted: u64) -> io::Result<u64> {
        let mut space = lock(&self.0.space);
        let Some(left) = space.as_mut() else { return Ok(wanted) };
        let taken = wanted.min(*left);
        *left -= taken;
        if taken == 0 && wanted > 0 { Err(error(libc::ENOSPC)) } else { Ok(taken) }
    }

    fn give_space(&self, bytes: u64) {
        if let Some(left) = lock(&self.0.space).as_mut() {
            *left += bytes;
        }
    }
}

struct FaultyFile {
    inner: Box<dyn DiskFile>,
    /// As it was opened: a later rename is not followed.
    path: PathBuf,
    size: AtomicU64,
    disk: FaultyDisk,
}

impl FaultyFile {
    fn boxed(inner: Box<dyn DiskFile>, path: &Path, disk: &FaultyDisk) -> Box<dyn DiskFile> {
        let size = AtomicU64::new(RealDisk.size(path).unwrap().unwrap());
        Box::new(FaultyFile { inner, path: path.into(), size, disk: disk.clone() })
    }

    fn wait_at_gate(&self) {
        let name = self.path.file_name().unwrap().to_string_lossy().into_owned();
        let gate = lock(&self.disk.0.gate).clone();
        if let Some((_, permits)) = gate.filter(|(gated, _)| name.starts_with(gated)) {
            // Open for good once the test has let go of its end.
            let _ = lock(&permits).recv();
        }
    }
}

impl DiskFile for FaultyFile {
    fn write_some_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.wait_at_gate();
        let faults = &self.disk.0;
        if faults.writes_fail.load(SeqCst) {
            return Err(error(libc::EIO));
        }
        let max = faults.write_bytes_max.load(SeqCst);
        let mut length = if max == 0 { bytes.len() } else { bytes.len().min(max) };
        let takes = lock(&faults.next_write_takes).take();
        match takes {
            Some(0) => return Err(error(libc::ENOSPC)),
            Some(bytes) => {
                length = length.min(bytes);
                *lock(&faults.next_write_takes) = Some(0);
            }
            None => {}
        }
        let free = match faults.copies_on_write.load(SeqCst) {
            true => 0,
            false => self.size.load(SeqCst).saturating_sub(offset).min(length as u64),
        };
        let wanted = length as u64 - free;
        if wanted > 0 {
            match self.disk.take_space(wanted) {
                Ok(taken) => length = (free + taken) as usize,
                Err(_) if free > 0 => length = free as usize,
                Err(full) => return Err(full),
            }
        }
        self.disk.note("write", &self.path);
        self.inner.write_at(&bytes[..length], offset)?;
        self.size.fetch_max(offset + length as u64, SeqCst);
        Ok(length)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        if self.disk.0.no_allocation.load(SeqCst) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if self.disk.take_space(bytes)? < bytes {
            return Err(error(libc::ENOSPC));
        }
        self.disk.note("allocate", &self.path);
        self.size.fetch_max(bytes, SeqCst);
        self.inner.allocate(bytes)
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.disk.give_space(self.size.swap(bytes, SeqCst).saturating_sub(bytes));
        self.disk.note("truncate", &self.path);
        self.inner.truncate(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        if self.disk.0.syncs_fail.load(SeqCst) {
            return Err(error(libc::EIO));
        }
        self.disk.note("sync", &self.path);
        self.inner.sync()
    }
}

impl Disk for FaultyDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.give_space(RealDisk.size(path)?.unwrap_or(0));
        self.note("create", path);
        Ok(FaultyFile::boxed(RealDisk.create(path)?, path, self))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(FaultyFile::boxed(RealDisk.open(path)?, path, self))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        RealDisk.read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.0.renames_fail.load(SeqCst) {
            return Err(error(libc::EIO));
        }
        self.note("rename", to);
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.give_space(RealDisk.size(path)?.unwrap_or(0));
        self.note("remove", path);
        RealDisk.remove(path)?;
        match self.0.next_removal_is_not_durable.swap(false, SeqCst) {
            true => Err(error(libc::EIO)),
            false => Ok(()),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(dir)
    }

    fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        RealDisk.size(path)
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        match *lock(&self.0.space) {
            Some(left) => Ok(left),
            None => RealDisk.free_bytes(dir),
        }
    }
}
