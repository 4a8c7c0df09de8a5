//! Files made in advance by a thread of its own, off the path of requests: the next segment, and
//! the reserve that is given up when the disk is full.

use super::WalOptions;
use crate::env::{Disk, DiskFile, create_zeroed, write_zeros};
use crate::limits;
use parking_lot::{Condvar, Mutex};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

/// The file that is given up when the disk is full.
const RESERVE: &str = "reserve";

#[derive(Default)]
struct State {
    segment_wanted: bool,
    /// Made and not taken yet.
    segment: Option<Box<dyn DiskFile>>,
    reserve_wanted: bool,
    has_reserve: bool,
    stop: bool,
}

#[derive(Default)]
struct Orders {
    state: Mutex<State>,
    changed: Condvar,
}

/// What is kept ready.
pub(super) struct Spare {
    /// The next segment's name until it has its own.
    pub path: PathBuf,
    disk: Arc<dyn Disk>,
    reserve: PathBuf,
    orders: Arc<Orders>,
    thread: Option<JoinHandle<()>>,
}

impl Spare {
    /// Starts the thread and has it make a segment.
    pub fn start(disk: Arc<dyn Disk>, dir: &Path, options: WalOptions) -> io::Result<Self> {
        let (path, reserve) = (dir.join("next.tmp"), dir.join(RESERVE));
        let orders = Arc::new(Orders::default());
        // One that an earlier life left is as good.
        let kept = disk.size(&reserve).is_ok_and(|size| size == Some(options.reserve_bytes));
        orders.state.lock().has_reserve = kept && options.reserve_bytes > 0;
        let mut worker = Worker {
            disk: disk.clone(),
            orders: orders.clone(),
            options,
            segment: path.clone(),
            reserve: reserve.clone(),
            filling: None,
        };
        let thread = Builder::new().name("agni-log-spare".into()).spawn(move || worker.run())?;
        let spare = Spare { path, disk, reserve, orders, thread: Some(thread) };
        spare.prepare();
        Ok(spare)
    }

    /// Has a segment made, unless there is one.
    pub fn prepare(&self) {
        let mut state = self.orders.state.lock();
        state.segment_wanted |= state.segment.is_none();
        self.orders.changed.notify_all();
    }

    /// The prepared segment. Waits for one under way: making a second would not be faster.
    pub fn take(&self) -> Option<Box<dyn DiskFile>> {
        let mut state = self.orders.state.lock();
        self.orders.changed.wait_while(&mut state, |state| state.segment_wanted);
        state.segment.take()
    }

    /// Waits until no segment is being made.
    pub fn settle(&self) {
        let mut state = self.orders.state.lock();
        self.orders.changed.wait_while(&mut state, |state| state.segment_wanted);
    }

    /// Has the reserve made, unless there is one.
    pub fn refill_reserve(&self) {
        let mut state = self.orders.state.lock();
        state.reserve_wanted |= !state.has_reserve;
        self.orders.changed.notify_all();
    }

    /// Gives up the reserve. Whether there was one.
    pub fn free_reserve(&self) -> bool {
        let mut state = self.orders.state.lock();
        // One that is being made is removed by the thread that makes it.
        state.reserve_wanted = false;
        let had = std::mem::take(&mut state.has_reserve);
        drop(state);
        had && self.disk.remove(&self.reserve).is_ok()
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.orders.state.lock().stop = true;
        self.orders.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It ends after the segment, or the slice of the reserve, that it is making.
            let _ = thread.join();
        }
    }
}

struct Worker {
    disk: Arc<dyn Disk>,
    orders: Arc<Orders>,
    options: WalOptions,
    segment: PathBuf,
    reserve: PathBuf,
    /// A reserve that is being made, and how many bytes of it there are.
    filling: Option<(Box<dyn DiskFile>, u64)>,
}

enum Step {
    Segment,
    Reserve,
    GiveUpReserve,
}

impl Worker {
    fn run(&mut self) {
        while let Some(step) = self.next() {
            match step {
                Step::Segment => {
                    let made = self.make_segment();
                    let mut state = self.orders.state.lock();
                    state.segment_wanted = false;
                    // Where it failed, the log thread makes one when it needs it, and says why.
                    state.segment = made.ok();
                    self.orders.changed.notify_all();
                }
                Step::Reserve => match self.fill_reserve() {
                    Ok(false) => {}
                    Ok(true) => {
                        self.filling = None;
                        let mut state = self.orders.state.lock();
                        state.has_reserve = true;
                        state.reserve_wanted = false;
                    }
                    // It is asked for again when the disk is looked at the next time.
                    Err(_) => {
                        self.orders.state.lock().reserve_wanted = false;
                        self.give_up_reserve();
                    }
                },
                Step::GiveUpReserve => self.give_up_reserve(),
            }
        }
    }

    /// Waits for something to do. A segment comes first: a write may be waiting for it, and must
    /// not wait for more than the slice of the reserve that is under way.
    fn next(&self) -> Option<Step> {
        let mut state = self.orders.state.lock();
        loop {
            if state.stop {
                return None;
            } else if state.segment_wanted {
                return Some(Step::Segment);
            } else if state.reserve_wanted {
                return Some(Step::Reserve);
            } else if self.filling.is_some() {
                return Some(Step::GiveUpReserve);
            }
            self.orders.changed.wait(&mut state);
        }
    }

    fn make_segment(&self) -> io::Result<Box<dyn DiskFile>> {
        let bytes = self.options.segment_bytes;
        let dir = self.segment.parent().unwrap_or(Path::new("."));
        // Writing until the disk is full, to remove it all again, would only disturb the others.
        if self.disk.free_bytes(dir).is_ok_and(|free| free < bytes) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        create_zeroed(&*self.disk, &self.segment, bytes)
    }

    /// One step towards a reserve; whether it is there. It takes up its space at once where the
    /// file system can do that, else it is written slice by slice.
    fn fill_reserve(&mut self) -> io::Result<bool> {
        let (temporary, bytes) = (self.temporary_reserve(), self.options.reserve_bytes);
        let (file, done) = match self.filling.take() {
            Some(filling) => filling,
            None => {
                let file = self.disk.create(&temporary)?;
                let done = match file.allocate(bytes) {
                    Ok(()) => bytes,
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => 0,
                    Err(error) => {
                        self.filling = Some((file, 0));
                        return Err(error);
                    }
                };
                (file, done)
            }
        };
        let end = bytes.min(done + limits::DISK_SLICE_BYTES);
        // Synced slice by slice: a large heap of unwritten pages would stall the log's own syncs.
        let filled = write_zeros(&*file, done, end).and_then(|()| file.sync());
        self.filling = Some((file, end));
        filled?;
        if end == bytes {
            self.disk.rename(&temporary, &self.reserve)?;
        }
        Ok(end == bytes)
    }

    fn give_up_reserve(&mut self) {
        self.filling = None;
        // One that stays is removed at the next start.
        let _ = self.disk.remove(&self.temporary_reserve());
    }

    fn temporary_reserve(&self) -> PathBuf {
        self.reserve.with_extension("tmp")
    }
}
