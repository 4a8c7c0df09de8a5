//! The network face of a data node.

/// The generated services.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod services {
    include!(concat!(env!("OUT_DIR"), "/agniregistry.api.v1.rs"));
}
