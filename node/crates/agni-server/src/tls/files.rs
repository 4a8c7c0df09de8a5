//! Certificate, key and trust bundle out of files, checked before anything is built upon them.
//!
//! Each fault is named with its file and its remedy here, where it is still known; a handshake
//! would only say that it failed.

use super::config::TlsConfig;
use super::identity::{Holder, vouching};
use crate::config::ServerError;
use crate::limits;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore, SignatureAlgorithm};
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

const RENEW: &str = "renew it; in development: agnictl dev ca renew";

/// What is wrong with a file, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileFault {
    /// Which one.
    pub file: PathBuf,
    /// What is wrong with it.
    pub what: String,
    /// What to do.
    pub remedy: String,
    /// Whether it isn't there.
    pub is_missing: bool,
    /// Whether certificate and key don't belong together: they may just be being replaced.
    pub is_mismatch: bool,
}

impl FileFault {
    fn new(file: &Path, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        FileFault {
            file: file.to_owned(),
            what: what.into(),
            remedy: remedy.into(),
            is_missing: false,
            is_mismatch: false,
        }
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}; {}", self.file.display(), self.what, self.remedy)
    }
}

impl From<FileFault> for ServerError {
    fn from(fault: FileFault) -> Self {
        let code = if fault.is_missing { "IDENTITY_MISSING" } else { "IDENTITY_INVALID" };
        ServerError::new(code, fault.to_string())
    }
}

/// The three files as they were read. Never shown: one of them is the private key.
pub struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    trust: Vec<u8>,
}

impl Contents {
    /// Reads the files.
    ///
    /// # Errors
    /// Names the first that can't be read.
    pub fn read(config: &TlsConfig) -> Result<Contents, FileFault> {
        Ok(Contents {
            certificate: read(&config.certificate_file, "the certificate")?,
            key: read(&config.key_file, "the private key")?,
            trust: read(&config.trust_file, "the trust bundle")?,
        })
    }

    /// Tells these contents from others. Contents are compared and not times or inodes, since
    /// secrets are swapped by a symbolic link in some places and copied over in others.
    pub fn digest(&self) -> u128 {
        let mut sum = Xxh3::new();
        for content in [&self.certificate, &self.key, &self.trust] {
            sum.update(&(content.len() as u64).to_le_bytes());
            sum.update(content);
        }
        sum.digest128()
    }
}

/// What the files hold, checked.
pub struct Material {
    /// The certificate with what leads up to a root, and its key.
    pub key: Arc<CertifiedKey>,
    /// Whom to trust.
    pub roots: Arc<RootCertStore>,
    /// SHA-256 of the bundle that says so, as hexadecimal text.
    pub trust_sha256: String,
    /// Whom the certificate names.
    pub holder: Holder,
}

/// SHA-256 as hexadecimal text.
pub fn sha256(data: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, data);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks contents: they belong together and can be used now.
///
/// # Errors
/// Names the file at fault.
pub fn check(
    config: &TlsConfig,
    contents: &Contents,
    provider: &CryptoProvider,
    now: UnixTime,
) -> Result<Material, FileFault> {
    let file = &config.certificate_file;
    let chain = certificates(file, &contents.certificate, "the node's certificate")?;
    let key = certified(config, chain, &contents.key, provider)?;
    let leaf = &key.cert[0];
    let holder = holder(config, leaf, now.as_secs() as i64)?;
    let roots = bundle(&config.trust_file, &contents.trust, now.as_secs() as i64)?;
    let trusted = ParsedCertificate::try_from(leaf).and_then(|parsed| {
        let all = provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, &key.cert[1..], now, all)
    });
    if let Err(error) = trusted {
        let bundle = config.trust_file.display();
        return Err(FileFault::new(
            file,
            format!("is not vouched for by {bundle} ({error})"),
            "name the bundle of the CA that issued it, and put the CAs between them behind it",
        ));
    }
    let trust_sha256 = sha256(&contents.trust);
    Ok(Material { key, roots: Arc::new(roots), trust_sha256, holder })
}

fn certified(
    config: &TlsConfig,
    chain: Vec<CertificateDer<'static>>,
    key: &[u8],
    provider: &CryptoProvider,
) -> Result<Arc<CertifiedKey>, FileFault> {
    let file = &config.key_file;
    let use_p256 = "use a key on P-256 (or P-384, or RSA of at least 2048 bits)";
    let encrypted = key.windows(9).any(|window| window == b"ENCRYPTED");
    let Ok(key) = PrivateKeyDer::from_pem_slice(key) else {
        return Err(match encrypted {
            true => FileFault::new(
                file,
                "the private key has a passphrase",
                "write it without one, readable for this user alone",
            ),
            false => FileFault::new(
                file,
                "holds no private key as PEM",
                "name the key's file; in development: agnictl dev ca issue",
            ),
        });
    };
    // What the library says of a key may carry parts of it; so it isn't passed on.
    let Ok(signing) = provider.key_provider.load_private_key(key) else {
        return Err(FileFault::new(file, "has a key of a kind that is not accepted", use_p256));
    };
    if signing.algorithm() == SignatureAlgorithm::ED25519 {
        let what = "has an Ed25519 key, which gRPC's Python library refuses in a TLS handshake";
        return Err(FileFault::new(file, what, use_p256));
    }
    let certified = CertifiedKey::new(chain, signing);
    match certified.keys_match() {
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(Arc::new(certified)),
        Err(Error::InconsistentKeys(_)) => Err(FileFault {
            is_mismatch: true,
            ..FileFault::new(
                &config.certificate_file,
                format!("does not belong to the key in {}", file.display()),
                "name a certificate and its own key",
            )
        }),
        Err(error) => Err(FileFault::new(
            &config.certificate_file,
            format!("can't be used: {error}"),
            "have it issued anew",
        )),
    }
}

fn holder(config: &TlsConfig, leaf: &[u8], now_s: i64) -> Result<Holder, FileFault> {
    let file = &config.certificate_file;
    let holder = Holder::read(leaf).map_err(|what| {
        FileFault::new(
            file,
            what,
            "have it issued anew with its SPIFFE ID as the one URI among its names",
        )
    })?;
    if holder.is_ca {
        let remedy = "name the leaf certificate first in the file";
        return Err(FileFault::new(file, "is a CA's certificate", remedy));
    }
    if holder.not_after_s <= now_s {
        let seconds = now_s - holder.not_after_s;
        return Err(FileFault::new(file, format!("expired {} ago", time_word(seconds)), RENEW));
    }
    if holder.not_before_s > now_s {
        let seconds = time_word(holder.not_before_s - now_s);
        return Err(FileFault::new(
            file,
            format!("is not valid yet, it will be in {seconds}"),
            "set this machine's clock, or wait",
        ));
    }
    let (is, wanted) = (holder.identity.trust_domain(), &config.trust_domain);
    if !wanted.is_empty() && is != wanted {
        return Err(FileFault::new(
            file,
            format!("is of the trust domain {is}, and trust_domain says {wanted}"),
            "name the certificate of this trust domain, or set trust_domain",
        ));
    }
    if holder.identity.node_name().is_none() {
        return Err(FileFault::new(
            file,
            format!("names {}, which is no node", holder.identity),
            "use a certificate for spiffe://TRUST_DOMAIN/registry/node/ID; in development: agnictl \
             dev ca issue node",
        ));
    }
    Ok(holder)
}

fn bundle(file: &Path, pem: &[u8], now_s: i64) -> Result<RootCertStore, FileFault> {
    let mut roots = RootCertStore::empty();
    let mut last = i64::MIN;
    let damaged = |what: String| FileFault::new(file, what, "have it written anew");
    for certificate in certificates(file, pem, "the trust bundle")? {
        let (is_ca, not_after_s) = vouching(&certificate)
            .map_err(|what| damaged(format!("holds a certificate, and {what}")))?;
        if !is_ca {
            return Err(FileFault::new(
                file,
                "holds a certificate that is not a CA's",
                "name the trust bundle, not a leaf certificate",
            ));
        }
        last = last.max(not_after_s);
        roots
            .add(certificate)
            .map_err(|error| damaged(format!("holds a certificate that can't be used: {error}")))?;
    }
    if last <= now_s {
        return Err(FileFault::new(
            file,
            format!("every CA certificate in it has expired, the last one {} ago", {
                time_word(now_s - last)
            }),
            "get the current bundle",
        ));
    }
    Ok(roots)
}

fn certificates(
    file: &Path,
    pem: &[u8],
    what: &str,
) -> Result<Vec<CertificateDer<'static>>, FileFault> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => {
            Err(FileFault::new(file, "holds no certificate as PEM", format!("name {what} here")))
        }
        Err(_) => Err(FileFault::new(file, "is damaged", "have it written anew")),
    }
}

fn read(file: &Path, what: &str) -> Result<Vec<u8>, FileFault> {
    let mut content = Vec::new();
    let opened = File::open(file);
    let most = limits::TLS_FILE_BYTES_MAX as u64 + 1;
    let read = opened.and_then(|opened| opened.take(most).read_to_end(&mut content));
    match read {
        Ok(_) if content.len() > limits::TLS_FILE_BYTES_MAX => {
            let most = limits::TLS_FILE_BYTES_MAX;
            let too_large = format!("is larger than {most} bytes");
            Err(FileFault::new(file, too_large, format!("name {what}")))
        }
        Ok(_) => Ok(content),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(FileFault {
            is_missing: true,
            ..FileFault::new(
                file,
                format!("{what} isn't there"),
                "check the path; in development: agnictl dev ca issue",
            )
        }),
        Err(error) => Err(FileFault::new(
            file,
            format!("{what} can't be read: {error}"),
            "let this user read it",
        )),
    }
}

/// A time as somebody would say it.
fn time_word(seconds: i64) -> String {
    match seconds {
        ..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}
