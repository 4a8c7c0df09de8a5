//! HTTP/JSON: the same operations for people, scripts and browsers.

pub mod metrics;
pub mod openapi;
pub mod openapi_schemas;
pub mod parse;
pub mod print;
pub mod query;
pub mod router;
mod routes;
pub mod sse;
pub mod words;
