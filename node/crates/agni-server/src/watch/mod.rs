//! Watches: each runtime pulls the partitions' event logs for the watches that it serves.

pub mod dispatcher;
pub mod encode;
pub mod handle;
mod remote;
pub mod request;
pub mod wait;
