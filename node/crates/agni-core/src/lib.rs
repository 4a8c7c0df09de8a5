//! The engine of a data node.

pub mod proto;
