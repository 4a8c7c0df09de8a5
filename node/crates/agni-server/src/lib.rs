//! The network face of a data node: gRPC and HTTP/JSON on one port.
//!
//! `accept` deals connections out to the runtimes; `router` tells gRPC from HTTP; both speak to
//! `ops`, which checks, asks the engine and answers. `runtime` is the hand-over to the engine.

mod accept;
pub mod config;
mod engine_api;
pub mod grpc;
pub mod http;
mod io;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod node;
pub mod ops;
mod router;
pub mod runtime;
mod server;
pub mod token;
pub mod watch;
pub mod wire;

pub use config::{ServerConfig, ServerError};
pub use server::Server;

/// The generated services, for their names and for tests.
#[allow(missing_docs, clippy::all, clippy::pedantic)]
pub mod services {
    include!(concat!(env!("OUT_DIR"), "/agniregistry.api.v1.rs"));
}
