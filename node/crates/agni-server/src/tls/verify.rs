//! Who may come in, and whom we speak to: the chain as everybody checks it, then the SPIFFE ID
//! in place of a host name.

use super::identity::{Holder, Identity};
use super::refusal::{Reason, Refusal};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// Checks who connects to us.
#[derive(Debug)]
pub struct Clients {
    /// Checks chain, time and usage.
    pub chain: Arc<dyn ClientCertVerifier>,
    /// Of which everybody must be.
    pub trust_domain: Arc<str>,
    /// Whether only nodes may connect.
    pub only_nodes: bool,
}

impl ClientCertVerifier for Clients {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(certificate, intermediates, now)?;
        let identity = identity(certificate, &self.trust_domain)?;
        if self.only_nodes && identity.node_name().is_none() {
            let message = format!("{identity} is no node, and only nodes may connect here");
            return Err(Refusal::new(Reason::Identity, message).into_error());
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Checks that whom we connect to is a node, and the very one that we mean.
#[derive(Debug)]
pub struct Nodes {
    /// The CA certificates that are trusted.
    pub roots: Arc<RootCertStore>,
    /// What signatures are understood.
    pub algorithms: WebPkiSupportedAlgorithms,
    /// Of which every node must be.
    pub trust_domain: Arc<str>,
    /// Which one it must be; none where any node will do.
    pub expected: Option<Identity>,
}

impl ServerCertVerifier for Nodes {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(certificate)?;
        let all = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, all)?;
        let identity = identity(certificate, &self.trust_domain)?;
        if identity.node_name().is_none() {
            let message = format!("{identity} is no node");
            return Err(Refusal::new(Reason::Identity, message).into_error());
        }
        if let Some(expected) = &self.expected
            && identity != *expected
        {
            let message = format!("it is {identity}, not {expected}");
            return Err(Refusal::new(Reason::WrongNode, message).into_error());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Whom a certificate names, if that is somebody of this trust domain.
fn identity(certificate: &CertificateDer<'_>, trust_domain: &str) -> Result<Identity, Error> {
    let holder = Holder::read(certificate).map_err(|what| {
        Refusal::new(Reason::Identity, format!("its certificate is refused: {what}")).into_error()
    })?;
    if holder.identity.trust_domain() != trust_domain {
        let message = format!("{} is not of the trust domain {trust_domain}", holder.identity);
        return Err(Refusal::new(Reason::TrustDomain, message).into_error());
    }
    Ok(holder.identity)
}
