//! A load generator that costs less than what it measures.
//!
//! One thread, raw HTTP/2 frames, requests that were encoded before the run. It knows nothing of
//! any registry: a method's path and a file of messages are all it is given, so that two servers
//! are measured by exactly the same code.

pub mod args;
pub mod bodies;
pub mod connection;
pub mod frame;
pub mod histogram;
pub mod message;
pub mod poll;
