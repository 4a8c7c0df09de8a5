//! What waits for one other node: bounded in turns of the driver and in bytes. What finds no place
//! is dropped; Raft says it anew.

use super::convert;
use crate::limits;
use agni_core::raft::work::PeerMessage;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// The messages of one turn of the driver.
pub type Batch = Vec<PeerMessage>;

/// How much waits.
#[derive(Debug, Default)]
pub struct Depth {
    /// Messages.
    pub messages: AtomicUsize,
    /// Their bytes, roughly.
    pub bytes: AtomicUsize,
}

impl Depth {
    fn add(&self, messages: usize, bytes: usize) {
        self.messages.fetch_add(messages, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn take(&self, messages: usize, bytes: usize) {
        self.messages.fetch_sub(messages, Relaxed);
        self.bytes.fetch_sub(bytes, Relaxed);
    }
}

fn bytes_of(batch: &Batch) -> usize {
    batch.iter().map(convert::size).sum()
}

/// The driver's end.
pub struct Queue {
    sender: Sender<Batch>,
    depth: Arc<Depth>,
}

/// The link's end.
pub struct Waiting {
    receiver: Receiver<Batch>,
    depth: Arc<Depth>,
    /// What found no place in the last batch.
    left: Option<Batch>,
}

/// An empty queue.
pub fn queue() -> (Queue, Waiting) {
    let (sender, receiver) = channel(limits::PEER_QUEUE_TURNS_MAX);
    let depth = Arc::new(Depth::default());
    (Queue { sender, depth: depth.clone() }, Waiting { receiver, depth, left: None })
}

impl Queue {
    /// How much waits.
    pub fn depth(&self) -> &Arc<Depth> {
        &self.depth
    }

    /// Adds a turn's messages; says whether there was room. An empty queue takes any.
    #[must_use]
    pub fn push(&self, batch: Batch) -> bool {
        let (count, bytes) = (batch.len(), bytes_of(&batch));
        let waiting = self.depth.bytes.load(Relaxed);
        if waiting > 0 && waiting + bytes > limits::PEER_QUEUE_BYTES_MAX {
            return false;
        }
        // Before the other end can take it.
        self.depth.add(count, bytes);
        let is_taken = self.sender.try_send(batch).is_ok();
        if !is_taken {
            self.depth.take(count, bytes);
        }
        is_taken
    }
}

impl Waiting {
    /// Everything that waits, in its order, as far as it fits into one message to the other node.
    /// Waits for the first of it; for ever, once the other end is gone: the link is being given up.
    pub async fn next(&mut self) -> Batch {
        let mut next = Vec::new();
        let mut bytes = 0;
        loop {
            let batch = match self.left.take() {
                Some(batch) => batch,
                None if next.is_empty() => match self.receiver.recv().await {
                    Some(batch) => batch,
                    None => std::future::pending().await,
                },
                None => match self.receiver.try_recv() {
                    Ok(batch) => batch,
                    Err(_) => break,
                },
            };
            let mut batch = batch.into_iter();
            for message in batch.by_ref() {
                bytes += convert::size(&message);
                next.push(message);
                if next.len() >= limits::PEER_BATCH_MESSAGES_MAX
                    || bytes >= limits::PEER_BATCH_BYTES_MAX
                {
                    break;
                }
            }
            let rest: Batch = batch.collect();
            if !rest.is_empty() {
                self.left = Some(rest);
                break;
            }
        }
        self.depth.take(next.len(), bytes);
        next
    }

    /// Drops everything that waits; answers how many messages that were.
    pub fn clear(&mut self) -> u64 {
        let mut dropped = 0;
        let left = self.left.take();
        let waiting = std::iter::from_fn(|| self.receiver.try_recv().ok());
        for batch in left.into_iter().chain(waiting) {
            self.depth.take(batch.len(), bytes_of(&batch));
            dropped += batch.len() as u64;
        }
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use raft::eraftpb::{Entry, Message};

    /// A message with a number, and an entry of so many bytes.
    fn message(number: u64, bytes: usize) -> PeerMessage {
        let mut message = Message { index: number, ..Message::default() };
        message.set_entries(vec![Entry { data: vec![0; bytes].into(), ..Entry::default() }].into());
        PeerMessage { partition: 0, message, sender_is_unfit: false }
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        batch.iter().map(|message| message.message.index).collect()
    }

    #[tokio::test]
    async fn what_waits_comes_in_its_order_and_in_bounded_pieces() {
        let (queue, mut waiting) = queue();
        assert!(queue.push((0..300).map(|number| message(number, 10)).collect()));
        assert!(queue.push(vec![message(300, 10)]));
        assert_eq!(queue.depth().messages.load(Relaxed), 301);
        let first = waiting.next().await;
        assert_eq!(first.len(), limits::PEER_BATCH_MESSAGES_MAX);
        let second = waiting.next().await;
        let all: Vec<u64> = [numbers(&first), numbers(&second)].concat();
        assert_eq!(all, (0..=300).collect::<Vec<u64>>());
        let half = limits::PEER_BATCH_BYTES_MAX / 2;
        assert!(queue.push((0..5).map(|number| message(number, half)).collect()));
        assert_eq!(numbers(&waiting.next().await), [0, 1]);
        assert_eq!(waiting.clear(), 3);
        let Depth { messages, bytes } = &**queue.depth();
        assert_eq!((messages.load(Relaxed), bytes.load(Relaxed)), (0, 0));
    }

    #[tokio::test]
    async fn a_queue_that_is_full_takes_nothing_until_something_has_left() {
        let (queue, mut waiting) = queue();
        for number in 0..limits::PEER_QUEUE_TURNS_MAX as u64 {
            assert!(queue.push(vec![message(number, 1)]));
        }
        let before = queue.depth().bytes.load(Relaxed);
        assert!(!queue.push(vec![message(9, 1)]), "full in turns");
        assert_eq!(queue.depth().bytes.load(Relaxed), before, "what is refused doesn't count");
        assert_eq!(numbers(&waiting.next().await)[..3], [0, 1, 2]);
        assert!(queue.push(vec![message(9, 1)]));
        waiting.clear();
        // Full in bytes, long before it is full in turns.
        let large = limits::PEER_QUEUE_BYTES_MAX / 4;
        let taken = (0..9).filter(|number| queue.push(vec![message(*number, large)])).count();
        assert_eq!(taken, 3);
        assert!(queue.depth().bytes.load(Relaxed) <= limits::PEER_QUEUE_BYTES_MAX);
        waiting.clear();
        let huge = limits::PEER_QUEUE_BYTES_MAX + 1;
        assert!(queue.push(vec![message(0, huge)]), "one must pass, however large");
        assert!(!queue.push(vec![message(1, 1)]));
    }
}
