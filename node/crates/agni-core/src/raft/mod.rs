//! Replication without I/O: `Core::handle(event, now)` takes what happened and says what to do.
//!
//! A partition is always a Raft group; a node that is alone runs groups of one voter on the same
//! path. The threads of `crate::engine` are the shell around this.

pub mod cell;
pub mod core;
pub mod group;
pub mod log_tail;
pub mod recovery;
pub mod work;
