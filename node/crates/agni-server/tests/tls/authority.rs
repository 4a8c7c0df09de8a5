//! A CA that issues whatever a test wants, and clients that show it.

use agni_server::tls::TlsConfig;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const TRUST_DOMAIN: &str = "eu.example.org";

pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// What a leaf is to be; changed by tests that want a bad one.
pub struct Wish {
    pub uris: Vec<String>,
    pub ends: Duration,
    pub key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("key");
        let pem = params.self_signed(&key).expect("root").pem();
        Authority { pem, issuer: Issuer::new(params, key) }
    }

    /// A good leaf of the trust domain, valid for a day from now on.
    pub fn leaf(&self, path: &str) -> Pair {
        self.leaf_with(path, |_| ())
    }

    pub fn leaf_with(&self, path: &str, change: impl FnOnce(&mut Wish)) -> Pair {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("now");
        let mut wish = Wish {
            uris: vec![format!("spiffe://{TRUST_DOMAIN}{path}")],
            ends: now + Duration::from_secs(86_400),
            key: KeyPair::generate().expect("key"),
        };
        change(&mut wish);
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(1970, 1, 1) + wish.ends;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![Usage::ServerAuth, Usage::ClientAuth];
        let address = SanType::IpAddress([127, 0, 0, 1].into());
        let uris = wish.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().expect("uri")));
        params.subject_alt_names = uris.chain([address]).collect();
        let certificate = params.signed_by(&wish.key, &self.issuer).expect("leaf").pem();
        Pair { certificate, key: wish.key.serialize_pem() }
    }

    /// A client that trusts this CA and shows a certificate, or none.
    pub fn client(&self, pair: Option<&Pair>, protocol: &str) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).expect("pem")).expect("root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.certificate.as_bytes());
                let chain = chain.collect::<Result<_, _>>().expect("chain");
                let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("key");
                builder.with_client_auth_cert(chain, key).expect("certificate")
            }
        };
        config.alpn_protocols = vec![protocol.into()];
        TlsConnector::from(Arc::new(config))
    }
}

/// A node's files in a folder, under the names of a Kubernetes secret.
pub struct Files(pub PathBuf);

impl Files {
    pub fn new(folder: &Path, authority: &Authority, pair: &Pair) -> Files {
        let files = Files(folder.to_owned());
        files.write("ca.crt", &authority.pem);
        files.replace(pair);
        files
    }

    pub fn replace(&self, pair: &Pair) {
        self.write("tls.key", &pair.key);
        self.write("tls.crt", &pair.certificate);
    }

    /// As `docs/identity.md` asks: beside the old one, then renamed into place.
    pub fn write(&self, name: &str, content: &str) {
        let beside = self.0.join(format!(".{name}"));
        std::fs::write(&beside, content).expect("write");
        std::fs::rename(beside, self.0.join(name)).expect("rename");
    }

    pub fn config(&self) -> TlsConfig {
        TlsConfig {
            certificate_file: self.0.join("tls.crt"),
            key_file: self.0.join("tls.key"),
            trust_file: self.0.join("ca.crt"),
            trust_domain: TRUST_DOMAIN.into(),
            reload_interval_ms: 20,
        }
    }
}

/// Connects as a client does: it checks the address that the certificate was issued for.
pub async fn connect(
    address: std::net::SocketAddr,
    client: &TlsConnector,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    client.connect("127.0.0.1".try_into().expect("name"), stream).await
}
