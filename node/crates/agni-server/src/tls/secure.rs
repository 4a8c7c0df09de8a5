//! A node's TLS: what it shows, whom it lets in, whom it speaks to; renewed while it runs.
//!
//! No session is resumed: a resumed one would skip the checks, and so outlive a certificate that
//! has expired or a CA that has left the bundle.

use super::config::TlsConfig;
use super::files::{Contents, FileFault, Material, check, sha256};
use super::identity::{Holder, Identity, PeerName, check_trust_domain};
use super::refusal::{Reason, Refusal};
use super::verify;
use crate::config::ServerError;
use crate::limits;
use crate::log::{self, Level};
use parking_lot::{Mutex, RwLock};
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

/// Pause between two reads of files that don't belong together.
const MISMATCH_PAUSE: Duration = Duration::from_millis(20);

/// Which port is spoken to: what is meant for one can't be played to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Where clients connect: gRPC, HTTP/2 and HTTP/1.
    Client,
    /// Where nodes connect, and nobody else.
    Peer,
}

impl Port {
    /// The protocols that a server on this port speaks, the preferred one first.
    fn protocols(self) -> Vec<Vec<u8>> {
        match self {
            Port::Client => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            Port::Peer => vec![b"agni-peer/1".to_vec()],
        }
    }
}

/// A connection whose other side has proven who it is.
pub struct Secured<T> {
    /// What to read from and to write to.
    pub stream: T,
    /// Who the other side is.
    pub identity: Identity,
    /// How long its certificate is still good for.
    pub valid_for: Duration,
}

/// What is counted.
#[derive(Default)]
pub struct TlsMetrics {
    /// Times that new files were taken.
    pub reloads: AtomicU64,
    /// New files that couldn't be used.
    pub reload_failures: AtomicU64,
    /// Handshakes that came to nothing, in the order of `Reason::ALL`.
    pub handshake_failures: [AtomicU64; Reason::ALL.len()],
}

/// What came of a look at the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// They are as they were.
    Unchanged,
    /// They are new, and new handshakes use them.
    Taken,
    /// They are new and can't be used; what was there stays.
    Kept,
}

/// What is in use of the files.
#[derive(Debug, Default, Clone)]
pub struct FilesInUse {
    /// SHA-256 of the trust bundle, as hexadecimal text.
    pub trust_sha256: String,
    /// SHA-256 of the certificate in DER, as hexadecimal text.
    pub certificate_sha256: String,
    /// When it ends, in seconds of Unix time.
    pub not_after_s: i64,
}

/// What new handshakes use.
struct Current {
    material: Material,
    client_port: Arc<ServerConfig>,
    peer_port: Arc<ServerConfig>,
}

/// What is known of the files between two looks.
struct Seen {
    /// The contents in use.
    taken: u128,
    /// Contents that can't be used, or the text of why they couldn't even be read.
    refused: Option<Broken>,
}

#[derive(PartialEq, Eq)]
enum Broken {
    Unreadable(FileFault),
    /// Seen once; it may have been between two writes.
    Mismatched(u128),
    Contents(u128),
}

/// When a reason was last logged, and how often it was not since.
#[derive(Default, Clone, Copy)]
struct Complaint {
    logged: Option<Instant>,
    silent: u64,
}

/// A node's own identity and its opinion of others'.
pub struct Tls {
    config: TlsConfig,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<Current>>,
    seen: Mutex<Seen>,
    complaints: Mutex<[Complaint; Reason::ALL.len()]>,
    /// What is counted.
    pub metrics: TlsMetrics,
}

impl Tls {
    /// Reads and checks the files. Certificate and key that don't belong together are read again
    /// for a moment, since they may just be being replaced.
    ///
    /// # Errors
    /// Names the file at fault, and the remedy.
    pub fn load(config: &TlsConfig) -> Result<Arc<Tls>, ServerError> {
        let fault = |message: String| ServerError::new("CONFIG_INVALID", message);
        if let Some(message) = config.fault() {
            return Err(fault(message));
        }
        if !config.trust_domain.is_empty() {
            check_trust_domain(&config.trust_domain).map_err(fault)?;
        }
        let mut config = config.clone();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let deadline = Instant::now() + Duration::from_millis(limits::TLS_MISMATCH_PATIENCE_MS);
        let (contents, material) = loop {
            let contents = Contents::read(&config)?;
            match check(&config, &contents, &provider, UnixTime::now()) {
                Ok(material) => break (contents, material),
                Err(fault) if fault.is_mismatch && Instant::now() < deadline => {
                    std::thread::sleep(MISMATCH_PAUSE);
                }
                Err(fault) => return Err(fault.into()),
            }
        };
        config.trust_domain = material.holder.identity.trust_domain().to_owned();
        let current = Current::new(material, &provider)
            .map_err(|error| ServerError::new("IDENTITY_INVALID", error.to_string()))?;
        Ok(Arc::new(Tls {
            config,
            provider,
            current: RwLock::new(Arc::new(current)),
            seen: Mutex::new(Seen { taken: contents.digest(), refused: None }),
            complaints: Mutex::default(),
            metrics: TlsMetrics::default(),
        }))
    }

    /// Who this node is.
    pub fn identity(&self) -> Identity {
        self.now().material.holder.identity.clone()
    }

    /// What is in use of the files, for those who replace them.
    pub fn files(&self) -> FilesInUse {
        let current = self.now();
        let material = &current.material;
        FilesInUse {
            trust_sha256: material.trust_sha256.clone(),
            certificate_sha256: sha256(&material.key.cert[0]),
            not_after_s: material.holder.not_after_s,
        }
    }

    /// Time until this node's certificate ends, in seconds; negative afterwards.
    pub fn expires_in_s(&self) -> i64 {
        self.now().material.holder.not_after_s - unix_s()
    }

    fn now(&self) -> Arc<Current> {
        self.current.read().clone()
    }

    /// Greets whoever has connected to one of our ports, within a time limit. Refusals are
    /// counted and logged here.
    ///
    /// # Errors
    /// Why nothing came of it.
    pub async fn accept(
        &self,
        stream: TcpStream,
        port: Port,
        limit: Duration,
    ) -> Result<Secured<server::TlsStream<TcpStream>>, Refusal> {
        let address = stream.peer_addr().ok();
        let current = self.now();
        let config = match port {
            Port::Client => &current.client_port,
            Port::Peer => &current.peer_port,
        };
        let handshake = TlsAcceptor::from(config.clone()).accept(stream);
        let secured = within(limit, handshake).await.and_then(|stream| {
            let (identity, valid_for) = other_side(stream.get_ref().1.peer_certificates())?;
            Ok(Secured { stream, identity, valid_for })
        });
        secured.inspect_err(|refusal| self.refused(refusal, address, "client"))
    }

    /// Speaks to the node with this name and to no other, or to any node where the name isn't
    /// known yet, within a time limit. Refusals are counted and logged here.
    ///
    /// # Errors
    /// Why nothing came of it.
    pub async fn connect(
        &self,
        stream: TcpStream,
        expected: Option<&PeerName>,
        port: Port,
        limit: Duration,
    ) -> Result<Secured<client::TlsStream<TcpStream>>, Refusal> {
        let address = stream.peer_addr().ok();
        let secured = match self.connector(expected, port) {
            Err(refusal) => Err(refusal),
            Ok(connector) => {
                // Never sent, and never compared: the verifier looks at the SPIFFE ID instead.
                let name = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
                within(limit, connector.connect(name, stream)).await.and_then(|stream| {
                    let (identity, valid_for) = other_side(stream.get_ref().1.peer_certificates())?;
                    Ok(Secured { stream, identity, valid_for })
                })
            }
        };
        secured.inspect_err(|refusal| self.refused(refusal, address, "node"))
    }

    fn connector(&self, expected: Option<&PeerName>, port: Port) -> Result<TlsConnector, Refusal> {
        let current = self.now();
        let trust_domain = &self.config.trust_domain;
        let verifier = verify::Nodes {
            roots: current.material.roots.clone(),
            algorithms: self.provider.signature_verification_algorithms,
            trust_domain: trust_domain.as_str().into(),
            expected: expected.map(|name| Identity::of_node(trust_domain, name)),
        };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| Refusal::new(Reason::Protocol, error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(
                current.material.key.clone(),
            )));
        config.alpn_protocols = port.protocols();
        config.alpn_protocols.truncate(1);
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(TlsConnector::from(Arc::new(config)))
    }

    /// Counts a refusal, and logs it unless its reason was logged within the last minute.
    pub fn refused(&self, refusal: &Refusal, address: Option<SocketAddr>, other: &str) {
        let place = refusal.reason as usize;
        self.metrics.handshake_failures[place].fetch_add(1, Relaxed);
        let pause = Duration::from_millis(limits::TLS_COMPLAINT_PAUSE_MS);
        let silent = {
            let complaint = &mut self.complaints.lock()[place];
            if complaint.logged.is_some_and(|logged| logged.elapsed() < pause) {
                complaint.silent += 1;
                return;
            }
            complaint.logged = Some(Instant::now());
            std::mem::take(&mut complaint.silent)
        };
        // Whoever only looks whether a port is open closes it again.
        let level = if refusal.reason == Reason::Closed { Level::Debug } else { Level::Warn };
        let fields = [
            ("reason", refusal.reason.word().into()),
            ("address", address.map(|address| address.to_string()).into()),
            ("other_side", other.into()),
            ("error", refusal.message.as_str().into()),
            ("more_since_last_line", silent.into()),
        ];
        log::write(level, "tls handshake failed", &fields);
    }

    /// Looks at the files, and takes what is new and good. It reads files: not for a thread that
    /// must not wait. Open connections go on as they are.
    pub fn reload_if_changed(&self) -> Reload {
        let mut seen = self.seen.lock();
        let contents = match Contents::read(&self.config) {
            Ok(contents) => contents,
            Err(fault) => return self.keep(&mut seen, Broken::Unreadable(fault.clone()), &fault),
        };
        let digest = contents.digest();
        if digest == seen.taken {
            seen.refused = None;
            return Reload::Unchanged;
        }
        match self.renewed(&contents) {
            Ok(current) => {
                let holder = &current.material.holder;
                let fields = [
                    ("identity", holder.identity.to_string().into()),
                    ("valid_s", (holder.not_after_s - unix_s()).into()),
                ];
                log::write(Level::Info, "tls files reloaded", &fields);
                *self.current.write() = Arc::new(current);
                *seen = Seen { taken: digest, refused: None };
                self.metrics.reloads.fetch_add(1, Relaxed);
                Reload::Taken
            }
            Err(fault) => {
                let again = [Broken::Mismatched(digest), Broken::Contents(digest)];
                if fault.is_mismatch && !seen.refused.as_ref().is_some_and(|r| again.contains(r)) {
                    seen.refused = Some(Broken::Mismatched(digest));
                    return Reload::Kept;
                }
                self.keep(&mut seen, Broken::Contents(digest), &fault)
            }
        }
    }

    /// Stays with what there is, and says so once.
    fn keep(&self, seen: &mut Seen, broken: Broken, fault: &FileFault) -> Reload {
        if seen.refused.as_ref() != Some(&broken) {
            self.metrics.reload_failures.fetch_add(1, Relaxed);
            let text = "new tls files can't be used, the old ones stay";
            log::write(Level::Error, text, &[("error", fault.to_string().into())]);
            seen.refused = Some(broken);
        }
        Reload::Kept
    }

    fn renewed(&self, contents: &Contents) -> Result<Current, FileFault> {
        let material = check(&self.config, contents, &self.provider, UnixTime::now())?;
        let fault = |what: String, remedy: &str| FileFault {
            file: self.config.certificate_file.clone(),
            what,
            remedy: remedy.to_owned(),
            is_missing: false,
            is_mismatch: false,
        };
        let (new, old) = (&material.holder.identity, self.identity());
        if *new != old {
            let what = format!("names {new}, and this node is {old}");
            return Err(fault(what, "use this node's own certificate, or restart the node"));
        }
        Current::new(material, &self.provider)
            .map_err(|error| fault(format!("can't be used: {error}"), "have it issued anew"))
    }

    /// Looks at the files again and again, until the runtime ends.
    pub async fn follow_files(self: Arc<Self>) {
        let interval = Duration::from_millis(self.config.reload_interval_ms);
        loop {
            tokio::time::sleep(interval).await;
            let tls = self.clone();
            if tokio::task::spawn_blocking(move || tls.reload_if_changed()).await.is_err() {
                log::write(Level::Error, "a look at the tls files has panicked", &[]);
            }
        }
    }
}

impl Current {
    fn new(material: Material, provider: &Arc<CryptoProvider>) -> Result<Current, rustls::Error> {
        let config = |port| server_config(&material, provider, port).map(Arc::new);
        let (client_port, peer_port) = (config(Port::Client)?, config(Port::Peer)?);
        Ok(Current { material, client_port, peer_port })
    }
}

fn server_config(
    material: &Material,
    provider: &Arc<CryptoProvider>,
    port: Port,
) -> Result<ServerConfig, rustls::Error> {
    let roots = material.roots.clone();
    let chain = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let verifier = verify::Clients {
        chain,
        trust_domain: material.holder.identity.trust_domain().into(),
        only_nodes: port == Port::Peer,
    };
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(material.key.clone())));
    config.alpn_protocols = port.protocols();
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

async fn within<T>(
    limit: Duration,
    handshake: impl Future<Output = io::Result<T>>,
) -> Result<T, Refusal> {
    match tokio::time::timeout(limit, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(Refusal::of(&error)),
        Err(_) => {
            let message = format!("the handshake took longer than {} ms", limit.as_millis());
            Err(Refusal::new(Reason::Timeout, message))
        }
    }
}

fn unix_s() -> i64 {
    UnixTime::now().as_secs() as i64
}

/// Who the other side of a handshake is that has passed all checks, and for how long.
fn other_side(chain: Option<&[CertificateDer<'_>]>) -> Result<(Identity, Duration), Refusal> {
    let Some(leaf) = chain.and_then(<[_]>::first) else {
        return Err(Refusal::new(Reason::NoCertificate, "there was no certificate"));
    };
    let holder = Holder::read(leaf).map_err(|what| Refusal::new(Reason::Identity, what))?;
    let left_s = holder.not_after_s - unix_s();
    Ok((holder.identity, Duration::from_secs(left_s.max(0) as u64)))
}
