//! Why a node refuses to start. What clients are told lives in `raft::work::Refuse` and
//! `store::Refusal`.

use std::path::PathBuf;

/// A reason not to start, each with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting can't be used.
    #[error("{field} {message}")]
    Config {
        /// The setting.
        field: &'static str,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// The data directory belongs to other settings or another cluster.
    #[error("{}: {message}", path.display())]
    DataDirectory {
        /// The file or folder at fault.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        message: String,
    },
    /// Bytes that were durable once can't be read any more.
    #[error("{}: corrupt at offset {offset}: {reason}; {remedy}", file.display())]
    Corrupt {
        /// The damaged file.
        file: PathBuf,
        /// Where the damage begins, in bytes.
        offset: u64,
        /// What was found there.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// The log and the snapshots don't fit together.
    #[error("partition {partition}: {message}")]
    Inconsistent {
        /// The partition.
        partition: u32,
        /// What doesn't fit, and what to do.
        message: String,
    },
    /// The operating system refused something.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Its answer.
        source: std::io::Error,
    },
}

impl StartError {
    /// A stable code, for exit codes and for Python.
    pub fn code(&self) -> &'static str {
        match self {
            StartError::Config { .. } => "CONFIG_INVALID",
            StartError::DataDirectory { .. } => "DATA_DIRECTORY",
            StartError::Corrupt { .. } => "CORRUPT",
            StartError::Inconsistent { .. } => "INCONSISTENT",
            StartError::Io { .. } => "IO",
        }
    }

    /// Wraps the operating system's answer about `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        StartError::Io { path: path.into(), source }
    }
}
