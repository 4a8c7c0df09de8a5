//! What is left of a damaged data directory is kept for people: it moves into a folder beside the
//! new data. A node that keeps such a folder and has no identity yet joins a cluster, and never
//! founds one: what it has lost may be all that there was.

#![allow(clippy::disallowed_methods)] // the file shell of a data directory

use crate::limits;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

const PREFIX: &str = "damaged-";
/// The folder is called so until everything is in it.
const MOVING: &str = "moving-damaged";
/// The lock of the process stays where it is.
const LOCK: &str = "LOCK";

/// Moves everything into a folder of its own, and answers which.
///
/// # Errors
/// When too many are kept already, or the file system refuses.
pub fn keep(dir: &Path) -> io::Result<PathBuf> {
    let kept = kept(dir)?;
    if kept.len() >= limits::DAMAGED_KEPT_MAX {
        return Err(io::Error::other(format!(
            "{} folders {PREFIX}* are kept already, so its disk is not to be trusted; replace it, \
             or remove them",
            kept.len()
        )));
    }
    fs::create_dir_all(dir.join(MOVING))?;
    end_move(dir, &kept)
}

/// Whether the directory keeps something damaged. Ends a move that was interrupted.
///
/// # Errors
/// When the file system refuses.
pub fn is_kept(dir: &Path) -> io::Result<bool> {
    let kept = kept(dir)?;
    if dir.join(MOVING).exists() {
        end_move(dir, &kept)?;
        return Ok(true);
    }
    Ok(!kept.is_empty())
}

fn end_move(dir: &Path, kept: &[(u32, PathBuf)]) -> io::Result<PathBuf> {
    let moving = dir.join(MOVING);
    let stays = |name: &OsStr| {
        let name = name.to_string_lossy();
        name == LOCK || name == MOVING || name.starts_with(PREFIX)
    };
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !stays(&entry.file_name()) {
            fs::rename(entry.path(), moving.join(entry.file_name()))?;
        }
    }
    File::open(&moving)?.sync_all()?;
    let number = kept.iter().map(|(number, _)| *number).max().unwrap_or(0) + 1;
    let folder = dir.join(format!("{PREFIX}{number}"));
    fs::rename(&moving, &folder)?;
    File::open(dir)?.sync_all()?;
    Ok(folder)
}

fn kept(dir: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let mut kept = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(kept),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        if let Some(number) = number {
            kept.push((number, entry.path()));
        }
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in ["node.meta", LOCK, "cluster.seed"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        fs::create_dir(dir.path().join("wal")).unwrap();
        dir
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn all_but_the_lock_moves_and_there_is_a_limit() {
        let dir = directory();
        assert!(!is_kept(dir.path()).unwrap());
        let folder = keep(dir.path()).unwrap();
        assert_eq!(names(&folder), ["cluster.seed", "node.meta", "wal"]);
        assert_eq!(names(dir.path()), [LOCK, "damaged-1"]);
        assert!(is_kept(dir.path()).unwrap());
        fs::write(dir.path().join("node.meta"), "second").unwrap();
        assert!(keep(dir.path()).unwrap().ends_with("damaged-2"));
        fs::write(dir.path().join("node.meta"), "third").unwrap();
        assert!(keep(dir.path()).is_err());
        assert!(is_kept(dir.path()).unwrap());
        assert!(dir.path().join("node.meta").exists(), "nothing has moved");
    }

    #[test]
    fn a_move_that_was_interrupted_is_ended() {
        let dir = directory();
        let moving = dir.path().join(MOVING);
        fs::create_dir(&moving).unwrap();
        fs::rename(dir.path().join("wal"), moving.join("wal")).unwrap();
        assert!(is_kept(dir.path()).unwrap());
        assert_eq!(names(&dir.path().join("damaged-1")), ["cluster.seed", "node.meta", "wal"]);
        assert_eq!(names(dir.path()), [LOCK, "damaged-1"]);
    }

    #[test]
    fn a_directory_that_is_not_there_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!is_kept(&dir.path().join("missing")).unwrap());
    }
}
