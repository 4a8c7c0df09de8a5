//! The one seam to the file system. Everything durable goes through `Disk`, so that tests can
//! refuse space, fail a sync or lose what was never synced.

#![allow(clippy::disallowed_methods)] // this is the seam to the file system

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An open file of the log.
pub trait DiskFile: Send {
    /// Writes all bytes at the offset.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes the written bytes durable (fdatasync).
    fn sync(&self) -> io::Result<()>;
}

/// The file system, as far as the log needs it.
pub trait Disk: Send + Sync {
    /// Makes a file of `bytes` zeros and makes them durable. Zeros are written, not only reserved:
    /// unwritten extents would make every later sync change metadata.
    fn create_zeroed(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file for writing.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;
    /// Reads a whole file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Renames durably: the folder is synced, too.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file durably.
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

static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

impl DiskFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Disk for RealDisk {
    fn create_zeroed(&self, path: &Path, bytes: u64) -> io::Result<Box<dyn DiskFile>> {
        let options = OpenOptions::new().create(true).truncate(true).write(true).open(path);
        let file = options?;
        let mut offset = 0;
        while offset < bytes {
            let length = ((bytes - offset) as usize).min(ZEROS.len());
            if let Err(error) = file.write_all_at(&ZEROS[..length], offset) {
                drop(file);
                // Half a file of zeros would only keep the disk full.
                let _ = fs::remove_file(path);
                return Err(error);
            }
            offset += length as u64;
        }
        file.sync_all()?;
        sync_dir(path)?;
        Ok(Box::new(file))
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
        fs::remove_file(path)?;
        sync_dir(path)
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

/// Makes a folder's entries durable: its file's parent is synced.
fn sync_dir(file: &Path) -> io::Result<()> {
    let parent: PathBuf = file.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    File::open(parent)?.sync_all()
}

/// Whether an error says that there is no space left.
pub fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}
