//! How a node takes part in a cluster.

use crate::limits as server_limits;
use agni_core::limits;
use agni_core::system::Founder;

/// Settings of a node that has, or may have, others beside it.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// What this node is called: one name a node, kept over its whole life.
    pub name: String,
    /// host:port on which other nodes are listened to.
    pub listen: String,
    /// host:port under which other nodes reach this one; empty for where it listens.
    pub address: String,
    /// host:port under which clients reach this node; empty for where it listens for them.
    pub client_address: String,
    /// Peer addresses of nodes that found a cluster together, the same list on each of them; a
    /// node that is not among them joins.
    pub seeds: Vec<String>,
    /// The zone that this node runs in; may be empty.
    pub zone: String,
    /// Replicas of each partition in a cluster that this node founds.
    pub replication: u32,
    /// Whether a node whose log is damaged in the middle keeps it aside and joins anew.
    pub rejoin_after_damage: bool,
    /// Bytes that this node sends of snapshots in a second, to all others together.
    pub snapshot_bytes_per_s: u64,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig {
            name: String::new(),
            listen: "127.0.0.1:7401".to_owned(),
            address: String::new(),
            client_address: String::new(),
            seeds: Vec::new(),
            zone: String::new(),
            replication: limits::REPLICATION_DEFAULT,
            rejoin_after_damage: true,
            snapshot_bytes_per_s: server_limits::SNAPSHOT_BYTES_PER_S,
        }
    }
}

impl ClusterConfig {
    /// Checks what can be checked without opening anything.
    ///
    /// # Errors
    /// Names the first field at fault.
    pub fn validate(&self) -> Result<(), String> {
        let (name, longest) = (&self.name, server_limits::NODE_NAME_BYTES_MAX);
        let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if name.is_empty() || name.len() > longest || !name.bytes().all(in_name) {
            return Err(format!("name must be 1..{longest} of a-z, 0-9 and -, not {name:?}"));
        }
        if self.seeds.len() > server_limits::SEEDS_MAX {
            return Err(format!("seeds must be at most {}", server_limits::SEEDS_MAX));
        }
        let addresses =
            [("cluster_address", &self.address), ("client_address", &self.client_address)];
        let addresses = addresses.into_iter().filter(|(_, address)| !address.is_empty());
        for (field, address) in addresses.chain(self.seeds.iter().map(|seed| ("seeds", seed))) {
            let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none_or(|port| port == 0) {
                return Err(format!("{field} must be host:port, not {address:?}"));
            }
        }
        if self.replication == 0 || self.replication > limits::REPLICATION_MAX {
            return Err(format!("replication must be 1..{}", limits::REPLICATION_MAX));
        }
        if self.snapshot_bytes_per_s < server_limits::SNAPSHOT_PIECE_BYTES as u64 {
            let least = server_limits::SNAPSHOT_PIECE_BYTES;
            return Err(format!("snapshot_bytes_per_s must be at least {least}"));
        }
        Ok(())
    }

    /// Whether there are others that this node could join.
    pub fn has_others(&self) -> bool {
        self.seeds.iter().any(|seed| *seed != self.address)
    }

    /// This node as one of a new cluster.
    pub fn founder(&self, region: &str, nonce: &[u8]) -> Founder {
        Founder {
            name: self.name.clone(),
            client_address: self.client_address.clone(),
            peer_address: self.address.clone(),
            region: region.to_owned(),
            zone: self.zone.clone(),
            nonce: nonce.to_vec(),
        }
    }
}
