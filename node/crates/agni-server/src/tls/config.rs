//! Which files a node's identity comes from.

use crate::limits;
use std::path::PathBuf;

/// Certificate, key and trust bundle of a node, all of them PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The node's certificate, then what leads up to a root.
    pub certificate_file: PathBuf,
    /// Its private key, without a passphrase.
    pub key_file: PathBuf,
    /// The CA certificates that are trusted to vouch for others.
    pub trust_file: PathBuf,
    /// The trust domain of which everybody must be; empty takes that of the certificate.
    pub trust_domain: String,
    /// Time between two looks at whether the files have changed, in milliseconds.
    pub reload_interval_ms: u64,
}

impl Default for TlsConfig {
    fn default() -> Self {
        TlsConfig {
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            trust_file: PathBuf::new(),
            trust_domain: String::new(),
            reload_interval_ms: limits::TLS_RELOAD_MS_DEFAULT,
        }
    }
}

impl TlsConfig {
    /// What is wrong with it, as far as that can be told without reading a file.
    pub fn fault(&self) -> Option<String> {
        let files = [
            ("certificate_file", &self.certificate_file),
            ("key_file", &self.key_file),
            ("trust_file", &self.trust_file),
        ];
        if let Some((field, _)) = files.iter().find(|(_, file)| file.as_os_str().is_empty()) {
            return Some(format!("tls.{field} is empty, and TLS needs all three files; name it"));
        }
        if self.reload_interval_ms == 0 {
            return Some("tls.reload_interval_ms must be at least 1".to_owned());
        }
        None
    }
}
