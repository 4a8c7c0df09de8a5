//! TLS 1.3 on both of a node's ports, with certificates on both sides of each connection.
//!
//! Who somebody is stands in the one URI of its certificate, a SPIFFE ID. A client checks a node
//! by its host name too; nodes check each other by the ID alone, since it says which node it is.

mod config;
mod files;
mod identity;
mod refusal;
mod secure;
mod verify;

pub use config::TlsConfig;
pub use identity::{Identity, PeerName};
pub use refusal::{Reason, Refusal};
pub use secure::{Port, Reload, Secured, Tls, TlsMetrics};
