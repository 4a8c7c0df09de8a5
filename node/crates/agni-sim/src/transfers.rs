//! Snapshots between nodes: a file goes piece by piece, breaks off, comes late, comes twice.

use crate::check::Checked;
use crate::node::Turn;
use crate::snapshots::{DIR, Transfer};
use crate::world::{What, World};
use agni_core::env::Disk as _;
use agni_core::raft::core::Event;
use agni_core::raft::work::SnapshotTransfer;
use std::path::Path;

/// Of a thousand pieces so many end a transfer, whatever the weather.
const BREAK_PERMILLE: u64 = 5;
/// How long a sender waits for an answer that doesn't come.
const PATIENCE_US: u64 = 1_000_000;

impl World {
    /// A node begins to send a file.
    pub(crate) fn send_snapshot(&mut self, from: usize, transfer: SnapshotTransfer) {
        let SnapshotTransfer { partition, to, message, file } = transfer;
        let from_life = self.nodes[from].lives;
        let read = self.nodes[from].disk.read(&Path::new(DIR).join(&file));
        let to = to as usize - 1;
        let Some(bytes) = read.ok().filter(|_| to < self.nodes.len()) else {
            let ok = false;
            self.plan(1_000, What::Sent { node: from, life: from_life, partition, to, ok });
            return;
        };
        let (to_life, offset) = (None, 0);
        let transfer =
            Transfer { from, from_life, to, to_life, partition, message, file, bytes, offset };
        self.plan(1_000, What::Piece(Box::new(transfer)));
    }

    /// A piece of a file is due.
    pub(crate) fn piece(&mut self, mut transfer: Box<Transfer>) {
        let (from, to) = (transfer.from, transfer.to);
        if self.nodes[from].life.is_none() || self.nodes[from].lives != transfer.from_life {
            return;
        }
        let to_life = self.nodes[to].life.is_some().then_some(self.nodes[to].lives);
        let is_there = to_life.is_some() && transfer.to_life.is_none_or(|l| Some(l) == to_life);
        let travel = &mut self.travel;
        let breaks = travel.chance(BREAK_PERMILLE + self.network.loss_permille / 8);
        if !is_there || breaks || self.network.is_cut(from, to) || self.network.is_cut(to, from) {
            let in_us = if is_there { PATIENCE_US } else { 1_000 };
            return self.report_sent(&transfer, false, in_us);
        }
        transfer.to_life = to_life;
        if self.nodes[from].paused || self.nodes[to].paused {
            return self.plan(20_000, What::Piece(transfer));
        }
        transfer.offset += travel.between(200, 4_000) as usize;
        let in_us = travel.between(500, 20_000) + travel.below(self.network.slow_us + 1);
        match transfer.offset < transfer.bytes.len() {
            true => self.plan(in_us, What::Piece(transfer)),
            false => self.plan(in_us, What::Arrived(transfer)),
        }
    }

    /// The last piece is there.
    pub(crate) fn arrived(&mut self, transfer: &Transfer) {
        let to = transfer.to;
        if self.nodes[to].life.is_none() || Some(self.nodes[to].lives) != transfer.to_life {
            return self.report_sent(transfer, false, 1_000);
        }
        let stored = transfer.store(&self.nodes[to].disk).is_ok();
        if stored {
            self.summary.transfers += 1;
            let (message, file) = (transfer.message.clone(), transfer.file.clone());
            if self.nodes[to].snapshot_arrived(transfer.partition, message, file) {
                self.plan_work(to);
            }
        }
        // The answer may be lost, though all went well.
        let ok = stored && !self.travel.chance(self.network.loss_permille);
        let in_us = self.travel.between(200, 3_000);
        self.report_sent(transfer, ok, in_us);
    }

    fn report_sent(&mut self, transfer: &Transfer, ok: bool, in_us: u64) {
        let Transfer { from, from_life, to, partition, .. } = *transfer;
        self.plan(in_us, What::Sent { node: from, life: from_life, partition, to, ok });
    }

    /// The sender learns how it ended.
    pub(crate) fn sent(
        &mut self,
        node: usize,
        life: u64,
        partition: u32,
        to: usize,
        ok: bool,
    ) -> Checked {
        if self.nodes[node].lives != life {
            return Ok(());
        }
        let mut turn = Turn::default();
        let to = to as u64 + 1;
        self.nodes[node].event(Event::SnapshotSent { partition, to, ok }, &mut turn);
        self.turn(node, turn)
    }
}
