//! How a server is set up. Python checks the same values first, with messages for people.

use crate::limits;
use crate::peer::ClusterConfig;
use crate::tls::TlsConfig;
use agni_core::engine::EngineConfig;
use std::net::IpAddr;

/// Settings of a server; the defaults suit one node on loopback.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The engine's settings.
    pub engine: EngineConfig,
    /// host:port for clients, gRPC and HTTP alike; port 0 lets the system choose.
    pub listen: String,
    /// host:port for /livez, /readyz and /metrics in plain HTTP; empty for no such port.
    pub health_listen: String,
    /// The node's identity; without it, everybody who reaches `listen` may do everything.
    pub tls: Option<TlsConfig>,
    /// Whether `listen` may be reachable from other machines without TLS.
    pub insecure: bool,
    /// Runtimes, each with a thread of its own; connections are dealt out in turn.
    pub runtimes: usize,
    /// How the node takes part in a cluster; none for a node that stays alone.
    pub cluster: Option<ClusterConfig>,
    /// The region that this cluster serves, shown in its status.
    pub region: String,
    /// The software's version, shown in its status.
    pub version: String,
    /// Least level that is logged: debug, info, warn, error or off.
    pub log_level: String,
    /// Whether each request is logged. Costs throughput.
    pub access_log: bool,
    /// Open connections; those beyond are closed at once.
    pub max_connections: usize,
    /// Those of one identity, where clients have one.
    pub max_connections_per_identity: usize,
    /// HTTP/2 streams that one connection may have open.
    pub max_concurrent_streams: u32,
    /// Bytes of one request message or body.
    pub max_message_bytes: usize,
    /// Bytes of requests that have arrived in part, of all connections together.
    pub max_arriving_bytes: usize,
    /// Watches of one runtime.
    pub max_watches: usize,
    /// Time for a connection's first bytes, for HTTP/1 headers and for a request's message,
    /// in milliseconds.
    pub header_timeout_ms: u64,
    /// Time that an HTTP/1 connection may rest between two requests, in milliseconds.
    pub idle_timeout_ms: u64,
    /// Time between two HTTP/2 pings to a client, in milliseconds.
    pub ping_interval_ms: u64,
    /// Time in which a client must answer a ping, in milliseconds.
    pub ping_timeout_ms: u64,
}

impl Default for ServerConfig {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        ServerConfig {
            engine: EngineConfig::default(),
            listen: "127.0.0.1:7400".to_owned(),
            health_listen: String::new(),
            tls: None,
            insecure: false,
            // The driver and the log need a core of their own under load.
            runtimes: cores.div_ceil(2).min(limits::RUNTIMES_DEFAULT_MAX),
            cluster: None,
            region: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            log_level: "info".to_owned(),
            access_log: false,
            max_connections: limits::CONNECTIONS_DEFAULT,
            max_connections_per_identity: limits::CONNECTIONS_PER_IDENTITY_DEFAULT,
            max_concurrent_streams: limits::STREAMS_DEFAULT,
            max_message_bytes: limits::MESSAGE_BYTES_DEFAULT,
            max_arriving_bytes: limits::ARRIVING_BYTES_MAX,
            max_watches: limits::WATCHES_DEFAULT,
            header_timeout_ms: limits::HEADER_TIMEOUT_MS_DEFAULT,
            idle_timeout_ms: limits::IDLE_TIMEOUT_MS,
            ping_interval_ms: limits::PING_INTERVAL_MS,
            ping_timeout_ms: limits::PING_TIMEOUT_MS,
        }
    }
}

impl ServerConfig {
    /// Checks what can be checked without opening anything.
    ///
    /// # Errors
    /// Names the first field at fault.
    pub fn validate(&self) -> Result<(), ServerError> {
        let fault = |message: String| Err(ServerError::new("CONFIG_INVALID", message));
        let runtimes = 1..=limits::RUNTIMES_MAX;
        if !runtimes.contains(&self.runtimes) {
            return fault(format!("runtimes must be 1..{}", limits::RUNTIMES_MAX));
        }
        let at_least_one = [
            ("max_connections", self.max_connections),
            ("max_connections_per_identity", self.max_connections_per_identity),
            ("max_concurrent_streams", self.max_concurrent_streams as usize),
            ("max_watches", self.max_watches),
            ("header_timeout_ms", self.header_timeout_ms as usize),
            ("idle_timeout_ms", self.idle_timeout_ms as usize),
            ("ping_interval_ms", self.ping_interval_ms as usize),
            ("ping_timeout_ms", self.ping_timeout_ms as usize),
        ];
        if let Some((field, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            return fault(format!("{field} must be at least 1"));
        }
        let sizes = limits::MESSAGE_BYTES_MIN..=limits::MESSAGE_BYTES_MAX;
        if !sizes.contains(&self.max_message_bytes) {
            let (least, most) = (sizes.start(), sizes.end());
            return fault(format!("max_message_bytes must be {least}..{most}"));
        }
        if crate::log::Level::parse(&self.log_level).is_none() {
            return fault("log_level must be debug, info, warn, error or off".to_owned());
        }
        if let Some(message) = self.tls.as_ref().and_then(TlsConfig::fault) {
            return fault(message);
        }
        if self.tls.is_none() && !self.insecure && !is_loopback(&self.listen) {
            return fault(format!(
                "listen {} can be reached from other machines, and without tls whoever reaches it \
                 may change anything; set tls, listen on 127.0.0.1, or set insecure to true",
                self.listen
            ));
        }
        if let Some(cluster) = &self.cluster {
            cluster.validate().or_else(fault)?;
            if self.tls.is_none() && !self.insecure && !is_loopback(&cluster.listen) {
                return fault(format!(
                    "peer_listen {} can be reached from other machines, and without tls whoever \
                     reaches it may speak as a node; set tls, listen on 127.0.0.1, or set insecure \
                     to true",
                    cluster.listen
                ));
            }
        }
        Ok(())
    }
}

/// Whether an address is for this machine alone. Of names, only `localhost` is known to be.
fn is_loopback(listen: &str) -> bool {
    let host = listen.rsplit_once(':').map_or(listen, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Why a server doesn't start.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ServerError {
    /// A stable code.
    pub code: String,
    /// What is wrong, and what to do.
    pub message: String,
}

impl ServerError {
    /// An error with a code.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        ServerError { code: code.to_owned(), message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_only_this_machine_is_listened_to() {
        let config = |listen: &str| ServerConfig { listen: listen.into(), ..Default::default() };
        for listen in ["127.0.0.1:0", "127.9.9.9:7400", "[::1]:7400", "localhost:7400"] {
            assert!(config(listen).validate().is_ok(), "{listen}");
        }
        for listen in ["0.0.0.0:7400", "[::]:7400", "10.0.0.1:7400", "example.org:7400", ":1"] {
            let error = config(listen).validate().expect_err(listen);
            assert_eq!(error.code, "CONFIG_INVALID");
            assert!(error.message.contains("insecure"), "{}", error.message);
            let insecure = ServerConfig { insecure: true, ..config(listen) };
            assert!(insecure.validate().is_ok(), "{listen}");
            let tls = TlsConfig {
                certificate_file: "a".into(),
                key_file: "b".into(),
                trust_file: "c".into(),
                ..TlsConfig::default()
            };
            let secure = ServerConfig { tls: Some(tls), ..config(listen) };
            assert!(secure.validate().is_ok(), "{listen}");
        }
    }

    #[test]
    fn nodes_that_speak_no_tls_keep_to_this_machine() {
        let cluster = |listen: &str| ServerConfig {
            cluster: Some(ClusterConfig {
                name: "a".into(),
                listen: listen.into(),
                ..ClusterConfig::default()
            }),
            ..Default::default()
        };
        assert!(cluster("127.0.0.1:0").validate().is_ok());
        let error = cluster("0.0.0.0:7401").validate().expect_err("peer_listen");
        assert!(error.message.contains("peer_listen"), "{}", error.message);
        let insecure = ServerConfig { insecure: true, ..cluster("0.0.0.0:7401") };
        assert!(insecure.validate().is_ok());
        let tls = TlsConfig {
            certificate_file: "a".into(),
            key_file: "b".into(),
            trust_file: "c".into(),
            ..TlsConfig::default()
        };
        let both = ServerConfig { tls: Some(tls), ..cluster("0.0.0.0:7401") };
        assert!(both.validate().is_ok());
    }

    #[test]
    fn tls_needs_all_its_files() {
        let tls = Some(TlsConfig { certificate_file: "a".into(), ..TlsConfig::default() });
        let error = ServerConfig { tls, ..Default::default() }.validate().expect_err("key");
        assert!(error.message.contains("tls.key_file"), "{}", error.message);
    }
}
