//! gRPC over HTTP/2, without tonic where a request is hot.

pub mod backup;
pub mod frame;
pub mod keepalive;
pub mod pieces;
pub mod router;
pub mod unary;
pub mod watch;
