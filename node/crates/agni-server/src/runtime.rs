//! One runtime's own state, and the hand-over to the engine: work goes out once a turn of the
//! runtime, answers come in once a turn of the driver. Crossing a thread for each request would
//! halve the throughput (docs/decisions).

use crate::node::Place;
use agni_core::engine::Engine;
use agni_core::raft::work::{Answer, Deliver, Refuse, Submission, Ticket, Work};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bits of a ticket that number the slot; above them its use, above that the runtime.
const SLOT_BITS: u32 = 32;
const USE_BITS: u32 = 16;

/// What reaches a runtime from other threads.
pub enum Incoming {
    /// The driver's answers of one turn, for this runtime.
    Answers(Vec<(Ticket, Answer)>),
    /// These partitions have new revisions.
    Changed(Arc<[u32]>),
    /// A connection to be served here, and its place among the open ones.
    Connection(std::net::TcpStream, Place),
}

/// The way to one runtime.
#[derive(Clone)]
pub struct Mailbox {
    sender: UnboundedSender<Incoming>,
    watches: Arc<AtomicUsize>,
}

impl Mailbox {
    /// A mailbox and its other end. It is bounded by what was submitted: each submission is
    /// answered once.
    pub fn new() -> (Mailbox, UnboundedReceiver<Incoming>) {
        let (sender, receiver) = unbounded_channel();
        (Mailbox { sender, watches: Arc::default() }, receiver)
    }

    /// Hands a connection over. It is closed when the runtime has ended.
    pub fn connection(&self, stream: std::net::TcpStream, place: Place) {
        let _ = self.sender.send(Incoming::Connection(stream, place));
    }

    /// How many watches the runtime serves: without any, it isn't told of changes.
    pub fn watches(&self) -> &Arc<AtomicUsize> {
        &self.watches
    }
}

/// The driver's end: sorts the answers of a turn by runtime.
pub struct Delivery {
    mailboxes: Vec<Mailbox>,
    sorted: Vec<Vec<(Ticket, Answer)>>,
}

impl Delivery {
    /// Delivers to these runtimes, in the order of their indexes.
    pub fn new(mailboxes: Vec<Mailbox>) -> Self {
        let sorted = mailboxes.iter().map(|_| Vec::new()).collect();
        Delivery { mailboxes, sorted }
    }
}

impl Deliver for Delivery {
    fn answers(&mut self, answers: &mut Vec<(Ticket, Answer)>) {
        let runtime_of = |ticket: Ticket| (ticket >> (SLOT_BITS + USE_BITS)) as usize;
        let first = answers.first().map_or(0, |(ticket, _)| runtime_of(*ticket));
        if answers.iter().all(|(ticket, _)| runtime_of(*ticket) == first)
            && let Some(only) = self.mailboxes.get(first)
        {
            let capacity = answers.len();
            let turn = std::mem::replace(answers, Vec::with_capacity(capacity));
            let _ = only.sender.send(Incoming::Answers(turn));
            return;
        }
        for (ticket, answer) in answers.drain(..) {
            if let Some(sorted) = self.sorted.get_mut(runtime_of(ticket)) {
                sorted.push((ticket, answer));
            }
        }
        for (mailbox, sorted) in self.mailboxes.iter().zip(&mut self.sorted) {
            if !sorted.is_empty() {
                // A runtime that has ended has nobody left who waits.
                let _ = mailbox.sender.send(Incoming::Answers(std::mem::take(sorted)));
            }
        }
    }

    fn changed(&mut self, partitions: &[u32]) {
        let mut shared: Option<Arc<[u32]>> = None;
        for mailbox in &self.mailboxes {
            if mailbox.watches.load(Relaxed) > 0 {
                let partitions = shared.get_or_insert_with(|| partitions.into()).clone();
                let _ = mailbox.sender.send(Incoming::Changed(partitions));
            }
        }
    }
}

enum SlotState {
    Free,
    Waiting(Option<Waker>),
    Done(Answer),
    /// The request was given up; the answer is still to come.
    Abandoned,
}

struct Slot {
    used: u16,
    state: SlotState,
}

/// What belongs to one runtime's thread alone.
struct Local {
    index: u64,
    slots: Vec<Slot>,
    free: Vec<u32>,
    outgoing: Vec<Submission>,
    flusher: Option<Waker>,
}

thread_local! {
    static LOCAL: RefCell<Local> = const { RefCell::new(Local {
        index: 0,
        slots: Vec::new(),
        free: Vec::new(),
        outgoing: Vec::new(),
        flusher: None,
    }) };
}

/// Makes this thread the runtime with this index.
pub fn enter(index: usize) {
    LOCAL.with_borrow_mut(|local| local.index = index as u64);
}

/// Asks a partition and waits for its answer. Nothing is sent before the runtime's turn ends.
pub fn ask(partition: u32, work: Work) -> Pending {
    LOCAL.with_borrow_mut(|local| {
        let slot = local.free.pop().unwrap_or_else(|| {
            local.slots.push(Slot { used: 0, state: SlotState::Free });
            local.slots.len() as u32 - 1
        });
        let entry = &mut local.slots[slot as usize];
        entry.used = entry.used.wrapping_add(1);
        entry.state = SlotState::Waiting(None);
        let ticket = local.index << (SLOT_BITS + USE_BITS)
            | u64::from(entry.used) << SLOT_BITS
            | u64::from(slot);
        local.outgoing.push(Submission { ticket, partition, work });
        if local.outgoing.len() == 1
            && let Some(flusher) = local.flusher.take()
        {
            flusher.wake();
        }
        Pending { slot }
    })
}

/// The answer to what was asked, once it is there.
pub struct Pending {
    slot: u32,
}

impl Future for Pending {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Answer> {
        LOCAL.with_borrow_mut(|local| {
            let state = &mut local.slots[self.slot as usize].state;
            match std::mem::replace(state, SlotState::Free) {
                SlotState::Done(answer) => Poll::Ready(answer),
                SlotState::Waiting(_) => {
                    *state = SlotState::Waiting(Some(context.waker().clone()));
                    Poll::Pending
                }
                // Polled again after its answer: there is nothing more to come.
                SlotState::Free | SlotState::Abandoned => {
                    Poll::Ready(Answer::Refused(Refuse::ShuttingDown))
                }
            }
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // At the end of the thread the slots may be gone already.
        let _ = LOCAL.try_with(|local| {
            let Ok(mut local) = local.try_borrow_mut() else { return };
            let local = &mut *local;
            let state = &mut local.slots[self.slot as usize].state;
            match state {
                SlotState::Waiting(_) => *state = SlotState::Abandoned,
                _ => {
                    *state = SlotState::Free;
                    local.free.push(self.slot);
                }
            }
        });
    }
}

/// Completes who waited for these answers.
pub fn complete(answers: Vec<(Ticket, Answer)>) {
    LOCAL.with_borrow_mut(|local| {
        for (ticket, answer) in answers {
            let slot = ticket as u32;
            let Some(entry) = local.slots.get_mut(slot as usize) else { continue };
            if entry.used != (ticket >> SLOT_BITS) as u16 {
                continue;
            }
            match std::mem::replace(&mut entry.state, SlotState::Free) {
                SlotState::Waiting(waker) => {
                    entry.state = SlotState::Done(answer);
                    if let Some(waker) = waker {
                        waker.wake();
                    }
                }
                SlotState::Abandoned => local.free.push(slot),
                other => entry.state = other,
            }
        }
    });
}

/// Sends what the turn gathered, for ever.
pub async fn flush(engine: Engine) {
    loop {
        let mut batch = std::future::poll_fn(|context| {
            LOCAL.with_borrow_mut(|local| {
                if local.outgoing.is_empty() {
                    local.flusher = Some(context.waker().clone());
                    return Poll::Pending;
                }
                let capacity = local.outgoing.len();
                Poll::Ready(std::mem::replace(&mut local.outgoing, Vec::with_capacity(capacity)))
            })
        })
        .await;
        engine.submit(&mut batch);
        // Woken again by the first submission after this one; handlers that are runnable now
        // come before it, because the scheduler is a queue.
        tokio::task::yield_now().await;
    }
}

/// Takes what comes from other threads until nobody can send any more: answers go to who asked,
/// `changed` is told of new revisions, and `serve` is given the connections.
pub async fn receive(
    mut mailbox: UnboundedReceiver<Incoming>,
    mut changed: impl FnMut(&[u32]),
    mut serve: impl FnMut(TcpStream, Place),
) {
    while let Some(incoming) = mailbox.recv().await {
        match incoming {
            Incoming::Answers(answers) => complete(answers),
            Incoming::Changed(partitions) => changed(&partitions),
            Incoming::Connection(stream, place) => {
                if let Ok(stream) = TcpStream::from_std(stream) {
                    serve(stream, place);
                }
            }
        }
    }
}
