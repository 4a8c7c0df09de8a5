//! Asking another node for a copy of a partition, as a stream of pieces.

use super::remote;
use crate::limits;
use crate::node::Node;
use agni_core::proto::api::BackupPiece;
use agni_core::proto::api::backup_piece::Piece;
use agni_core::proto::node::CopyRequest;
use bytes::Bytes;
use std::time::Duration;
use tonic::Streaming;

/// Begins one.
///
/// # Errors
/// Says why the node doesn't.
pub async fn open(
    node: &Node,
    source: u64,
    partition: u32,
    at_least: u64,
) -> Result<Streaming<BackupPiece>, String> {
    let client = remote::client(node, source);
    let mut client = client.map_err(|_| format!("node {source} can't be reached"))?;
    let cluster_id = Bytes::copy_from_slice(&node.engine.cluster_id());
    let asked = client.copy(CopyRequest { cluster_id, partition, at_least });
    let limit = Duration::from_millis(limits::PEER_ANSWER_MS_MAX);
    match tokio::time::timeout(limit, asked).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(format!("node {source}: {}", status.message())),
        Err(_) => Err(format!("node {source} didn't answer for {} ms", limit.as_millis())),
    }
}

/// The next piece; none at the end. The first one comes when the snapshot has been taken.
///
/// # Errors
/// Says how the stream broke.
pub async fn next(
    stream: &mut Streaming<BackupPiece>,
    is_first: bool,
) -> Result<Option<Piece>, String> {
    let limit_ms = match is_first {
        true => limits::BACKUP_SNAPSHOT_MS_MAX,
        false => limits::SNAPSHOT_PIECE_MS_MAX,
    };
    match tokio::time::timeout(Duration::from_millis(limit_ms), stream.message()).await {
        Ok(Ok(None)) => Ok(None),
        Ok(Ok(Some(BackupPiece { piece: Some(piece) }))) => Ok(Some(piece)),
        Ok(Ok(Some(_))) => Err("the other node sent an empty piece".to_owned()),
        Ok(Err(status)) => Err(format!("the other node: {}", status.message())),
        Err(_) => Err(format!("the other node sent nothing for {limit_ms} ms")),
    }
}
