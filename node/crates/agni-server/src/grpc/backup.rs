//! The streams of backups: `Backup` for clients, `Copy` for other nodes.

use crate::call::Call;
use crate::grpc::frame::{Messages, decode};
use crate::grpc::pieces::Pieces;
use crate::node::Node;
use crate::ops::backup;
use crate::status::RpcError;
use std::sync::Arc;
use std::time::Duration;

/// Begins to answer one.
pub async fn serve(node: &Arc<Node>, call: Call, messages: Messages) -> Result<Pieces, RpcError> {
    let limit = Duration::from_millis(node.config.header_timeout_ms);
    let bytes =
        tokio::time::timeout(limit, messages.only()).await.map_err(|_| RpcError::too_slow())??;
    let pieces = match call {
        Call::Copy => backup::begin_copy(node, decode(bytes)?)?,
        _ => backup::begin(node, decode(bytes)?)?,
    };
    Ok(Pieces::new(pieces))
}
