//! The driver's bounded inbox. Producers push under a short lock and wake the driver only when it
//! sleeps: one wake-up a turn, not one a request.

use crate::clock::Clock;
use crate::limits;
use crate::raft::core::Event;
use crate::raft::snapshots::SnapshotDone;
use crate::raft::work::{PeerMessage, Submission, Ticket};
use crate::wal::{Batch, DiskState};
use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// What has come in since the driver last looked.
#[derive(Default)]
pub struct Mail {
    /// Requests.
    pub work: Vec<Submission>,
    /// When the first of them came, in microseconds since boot.
    pub first_us: u64,
    /// Requests that found no place.
    pub refused: Vec<Ticket>,
    /// The log thread's batch, now durable, and its bytes.
    pub appended: Option<(Batch, u64)>,
    /// A new look at the disk.
    pub disk: Option<DiskState>,
    /// A snapshot that ended.
    pub snapshot: Option<SnapshotDone>,
    /// Messages of other nodes.
    pub messages: Vec<PeerMessage>,
    /// What else other nodes, or the files, have to say.
    pub events: Vec<Event>,
    /// Whether to stop.
    pub stop: bool,
    /// The log thread gave up its batch: the disk was full when the node had to stop.
    pub abandoned: bool,
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.work.is_empty()
            && self.refused.is_empty()
            && self.appended.is_none()
            && self.disk.is_none()
            && self.snapshot.is_none()
            && self.messages.is_empty()
            && self.events.is_empty()
            && !self.abandoned
    }
}

/// The inbox.
pub struct Inbox {
    limit: usize,
    mail: Mutex<Mail>,
    wake: Condvar,
    ready: Mutex<bool>,
    became_ready: Condvar,
    stopping: AtomicBool,
}

impl Inbox {
    /// An inbox for at most `limit` waiting requests.
    pub fn new(limit: usize) -> Self {
        Inbox {
            limit,
            mail: Mutex::default(),
            wake: Condvar::new(),
            ready: Mutex::new(false),
            became_ready: Condvar::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Puts requests in, each up to the mark of its priority.
    pub fn submit(&self, batch: &mut Vec<Submission>, clock: &dyn Clock) {
        let mut mail = self.mail.lock();
        if mail.work.is_empty() {
            mail.first_us = clock.boot_us();
        }
        for submission in batch.drain(..) {
            if mail.stop || mail.work.len() >= submission.work.priority().mark(self.limit) {
                mail.refused.push(submission.ticket);
            } else {
                mail.work.push(submission);
            }
        }
        drop(mail);
        self.wake.notify_one();
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.mail.lock().work.len()
    }

    /// The log thread is done with a batch.
    pub fn appended(&self, batch: Batch, bytes: u64) {
        self.mail.lock().appended = Some((batch, bytes));
        self.wake.notify_one();
    }

    /// The log thread gives up.
    pub fn abandon(&self) {
        self.mail.lock().abandoned = true;
        self.wake.notify_one();
    }

    /// The disk was looked at.
    pub fn disk(&self, state: DiskState) {
        self.mail.lock().disk = Some(state);
        self.wake.notify_one();
    }

    /// The snapshot thread is done with its job.
    pub fn snapshot_done(&self, done: SnapshotDone) {
        self.mail.lock().snapshot = Some(done);
        self.wake.notify_one();
    }

    /// Messages of other nodes arrived. Those that find no place are dropped: Raft repeats them.
    /// Answers how many.
    pub fn receive(&self, messages: Vec<PeerMessage>) -> usize {
        let mut mail = self.mail.lock();
        let room = limits::INBOX_MESSAGES_MAX.saturating_sub(mail.messages.len());
        let dropped = messages.len().saturating_sub(room);
        mail.messages.extend(messages.into_iter().take(room));
        drop(mail);
        self.wake.notify_one();
        dropped
    }

    /// Something else happened. What can happen is bounded by who tells of it: one for each node
    /// that can't be reached, and for each transfer of a snapshot that is under way.
    pub fn event(&self, event: Event) {
        self.mail.lock().events.push(event);
        self.wake.notify_one();
    }

    /// Waits for mail, at most this long; takes it all.
    pub fn wait(&self, timeout: Duration, mail: &mut Mail) {
        let mut inbox = self.mail.lock();
        if inbox.is_empty() && !inbox.stop {
            self.wake.wait_for(&mut inbox, timeout);
        }
        std::mem::swap(&mut *inbox, mail);
        inbox.stop = mail.stop;
    }

    /// No more work is taken; the driver ends when it has nothing left.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
        self.mail.lock().stop = true;
        self.wake.notify_one();
    }

    /// Whether `stop` was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Relaxed)
    }

    /// The driver serves, or doesn't.
    pub fn set_ready(&self, ready: bool) {
        *self.ready.lock() = ready;
        self.became_ready.notify_all();
    }

    /// Whether the driver serves.
    pub fn is_ready(&self) -> bool {
        *self.ready.lock()
    }

    /// Waits until the driver serves.
    pub fn wait_ready(&self) {
        let mut ready = self.ready.lock();
        self.became_ready.wait_while(&mut ready, |ready| !*ready);
    }
}

/// The refusal of what found no place.
pub fn overload() -> crate::raft::work::Refuse {
    crate::raft::work::Refuse::Overloaded { retry_ms: limits::OVERLOAD_RETRY_MS }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::node::command::Operation;
    use crate::proto::node::{Command, Delete, Put};
    use crate::raft::work::{Priority, Work};

    const LIMIT: usize = 100;

    struct Still;

    impl Clock for Still {
        fn boot_us(&self) -> u64 {
            0
        }

        fn unix_ms(&self) -> i64 {
            0
        }
    }

    fn write(operation: Operation) -> Work {
        Work::Write(Command { proposed_unix_ms: 0, operation: Some(operation) })
    }

    fn work(priority: Priority) -> Work {
        match priority {
            Priority::Renew => Work::Renew(Vec::new()),
            Priority::Deregister => write(Operation::Delete(Delete::default())),
            Priority::Register => write(Operation::Put(Put::default())),
            other => Work::Read(other),
        }
    }

    /// Submits so many of a priority; answers how many found a place.
    fn submit(inbox: &Inbox, priority: Priority, count: usize) -> usize {
        let before = inbox.waiting();
        let one = |ticket| Submission { ticket, partition: 0, work: work(priority) };
        inbox.submit(&mut (0..count as u64).map(one).collect(), &Still);
        inbox.waiting() - before
    }

    #[test]
    fn what_stands_lower_never_takes_the_room_of_what_stands_higher() {
        let order = [
            Priority::Many,
            Priority::Watch,
            Priority::Register,
            Priority::Deregister,
            Priority::Renew,
        ];
        assert!(order.is_sorted());
        for pair in order.windows(2) {
            let inbox = Inbox::new(LIMIT);
            let taken = submit(&inbox, pair[0], 2 * LIMIT);
            assert!(taken < LIMIT, "{pair:?}");
            assert_eq!(submit(&inbox, pair[0], 1), 0, "{:?} has filled its part", pair[0]);
            assert!(submit(&inbox, pair[1], 1) == 1, "{:?} finds a place", pair[1]);
        }
        let inbox = Inbox::new(LIMIT);
        assert_eq!(submit(&inbox, Priority::Renew, 2 * LIMIT), LIMIT);
        assert_eq!(Priority::Many.mark(1), 1, "the smallest queue takes anything");
    }

    #[test]
    fn what_is_refused_is_told_so() {
        let inbox = Inbox::new(10);
        submit(&inbox, Priority::Many, 10);
        let mut mail = Mail::default();
        inbox.wait(Duration::ZERO, &mut mail);
        assert_eq!((mail.work.len(), mail.refused.len()), (4, 6));
    }
}
