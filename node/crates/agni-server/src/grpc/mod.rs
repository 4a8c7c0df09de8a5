//! gRPC over HTTP/2, without tonic where a request is hot.

pub mod body;
pub mod frame;
pub mod keepalive;
pub mod router;
pub mod status;
pub mod unary;
pub mod watch;
