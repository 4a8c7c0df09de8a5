//! Who somebody is: the SPIFFE ID that is the one URI among a certificate's names.
//!
//! Strict on purpose, as `agniregistry.identity` is in Python: nothing is decoded, folded or
//! normalized, so that two IDs are the same exactly if their bytes are.

use crate::limits::{SPIFFE_ID_BYTES_MAX, TRUST_DOMAIN_BYTES_MAX};
use std::fmt;
use std::sync::Arc;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

const SCHEME: &str = "spiffe://";
const NODE_PATH: &str = "/registry/node/";

/// A checked SPIFFE ID. Cheap to clone: it goes into the extensions of each request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    text: Arc<str>,
    path_at: usize,
}

impl Identity {
    /// Reads an ID.
    ///
    /// # Errors
    /// Says what is wrong with a text that is none.
    pub fn parse(text: &str) -> Result<Identity, String> {
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return Err(format!("the URI does not begin with {SCHEME}"));
        };
        if text.len() > SPIFFE_ID_BYTES_MAX {
            return Err(format!("the SPIFFE ID has more than {SPIFFE_ID_BYTES_MAX} bytes"));
        }
        let (domain, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        check_trust_domain(domain)?;
        if let Some(segments) = path.strip_prefix('/')
            && !segments.split('/').all(is_segment)
        {
            return Err("a segment of the SPIFFE ID's path is empty or has a character that it \
                        must not have"
                .to_owned());
        }
        Ok(Identity { text: text.into(), path_at: SCHEME.len() + domain.len() })
    }

    /// The node with this name.
    pub fn of_node(trust_domain: &str, name: &PeerName) -> Identity {
        let text = format!("{SCHEME}{trust_domain}{NODE_PATH}{}", name.0);
        Identity { text: text.into(), path_at: SCHEME.len() + trust_domain.len() }
    }

    /// Who vouches for it, such as `eu.example.org`.
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path_at]
    }

    /// Empty, or what begins with a slash.
    pub fn path(&self) -> &str {
        &self.text[self.path_at..]
    }

    /// The name of a node of the registry; none for everybody else.
    pub fn node_name(&self) -> Option<&str> {
        self.path().strip_prefix(NODE_PATH).filter(|name| is_segment(name))
    }

    /// Whether it is whoever looks after the cluster.
    pub fn is_operator(&self) -> bool {
        self.path() == "/operator"
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

/// The name of a node as it stands in its SPIFFE ID.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PeerName(Arc<str>);

impl PeerName {
    /// A name.
    ///
    /// # Errors
    /// When no SPIFFE ID can have it.
    pub fn new(name: &str) -> Result<PeerName, String> {
        if !is_segment(name) {
            return Err(format!(
                "the node name {name:?} can't stand in a SPIFFE ID; use A-Z, a-z, 0-9, dot, dash \
                 and underscore"
            ));
        }
        Ok(PeerName(name.into()))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Checks the name of a trust domain.
///
/// # Errors
/// Says what is wrong.
pub fn check_trust_domain(name: &str) -> Result<(), String> {
    let allowed = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-')
    };
    if name.is_empty() || name.len() > TRUST_DOMAIN_BYTES_MAX {
        return Err(format!("the trust domain must have 1..{TRUST_DOMAIN_BYTES_MAX} bytes"));
    }
    if !name.bytes().all(allowed) {
        return Err("the trust domain has a character that it must not have; use a-z, 0-9, dot, \
                    dash and underscore"
            .to_owned());
    }
    Ok(())
}

fn is_segment(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(allowed)
}

/// What a certificate says of its holder. Nothing here proves anything: its signature does.
#[derive(Debug, Clone)]
pub struct Holder {
    /// Who it is.
    pub identity: Identity,
    /// When it begins, in seconds of Unix time.
    pub not_before_s: i64,
    /// When it ends, in seconds of Unix time.
    pub not_after_s: i64,
    /// Whether it may vouch for others.
    pub is_ca: bool,
}

impl Holder {
    /// Reads a certificate.
    ///
    /// # Errors
    /// When it is damaged, or doesn't have exactly one URI that is a SPIFFE ID.
    pub fn read(certificate: &[u8]) -> Result<Holder, String> {
        let certificate = parse(certificate)?;
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| "its names can't be read".to_owned())?;
        let names = names.map(|names| &names.value.general_names[..]).unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        let [uri] = uris[..] else {
            let count = uris.len();
            return Err(format!("it names {count} URIs, and must name exactly one, its SPIFFE ID"));
        };
        Ok(Holder {
            identity: Identity::parse(uri)?,
            not_before_s: certificate.validity().not_before.timestamp(),
            not_after_s: certificate.validity().not_after.timestamp(),
            is_ca: certificate.is_ca(),
        })
    }
}

/// Whether a certificate may vouch for others, and when it ends, in seconds of Unix time.
///
/// # Errors
/// When it is damaged.
pub fn vouching(certificate: &[u8]) -> Result<(bool, i64), String> {
    let certificate = parse(certificate)?;
    Ok((certificate.is_ca(), certificate.validity().not_after.timestamp()))
}

fn parse(certificate: &[u8]) -> Result<X509Certificate<'_>, String> {
    match X509Certificate::from_der(certificate) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err("it is damaged".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_apart_and_nothing_else_is() {
        let node = Identity::parse("spiffe://eu.example.org/registry/node/7").expect("id");
        assert_eq!((node.trust_domain(), node.node_name()), ("eu.example.org", Some("7")));
        let same = Identity::of_node("eu.example.org", &PeerName::new("7").expect("name"));
        assert_eq!(node, same);
        let agent = Identity::parse("spiffe://eu.example.org/t/default/agent/x").expect("id");
        assert_eq!((agent.node_name(), agent.path()), (None, "/t/default/agent/x"));
        let domain = Identity::parse("spiffe://eu").expect("id");
        assert_eq!((domain.trust_domain(), domain.path()), ("eu", ""));
        assert!(Identity::parse("spiffe://eu/operator").expect("id").is_operator());
    }

    #[test]
    fn what_only_resembles_an_id_is_refused() {
        for text in [
            "",
            "https://eu/x",
            "SPIFFE://eu/x",
            "spiffe://",
            "spiffe:///registry/node/1",
            "spiffe://EU/x",
            "spiffe://eu:1/x",
            "spiffe://eu/",
            "spiffe://eu//x",
            "spiffe://eu/x/",
            "spiffe://eu/../x",
            "spiffe://eu/a%2fb",
            "spiffe://eu/x?y",
        ] {
            assert!(Identity::parse(text).is_err(), "{text}");
        }
        assert!(Identity::parse(&format!("spiffe://eu/{}", "x".repeat(2048))).is_err());
        let deeper = Identity::parse("spiffe://eu/registry/node/1/2").expect("id");
        assert_eq!(deeper.node_name(), None);
    }

    #[test]
    fn a_node_name_fits_a_segment() {
        for name in ["", ".", "..", "a/b", "a b", "ä"] {
            assert!(PeerName::new(name).is_err(), "{name}");
        }
        assert_eq!(PeerName::new("node-1").expect("name").as_str(), "node-1");
    }

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        for bytes in [&b""[..], b"\x30\x03\x02\x01", &[0x30, 0x82, 0xff, 0xff]] {
            assert!(Holder::read(bytes).is_err());
        }
    }
}
