//! The settings as they cross the boundary, once: attributes of Python's `NodeConfig`.

use crate::error::AgniNodeError;
use agni_server::peer::ClusterConfig;
use agni_server::{ServerConfig, TlsConfig};
use pyo3::prelude::*;
use std::path::PathBuf;

/// `agniregistry_node.tls_files.TlsFiles`.
#[derive(FromPyObject)]
struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    trust: PathBuf,
}

/// The attributes of `agniregistry_node.config.NodeConfig` that the engine and the server need.
#[derive(FromPyObject)]
pub struct Settings {
    data_dir: PathBuf,
    listen: String,
    health_listen: String,
    tls_files: Option<TlsFiles>,
    tls_trust_domain: String,
    tls_reload_interval_ms: u64,
    insecure: bool,
    region: String,
    cluster_id: String,
    partitions: u32,
    name: String,
    peer_listen: String,
    peer_address: String,
    client_address: String,
    seeds: String,
    zone: String,
    replication: u32,
    snapshot_bytes_per_s: u64,
    rejoin_after_damage: bool,
    log_level: String,
    access_log: bool,
    runtimes: usize,
    max_connections: usize,
    max_connections_per_identity: usize,
    max_concurrent_streams: u32,
    max_message_bytes: usize,
    max_watches: usize,
    header_timeout_ms: u64,
    queue_limit: usize,
    wal_segment_bytes: u64,
    snapshot_wal_bytes: u64,
    disk_reserve_bytes: u64,
    lease_reads: bool,
    mass_expiry_guard: bool,
    state_check_ms: u64,
    mass_expiry_share_percent: u32,
    mass_expiry_min_leases: u32,
    mass_expiry_leases_per_s: u32,
}

impl Settings {
    /// The server's own form of them.
    pub fn into_server_config(self) -> PyResult<ServerConfig> {
        let mut config = ServerConfig::default();
        config.engine.data_dir = self.data_dir;
        config.engine.cluster_id = cluster_id(&self.cluster_id)?;
        config.engine.partitions = self.partitions;
        config.engine.queue_limit = self.queue_limit;
        config.engine.wal_segment_bytes = self.wal_segment_bytes;
        config.engine.snapshot_wal_bytes = self.snapshot_wal_bytes;
        config.engine.disk_reserve_bytes = self.disk_reserve_bytes;
        config.engine.lease_reads = self.lease_reads;
        config.engine.state_check_ms = self.state_check_ms;
        config.engine.mass_expiry.is_on = self.mass_expiry_guard;
        config.engine.mass_expiry.share_percent = self.mass_expiry_share_percent;
        config.engine.mass_expiry.min_leases = self.mass_expiry_min_leases;
        config.engine.mass_expiry.leases_per_s = self.mass_expiry_leases_per_s;
        config.cluster = (!self.name.is_empty()).then(|| ClusterConfig {
            name: self.name,
            listen: self.peer_listen,
            address: self.peer_address,
            client_address: self.client_address,
            seeds: self.seeds.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
            zone: self.zone,
            replication: self.replication,
            snapshot_bytes_per_s: self.snapshot_bytes_per_s,
            rejoin_after_damage: self.rejoin_after_damage,
            // The server takes it from the engine.
            cluster_id: None,
        });
        config.listen = self.listen;
        config.health_listen = self.health_listen;
        config.tls = self.tls_files.map(|files| TlsConfig {
            certificate_file: files.certificate,
            key_file: files.key,
            trust_file: files.trust,
            trust_domain: self.tls_trust_domain,
            reload_interval_ms: self.tls_reload_interval_ms,
        });
        config.insecure = self.insecure;
        config.region = self.region;
        config.log_level = self.log_level;
        config.access_log = self.access_log;
        // 0 is "choose": the default has already counted the cores.
        if self.runtimes > 0 {
            config.runtimes = self.runtimes;
        }
        config.max_connections = self.max_connections;
        config.max_connections_per_identity = self.max_connections_per_identity;
        config.max_concurrent_streams = self.max_concurrent_streams;
        config.max_message_bytes = self.max_message_bytes;
        config.max_watches = self.max_watches;
        config.header_timeout_ms = self.header_timeout_ms;
        Ok(config)
    }
}

fn cluster_id(text: &str) -> PyResult<Option<[u8; 16]>> {
    if text.is_empty() {
        return Ok(None);
    }
    let valid = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match u128::from_str_radix(text, 16) {
        Ok(number) if valid => Ok(Some(number.to_be_bytes())),
        _ => {
            let message = "cluster_id must be 32 hexadecimal digits, or empty";
            Err(AgniNodeError::new_err(("CONFIG_INVALID", message)))
        }
    }
}
