//! Words and bytes as HTTP writes them, in paths, queries and bodies alike.

use crate::status::RpcError;
use agni_core::proto::api::Kind;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// The kind with this name.
pub fn kind_of_word(field: &str, word: &str) -> Result<Kind, RpcError> {
    match word {
        "gateway" => Ok(Kind::Gateway),
        "agent" => Ok(Kind::Agent),
        _ => Err(RpcError::field(field, "must be gateway or agent")),
    }
}

/// The kind of a path of HTTP.
pub fn kind_of_path(word: &str) -> Option<Kind> {
    match word {
        "gateways" => Some(Kind::Gateway),
        "agents" => Some(Kind::Agent),
        _ => None,
    }
}

/// Bytes as base64 with or without padding.
pub fn base64(field: &str, text: &str) -> Result<Vec<u8>, RpcError> {
    let decoded = STANDARD.decode(text).or_else(|_| STANDARD_NO_PAD.decode(text));
    decoded.map_err(|_| RpcError::field(field, "must be base64"))
}
