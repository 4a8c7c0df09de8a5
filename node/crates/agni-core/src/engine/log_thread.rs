//! The thread that appends to the log. One batch is under way at a time; the next one gathers in
//! the core meanwhile, so the time of the sync is the batching window.

use super::Shared;
use crate::fatal::AbortOnPanic;
use crate::limits;
use crate::raft::core::Append;
use crate::wal::{Batch, DiskState, WalError, WalWriter};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

#[derive(Default)]
struct Orders {
    append: Option<Append>,
    release: Option<Vec<(u32, u64)>>,
    stop: bool,
}

/// Where the driver puts what is to be written.
#[derive(Default)]
pub struct LogSlot {
    orders: Mutex<Orders>,
    wake: Condvar,
}

impl LogSlot {
    /// Appends a batch. The one before must have been reported.
    pub fn append(&self, append: Append) {
        let mut orders = self.orders.lock();
        debug_assert!(orders.append.is_none(), "one append at a time");
        orders.append = Some(append);
        drop(orders);
        self.wake.notify_one();
    }

    /// Lets go of files that hold only entries before these indexes, one a group.
    pub fn release(&self, keep_from: Vec<(u32, u64)>) {
        self.orders.lock().release = Some(keep_from);
        self.wake.notify_one();
    }

    /// Ends the thread after what it has been given.
    pub fn stop(&self) {
        self.orders.lock().stop = true;
        self.wake.notify_one();
    }

    fn take_release(&self) -> Option<Vec<(u32, u64)>> {
        self.orders.lock().release.take()
    }

    fn take(&self, timeout: Duration) -> Orders {
        let mut orders = self.orders.lock();
        if orders.append.is_none() && orders.release.is_none() && !orders.stop {
            self.wake.wait_for(&mut orders, timeout);
        }
        let stop = orders.stop;
        Orders { stop, ..std::mem::take(&mut *orders) }
    }
}

/// Starts the thread.
pub fn spawn_log(
    writer: WalWriter,
    shared: Arc<Shared>,
) -> std::io::Result<(Arc<LogSlot>, JoinHandle<()>)> {
    let slot = Arc::new(LogSlot::default());
    let orders = slot.clone();
    let thread = Builder::new().name("agni-log".into()).spawn(move || {
        let _abort = AbortOnPanic;
        LogThread { writer, shared, disk: DiskState::Ok, next_disk_check_us: 0 }.run(&orders);
    })?;
    Ok((slot, thread))
}

struct LogThread {
    writer: WalWriter,
    shared: Arc<Shared>,
    disk: DiskState,
    next_disk_check_us: u64,
}

impl LogThread {
    fn run(mut self, slot: &LogSlot) {
        // Before the first write is let in: a node may be started with a full disk.
        self.check_disk();
        loop {
            let orders = slot.take(Duration::from_millis(limits::DISK_CHECK_MS));
            if let Some(append) = orders.append {
                match self.append(append, slot) {
                    Some((batch, bytes)) => self.shared.inbox.appended(batch, bytes),
                    None => return self.shared.inbox.abandon(),
                }
            }
            if let Some(keep_from) = orders.release {
                self.release(&keep_from);
            }
            self.check_disk();
            if orders.stop {
                return;
            }
        }
    }

    /// Appends until it is durable; none when the node stops while the disk is full.
    fn append(&mut self, append: Append, slot: &LogSlot) -> Option<(Batch, u64)> {
        let Append { mut batch, sync, .. } = append;
        let bytes = batch.len() as u64;
        loop {
            let started_us = self.shared.clock.boot_us();
            match self.writer.append(&mut batch, sync) {
                Ok(_) => {
                    let took_us = self.shared.clock.boot_us().saturating_sub(started_us);
                    self.shared.metrics.fsync_us.observe(took_us);
                    self.shared.wal_bytes.store(self.writer.bytes_on_disk(), Relaxed);
                    batch.clear();
                    return Some((batch, bytes));
                }
                Err(WalError::DiskFull) => {
                    self.report(DiskState::Full);
                    // What a snapshot has made needless may be the space that is missing.
                    if let Some(keep_from) = slot.take_release() {
                        self.release(&keep_from);
                    }
                    std::thread::sleep(Duration::from_millis(limits::DISK_FULL_RETRY_MS));
                    if self.shared.inbox.is_stopping() || slot.orders.lock().stop {
                        return None;
                    }
                }
                // Linux marks pages whose sync failed as clean: a second try would lie.
                Err(fatal) => {
                    crate::fatal::abort("the log can't be written", &fatal);
                }
            }
        }
    }

    fn release(&mut self, keep_from: &[(u32, u64)]) {
        let kept = |group: u32| keep_from.iter().find(|(of, _)| *of == group);
        let keep = |group: u32| kept(group).map_or(0, |(_, from)| *from);
        // What can't be removed now is removed in a later round.
        if let Err(error) = self.writer.release(&keep) {
            crate::fatal::warn("segments of the log could not be removed", &error);
        }
        self.shared.wal_bytes.store(self.writer.bytes_on_disk(), Relaxed);
    }

    fn check_disk(&mut self) {
        let now_us = self.shared.clock.boot_us();
        if now_us < self.next_disk_check_us {
            return;
        }
        self.next_disk_check_us = now_us + limits::DISK_CHECK_MS * 1000;
        let state = self.writer.disk_state();
        self.report(state);
    }

    fn report(&mut self, state: DiskState) {
        if state != self.disk {
            self.disk = state;
            self.shared.inbox.disk(state);
        }
    }
}
