//! The network face of a data node: gRPC and HTTP/JSON on one port.
//!
//! A request's way: `accept` deals connections out to the runtimes, `connection` serves one,
//! `router` tells gRPC from HTTP, `grpc` and `http` read the message, `ops` checks it and asks the
//! engine, through `runtime` where something is written, or, by way of `route`, the node that leads
//! the partition. Its answer goes back as a `body`, put
//! together in `wire` and sent by `io`.
//!
//! Modules use one another downwards only:
//! ```text
//! server > health > http
//! server > accept, connection > router > grpc, http > permit, watch > ops > admission, route
//!        > runtime > node
//!        > token, metrics > status > body > call, wire, io > header_blocks, tls
//!        > config, dial, hints, log, pace, process, limits
//! server > peer > runtime
//! ```

mod accept;
mod access;
mod admission;
pub mod body;
pub mod call;
pub mod config;
pub mod connection;
mod dial;
pub mod grpc;
mod header_blocks;
mod heads;
mod health;
mod hints;
pub mod http;
mod io;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod node;
pub mod ops;
mod pace;
pub mod peer;
mod permit;
mod process;
mod random;
pub mod route;
mod router;
pub mod runtime;
mod server;
pub mod status;
mod tcp;
pub mod tls;
pub mod token;
pub mod watch;
pub mod wire;

pub use config::{ServerConfig, ServerError};
pub use server::Server;
pub use tls::TlsConfig;

/// The generated services, for their names and for tests.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod services {
    include!(concat!(env!("OUT_DIR"), "/agniregistry.api.v1.rs"));
}

/// The generated services between nodes.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod peer_services {
    include!(concat!(env!("OUT_DIR"), "/agniregistry.node.v1.rs"));
}
