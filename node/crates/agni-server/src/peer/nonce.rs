//! The random bytes of a data directory, by which a cluster tells it from another one of the same
//! name. They are in a file of their own only until the directory has an identity: should somebody
//! wipe a part of it later, it must not pass for the directory that it was.

#![allow(clippy::disallowed_methods)] // the file shell of a data directory

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

const FILE: &str = "node.nonce";
const BYTES: usize = 16;

/// The nonce of a directory without an identity, made if it isn't there.
pub fn open(dir: &Path) -> io::Result<Vec<u8>> {
    fs::create_dir_all(dir)?;
    let path = dir.join(FILE);
    match fs::read(&path) {
        Ok(bytes) if bytes.len() == BYTES => return Ok(bytes),
        // One that wasn't written to its end was never told to anybody.
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut nonce = vec![0; BYTES];
    File::open("/dev/urandom")?.read_exact(&mut nonce)?;
    let mut file = File::create(&path)?;
    file.write_all(&nonce)?;
    file.sync_all()?;
    File::open(dir)?.sync_all()?;
    Ok(nonce)
}

/// The directory has an identity now.
pub fn forget(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap();
        assert_eq!(open(dir.path()).unwrap(), first);
        fs::write(dir.path().join(FILE), &first[..7]).unwrap();
        let second = open(dir.path()).unwrap();
        assert!(second.len() == BYTES && second != first, "a torn one is made anew");
        forget(dir.path()).unwrap();
        forget(dir.path()).unwrap();
        assert_ne!(open(dir.path()).unwrap(), second);
    }
}
