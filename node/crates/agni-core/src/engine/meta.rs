//! Who this data directory is: `node.meta`, written once when the directory is made.

#![allow(clippy::disallowed_methods)] // the file shell of a data directory

use super::config::{Beginning, EngineConfig};
use super::seed::Seed;
use crate::error::StartError;
use crate::system;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

const FILE: &str = "node.meta";
const TITLE: &str = "agni-node-meta 1";

/// What a data directory must never forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta {
    /// The cluster it belongs to.
    pub cluster_id: [u8; 16],
    /// The node that owns it. Never given to another directory.
    pub node_id: u64,
    /// Enters the checksums of the log; never told to anybody.
    pub salt: u64,
    /// How many partitions the cluster has.
    pub partitions: u32,
}

impl Meta {
    /// Reads the directory's identity; none in an empty directory.
    pub fn read(dir: &Path) -> Result<Option<Meta>, StartError> {
        let path = dir.join(FILE);
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).map(Some).map_err(|message| fault(&path, message)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StartError::io(path, error)),
        }
    }

    /// Reads the directory's identity and how it began, or gives them to an empty directory.
    pub fn open(config: &EngineConfig) -> Result<(Meta, Seed), StartError> {
        let path = config.data_dir.join(FILE);
        let Some(meta) = Self::read(&config.data_dir)? else { return Self::create(config) };
        let seed = Seed::read(&config.data_dir, meta.node_id)?.ok_or_else(|| {
            let message = "cluster.seed is missing beside it; restore it from a backup, or wipe \
                           the directory and join as a new member";
            fault(&path, message.into())
        })?;
        if meta.partitions != config.partitions {
            let message = format!(
                "the directory was made with {} partitions, the configuration says {}; the number \
                 can't change: configure {}",
                meta.partitions, config.partitions, meta.partitions
            );
            return Err(fault(&path, message));
        }
        if config.cluster_id.is_some_and(|wanted| wanted != meta.cluster_id) {
            let message = "the directory belongs to another cluster; use another directory";
            return Err(fault(&path, message.into()));
        }
        Ok((meta, seed))
    }

    fn create(config: &EngineConfig) -> Result<(Meta, Seed), StartError> {
        let log = config.data_dir.join("wal");
        let path = config.data_dir.join(FILE);
        let used = fs::read_dir(&log).is_ok_and(|mut files| files.next().is_some());
        if used {
            let message = "it is missing, but the directory has a log; restore it from a backup, \
                           or wipe the directory and join as a new member";
            return Err(fault(&path, message.into()));
        }
        let mut random = [0_u8; 40];
        let source = "/dev/urandom";
        File::open(source)
            .and_then(|mut file| file.read_exact(&mut random))
            .map_err(|error| StartError::io(source, error))?;
        let mut chosen = [0_u8; 16];
        chosen.copy_from_slice(&random[..16]);
        let number = |at: usize| {
            let mut bytes = [0_u8; 8];
            bytes.copy_from_slice(&random[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        let seed = match &config.beginning {
            Beginning::Alone(founder) => {
                let cluster_id = config.cluster_id.unwrap_or(chosen);
                let mut founder = founder.clone();
                // Others may join later: then it must be known by it, like any member.
                if founder.nonce.is_empty() {
                    founder.nonce = random[24..].to_vec();
                }
                let state = system::alone(cluster_id, config.partitions, &founder);
                Seed { node_id: 1, is_founding: true, state }
            }
            Beginning::Given(seed) => seed.clone(),
        };
        let cluster_id = seed.state.cluster_id[..].try_into().map_err(|_| StartError::Config {
            field: "beginning",
            message: "names a cluster whose identity is not 16 bytes".into(),
        })?;
        let meta = Meta {
            cluster_id,
            // Raft reads 0 as "nobody".
            node_id: seed.node_id.max(1),
            salt: number(16),
            partitions: seed.state.partition_count,
        };
        // First the seed: a directory with an identity must know how it began.
        seed.write(&config.data_dir)?;
        write_durably(&config.data_dir, FILE, meta.text().as_bytes())
            .map_err(|error| StartError::io(path, error))?;
        Ok((meta, seed))
    }

    fn body(&self) -> String {
        let cluster_id: String = self.cluster_id.iter().map(|b| format!("{b:02x}")).collect();
        let Meta { node_id, salt, partitions, .. } = self;
        format!(
            "{TITLE}\ncluster_id {cluster_id}\nnode_id {node_id:016x}\nlog_salt {salt:016x}\n\
             partitions {partitions}\n"
        )
    }

    fn text(&self) -> String {
        let body = self.body();
        let crc32 = crc32fast::hash(body.as_bytes());
        format!("{body}crc32 {crc32:08x}\n")
    }

    fn parse(text: &str) -> Result<Meta, String> {
        let remedy = "restore it from a backup, or wipe the directory and join as a new member";
        let value = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
                .ok_or(format!("{name} is missing; {remedy}"))
        };
        let cluster_hex = value("cluster_id")?;
        let cluster =
            u128::from_str_radix(cluster_hex, 16).ok().filter(|_| cluster_hex.len() == 32);
        let node_id = u64::from_str_radix(value("node_id")?, 16).ok().filter(|id| *id != 0);
        let salt = u64::from_str_radix(value("log_salt")?, 16).ok();
        let partitions = value("partitions")?.parse().ok();
        let meta = match (cluster, node_id, salt, partitions) {
            (Some(cluster), Some(node_id), Some(salt), Some(partitions)) => {
                Meta { cluster_id: cluster.to_be_bytes(), node_id, salt, partitions }
            }
            _ => return Err(format!("a value can't be read; {remedy}")),
        };
        // What it says must be, to the letter, what this version writes.
        if meta.text() != text {
            return Err(format!("its checksum or form is wrong; {remedy}"));
        }
        Ok(meta)
    }
}

pub(super) fn fault(path: &Path, message: String) -> StartError {
    StartError::DataDirectory { path: path.to_path_buf(), message }
}

/// Writes a file whole or not at all.
pub(super) fn write_durably(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path) -> EngineConfig {
        EngineConfig { data_dir: dir.to_path_buf(), ..EngineConfig::default() }
    }

    #[test]
    fn an_identity_is_chosen_once_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = Meta::open(&config(dir.path())).unwrap();
        assert_eq!(Meta::open(&config(dir.path())).unwrap(), first);
        let other = EngineConfig { partitions: 32, ..config(dir.path()) };
        assert!(Meta::open(&other).unwrap_err().to_string().contains("configure 16"));
        let foreign = EngineConfig { cluster_id: Some([9; 16]), ..config(dir.path()) };
        assert!(Meta::open(&foreign).unwrap_err().to_string().contains("another cluster"));
    }

    #[test]
    fn a_changed_byte_is_refused_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        Meta::open(&config(dir.path())).unwrap();
        let path = dir.path().join(FILE);
        let good = fs::read(&path).unwrap();
        for offset in 0..good.len() {
            let mut bad = good.clone();
            bad[offset] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(Meta::open(&config(dir.path())).is_err(), "byte {offset}");
            assert_eq!(fs::read(&path).unwrap(), bad);
        }
    }

    #[test]
    fn a_log_without_an_identity_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("wal")).unwrap();
        fs::write(dir.path().join("wal/00000000000000000001.wal"), b"x").unwrap();
        assert!(Meta::open(&config(dir.path())).is_err());
        assert!(!dir.path().join(FILE).exists());
    }
}
