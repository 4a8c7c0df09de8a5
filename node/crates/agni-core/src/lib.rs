//! The engine of a data node: log, store, leases and replication.
//!
//! `raft::core` decides, `engine` carries out. Nothing in here knows of the network.

// Clock and files only through their seams: clippy.toml names what is meant.
#![cfg_attr(not(test), warn(clippy::disallowed_methods))]

mod capacity;
pub mod clock;
pub mod engine;
pub mod env;
pub mod error;
pub mod fatal;
pub mod key;
pub mod lease;
pub mod limits;
pub mod metrics;
pub mod planted;
pub mod proto;
pub mod raft;
pub mod random;
pub mod ring;
pub mod snapshot;
pub mod store;
pub mod system;
pub mod validate;
pub mod wal;
