//! The generated messages, documented in `proto/`.

// The generated code names its siblings by their place in the package tree.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
mod agniregistry {
    pub mod api {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/agniregistry.api.v1.rs"));
        }
    }
    pub mod node {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/agniregistry.node.v1.rs"));
        }
    }
}

/// `agniregistry.api.v1`: the public API.
pub use agniregistry::api::v1 as api;
/// `agniregistry.node.v1`: the log, snapshots and commands of a node.
pub use agniregistry::node::v1 as node;
