//! HTTP/JSON: the same operations for people, scripts and browsers.

pub mod json;
pub mod openapi;
pub mod openapi_schemas;
pub mod query;
pub mod router;
pub mod sse;
