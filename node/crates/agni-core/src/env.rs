//! The one seam to the file system. Everything durable goes through `Disk`, so that tests can
//! refuse space, fail a sync or lose what was never synced.

#![allow(clippy::disallowed_methods)] // this is the seam to the file system

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open file.
pub trait DiskFile: Send {
    /// Writes at the offset and answers how many bytes it were: fewer than given are no error.
    fn write_some_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes at the offset. After an error any part of them may stand there.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_some_at(&bytes[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes up so many bytes in one step, without writing them; `Unsupported` where the file
    /// system can't.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Cuts the file to so many bytes. Needs no space.
    fn truncate(&self, bytes: u64) -> io::Result<()>;

    /// Makes the written bytes, and as many as are needed to find them, durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
}

/// The file system, as far as the engine needs it.
pub trait Disk: Send + Sync {
    /// Makes an empty file for writing, in the place of one of that name.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Renames durably: the folder is synced, too.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file durably. One that is not there any more is as good: an earlier try may have
    /// removed it and failed to make that durable.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// The names in a folder, sorted.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// A file's size; none where there is no such file.
    fn size(&self, path: &Path) -> io::Result<Option<u64>>;
    /// Bytes that can still be written below `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
}

/// The real file system.
pub struct RealDisk;

impl RealDisk {
    /// As a shared trait object.
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(RealDisk)
    }
}

impl DiskFile for File {
    fn write_some_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    #[cfg(target_os = "linux")]
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let length = libc::off_t::try_from(bytes).map_err(io::Error::other)?;
        // SAFETY: the descriptor is open as long as `self` lives; no memory is handed over.
        if unsafe { libc::fallocate(self.as_raw_fd(), 0, 0, length) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EOPNOTSUPP | libc::ENOSYS) => Err(io::ErrorKind::Unsupported.into()),
            _ => Err(error),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn allocate(&self, _bytes: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn truncate(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Disk for RealDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).open(path)?))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        sync_dir(to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_dir(path),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn size(&self, path: &Path) -> io::Result<Option<u64>> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::CString::new(dir.as_os_str().as_bytes())?;
        // SAFETY: an all-zero statvfs is a valid value of this plain C struct.
        let mut answer: libc::statvfs = unsafe { std::mem::zeroed() };
        // SAFETY: `path` is a C string and `answer` a valid place to write to.
        if unsafe { libc::statvfs(path.as_ptr(), &mut answer) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(answer.f_bavail * answer.f_frsize)
    }
}

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// Writes zeros from one offset up to another.
pub fn write_zeros(file: &dyn DiskFile, from: u64, to: u64) -> io::Result<()> {
    let mut offset = from;
    while offset < to {
        let length = (to - offset).min(ZEROS.len() as u64);
        file.write_at(&ZEROS[..length as usize], offset)?;
        offset += length;
    }
    Ok(())
}

/// Makes a file of `bytes` zeros and makes them durable; its name is once it is renamed, or its
/// folder synced. Zeros are written, not only reserved: unwritten extents would make every later
/// sync change metadata. Leaves nothing behind when it fails.
pub fn create_zeroed(disk: &dyn Disk, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
    let file = disk.create(path)?;
    match write_zeros(&*file, 0, bytes).and_then(|()| file.sync()) {
        Ok(()) => Ok(file),
        Err(error) => {
            drop(file);
            // Half a file of zeros would only keep the disk full.
            let _ = disk.remove(path);
            Err(error)
        }
    }
}

/// Makes a folder's entries durable: its file's parent is synced.
fn sync_dir(file: &Path) -> io::Result<()> {
    let parent: PathBuf = file.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    File::open(parent)?.sync_all()
}

/// Whether an error says that there is no space left.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
