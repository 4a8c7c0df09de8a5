//! What the engine needs of the network.

use crate::raft::work::{PeerMessage, SnapshotTransfer};

/// Brings messages to other nodes. Called on the driver's thread, so nothing in here may wait.
pub trait Peers: Send {
    /// Takes the messages of one turn; leaves `messages` empty. Each names whom it is for. What
    /// finds no place is dropped, and `Engine::unreachable` told: Raft repeats it.
    fn send(&mut self, messages: &mut Vec<PeerMessage>);

    /// Sends a snapshot's file. `Engine::snapshot_sent` must be called once for each.
    fn send_snapshot(&mut self, transfer: SnapshotTransfer);
}

/// A node without others.
pub struct NoPeers;

impl Peers for NoPeers {
    fn send(&mut self, messages: &mut Vec<PeerMessage>) {
        messages.clear();
    }

    fn send_snapshot(&mut self, _transfer: SnapshotTransfer) {}
}
