//! What a node knows of its cluster before it has a log: `cluster.seed`, written once, before
//! `node.meta`. A founder begins its groups from it; a node that joined knows from it whom to talk
//! to.

#![allow(clippy::disallowed_methods)] // the file shell of a data directory

use super::meta::{fault, write_durably};
use crate::error::StartError;
use crate::proto::node::SystemState;
use prost::Message as _;
use std::fs;
use std::path::Path;

const FILE: &str = "cluster.seed";
const MAGIC: &[u8; 8] = b"AGNISEED";
const VERSION: u8 = 1;
const HEADER_BYTES: usize = MAGIC.len() + 2;
const TRAILER_BYTES: usize = 4;

/// How a node begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Seed {
    /// This node.
    pub node_id: u64,
    /// Whether the cluster begins with `state`; else it is how the cluster was when this node was
    /// let in.
    pub is_founding: bool,
    /// The cluster.
    pub state: SystemState,
}

impl Seed {
    /// Reads the directory's seed; none in an empty directory.
    pub fn read(dir: &Path, node_id: u64) -> Result<Option<Seed>, StartError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StartError::io(path, error)),
        };
        let remedy = "restore it from a backup, or wipe the directory and join as a new member";
        let broken = |what: &str| fault(&path, format!("{what}; {remedy}"));
        if bytes.len() < HEADER_BYTES + TRAILER_BYTES || bytes[..MAGIC.len()] != MAGIC[..] {
            return Err(broken("it is no cluster seed"));
        }
        let (body, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
        if crc32fast::hash(body).to_be_bytes() != trailer {
            return Err(broken("its checksum is wrong"));
        }
        if body[MAGIC.len()] != VERSION {
            return Err(fault(&path, "a newer version wrote it; start that version".into()));
        }
        let is_founding = body[MAGIC.len() + 1] == 1;
        let state = SystemState::decode(&body[HEADER_BYTES..])
            .map_err(|error| broken(&format!("it can't be read: {error}")))?;
        Ok(Some(Seed { node_id, is_founding, state }))
    }

    /// Writes it, durably.
    pub fn write(&self, dir: &Path) -> Result<(), StartError> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[VERSION, u8::from(self.is_founding)]);
        bytes.extend_from_slice(&self.state.encode_to_vec());
        let crc32 = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc32.to_be_bytes());
        write_durably(dir, FILE, &bytes).map_err(|error| StartError::io(dir.join(FILE), error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::{self, Founder};

    #[test]
    fn it_comes_back_as_it_was_and_a_changed_byte_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Seed::read(dir.path(), 1).unwrap(), None);
        let state = system::alone([7; 16], 4, &Founder { name: "a".into(), ..Founder::default() });
        let seed = Seed { node_id: 1, is_founding: true, state };
        seed.write(dir.path()).unwrap();
        assert_eq!(Seed::read(dir.path(), 1).unwrap(), Some(seed));
        let path = dir.path().join(FILE);
        let good = fs::read(&path).unwrap();
        for offset in 0..good.len() {
            let mut bad = good.clone();
            bad[offset] ^= 1;
            fs::write(&path, &bad).unwrap();
            assert!(Seed::read(dir.path(), 1).is_err(), "byte {offset}");
        }
    }
}
