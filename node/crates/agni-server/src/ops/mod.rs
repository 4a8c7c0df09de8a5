//! What the API does, apart from how it is spoken: gRPC and HTTP call the same functions.

pub mod admin;
pub mod backup;
pub mod cluster;
pub mod discover;
pub mod read;
pub mod write;
