//! What can go wrong with the log.

use std::io;
use std::path::PathBuf;

/// Why an append did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// No space. Nothing of the batch counts; the log is intact and the append may be repeated.
    #[error("the disk is full")]
    DiskFull,
    /// The disk failed. Whether the batch is durable can't be known: the process must end.
    #[error("{}: {source}", file.display())]
    Fatal {
        /// The file.
        file: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

/// Why a log can't be recovered.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// Bytes that were durable once are damaged.
    #[error("{}: corrupt at offset {offset}: {reason}; {remedy}", file.display())]
    Corrupt {
        /// The damaged segment.
        file: PathBuf,
        /// Where the damage begins, in bytes.
        offset: u64,
        /// What was found there.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The log is another node's or another cluster's.
    #[error("{}: {message}", file.display())]
    Foreign {
        /// The segment that says so.
        file: PathBuf,
        /// What it says, and what to do.
        message: String,
    },
    /// The operating system refused something.
    #[error("{}: {source}", file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// Its answer.
        source: io::Error,
    },
}

impl RecoverError {
    pub(super) fn io(file: impl Into<PathBuf>, source: io::Error) -> Self {
        RecoverError::Io { file: file.into(), source }
    }
}
