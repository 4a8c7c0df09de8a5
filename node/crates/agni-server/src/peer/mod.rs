//! How nodes talk to each other: Raft messages in batches over one call a direction, or several
//! where packets are lost, snapshots on connections of their own, and a new node's first words.
//!
//! All of it lives on a thread of its own, so that clients, however many, never delay a heartbeat.

mod announce;
pub mod aside;
mod backoff;
pub mod config;
mod convert;
mod face;
mod gather;
mod join;
mod lanes;
mod links;
mod listen;
mod loss;
mod nonce;
pub mod queue;
mod receive_snapshot;
mod send_snapshot;
mod service;
mod thread;

pub use config::ClusterConfig;
pub use thread::{PeerSettings, PeerThread};
