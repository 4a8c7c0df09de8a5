//! Replication without I/O: `Core::handle(event, now)` takes what happened and says what to do.
//!
//! A partition is always a Raft group; a node that is alone runs groups of one voter on the same
//! path. The threads of `crate::engine` are the shell around this.

mod age;
mod apply;
pub mod cell;
mod cluster;
pub mod core;
mod election;
mod expiry;
mod fitness;
pub mod group;
pub mod log_tail;
mod membership;
mod outbox;
mod ready;
mod reconfigure;
pub mod recovery;
pub mod replicas;
pub mod restart;
mod rounds;
pub mod snapshots;
pub mod state_check;
mod transfers;
pub mod work;
