//! Why a handshake came to nothing: a word to count by, and a sentence for the log.

use rustls::{CertificateError, Error, InvalidMessage, OtherError};
use std::fmt;
use std::io;
use std::sync::Arc;

/// What went wrong, as far as somebody would act differently upon it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The other side showed no certificate.
    NoCertificate,
    /// Its certificate has expired.
    Expired,
    /// Its certificate isn't valid yet.
    NotYetValid,
    /// No CA in our trust bundle vouches for its certificate.
    Untrusted,
    /// Its certificate is of another trust domain.
    TrustDomain,
    /// Its certificate doesn't have exactly one SPIFFE ID, or none that may come here.
    Identity,
    /// It is another node than the one that was to be reached.
    WrongNode,
    /// The other side refused us.
    RefusedByPeer,
    /// It doesn't speak TLS.
    NotTls,
    /// It took too long.
    Timeout,
    /// It closed the connection.
    Closed,
    /// Anything else.
    Protocol,
}

impl Reason {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Reason; 12] = [
        Reason::NoCertificate,
        Reason::Expired,
        Reason::NotYetValid,
        Reason::Untrusted,
        Reason::TrustDomain,
        Reason::Identity,
        Reason::WrongNode,
        Reason::RefusedByPeer,
        Reason::NotTls,
        Reason::Timeout,
        Reason::Closed,
        Reason::Protocol,
    ];

    /// The word that metrics and log lines call it by.
    pub fn word(self) -> &'static str {
        match self {
            Reason::NoCertificate => "no_certificate",
            Reason::Expired => "expired",
            Reason::NotYetValid => "not_yet_valid",
            Reason::Untrusted => "untrusted",
            Reason::TrustDomain => "trust_domain",
            Reason::Identity => "identity",
            Reason::WrongNode => "wrong_node",
            Reason::RefusedByPeer => "refused_by_peer",
            Reason::NotTls => "not_tls",
            Reason::Timeout => "timeout",
            Reason::Closed => "closed",
            Reason::Protocol => "protocol",
        }
    }
}

/// A handshake that came to nothing.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The reason to count.
    pub reason: Reason,
    /// What happened, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Refusal { reason, message: message.into() }
    }

    /// In the form in which it passes through rustls.
    pub fn into_error(self) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }

    /// What a failed handshake says.
    pub fn of(error: &io::Error) -> Refusal {
        let within = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let Some(error) = within else {
            let reason = match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => Reason::Closed,
                _ => Reason::Protocol,
            };
            return Refusal::new(reason, error.to_string());
        };
        let reason = match error {
            Error::NoCertificatesPresented => Reason::NoCertificate,
            Error::AlertReceived(_) => Reason::RefusedByPeer,
            Error::InvalidMessage(InvalidMessage::InvalidContentType) => Reason::NotTls,
            Error::InvalidCertificate(fault) => match fault {
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Reason::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    Reason::NotYetValid
                }
                CertificateError::Other(OtherError(ours)) => match ours.downcast_ref::<Refusal>() {
                    Some(refusal) => return refusal.clone(),
                    None => Reason::Untrusted,
                },
                _ => Reason::Untrusted,
            },
            _ => Reason::Protocol,
        };
        Refusal::new(reason, error.to_string())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({})", self.message, self.reason.word())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_distinct_words_and_places() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{}", reason.word());
        }
        let words: std::collections::HashSet<_> = Reason::ALL.iter().map(|r| r.word()).collect();
        assert_eq!(words.len(), Reason::ALL.len());
    }

    #[test]
    fn a_refusal_survives_its_way_through_the_library() {
        let ours = Refusal::new(Reason::TrustDomain, "it is of another trust domain");
        let error = io::Error::other(ours.into_error());
        assert_eq!(Refusal::of(&error).reason, Reason::TrustDomain);
        let closed = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(Refusal::of(&closed).reason, Reason::Closed);
        let expired = Error::InvalidCertificate(CertificateError::Expired);
        assert_eq!(Refusal::of(&io::Error::other(expired)).reason, Reason::Expired);
    }
}
