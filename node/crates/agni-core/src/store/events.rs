//! The event log: the newest changes of a partition, each with the record after and before it.
//!
//! Watches read it forwards. Pages that show an older revision read it to undo what came later.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;

use super::record;
use crate::key::KeyRef;
use crate::planted::{Bug, is_planted};
use crate::proto::api::{self, EventType};

/// One applied change.
#[derive(Clone, Debug)]
pub struct Event {
    /// The partition's revision of the change.
    pub revision: u64,
    /// The slot of the record.
    pub slot: u32,
    /// `Put`, `Deregistered` or `Expired`.
    pub kind: EventType,
    /// Whether the change created the record.
    pub created: bool,
    /// The encoded record after the change; none when it is gone.
    pub record: Option<Bytes>,
    /// The encoded record before the change, if there was one.
    pub previous: Option<Bytes>,
}

impl Event {
    /// Which record changed.
    pub fn key(&self) -> KeyRef<'_> {
        let record = self.record.as_ref().or(self.previous.as_ref());
        record.and_then(|record| record::key_of(record)).unwrap_or(KeyRef {
            namespace: "",
            kind: api::Kind::Unspecified,
            name: "",
        })
    }

    /// The encoded `api::Key` of the record, without a copy.
    pub fn key_bytes(&self) -> Bytes {
        let record = self.record.as_ref().or(self.previous.as_ref());
        record.and_then(record::key_bytes_of).unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        size_of::<Event>()
            + self.record.as_ref().map_or(0, Bytes::len)
            + self.previous.as_ref().map_or(0, Bytes::len)
    }
}

/// Events one after the other.
pub type Events<'a> = std::collections::vec_deque::Iter<'a, Event>;

/// The event log no longer reaches back that far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// The oldest revision from which on the log is complete.
    pub oldest: u64,
}

/// What a slot held at an older revision.
pub(crate) struct PreImage {
    pub record: Option<Bytes>,
    /// That record has run out since.
    pub expired: bool,
}

/// The newest events, bounded in number and bytes.
pub(crate) struct EventLog {
    events: VecDeque<Event>,
    /// All events after this revision are here.
    start: u64,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
}

impl EventLog {
    pub(crate) fn new(count_max: usize, bytes_max: usize) -> EventLog {
        EventLog { events: VecDeque::new(), start: 0, bytes: 0, count_max, bytes_max }
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.bytes += event.bytes();
        self.events.push_back(event);
        while self.events.len() > self.count_max || self.bytes > self.bytes_max {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.bytes();
            self.start = oldest.revision;
        }
    }

    /// Begins anew after a revision, whose past is unknown.
    pub(crate) fn restart(&mut self, revision: u64) {
        self.events.clear();
        let skips = is_planted(Bug::WatchSkipsOnFailover);
        (self.start, self.bytes) = (if skips { 0 } else { revision }, 0);
    }

    /// The same as `after`, for a watch.
    pub(crate) fn resume(&self, revision: u64, limit: usize) -> Result<Events<'_>, Compacted> {
        let is_cut = (1..revision).contains(&self.start);
        let again = is_cut && is_planted(Bug::WatchRepeatsOnResume);
        self.after(revision - u64::from(again), limit)
    }

    /// All events after a revision, up to a number of them.
    pub(crate) fn after(&self, revision: u64, limit: usize) -> Result<Events<'_>, Compacted> {
        if revision < self.start && !is_planted(Bug::WatchGapAtCompaction) {
            return Err(Compacted { oldest: self.start });
        }
        let skip = usize::try_from(revision.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let first = skip.min(self.events.len());
        let end = first.saturating_add(limit).min(self.events.len());
        Ok(self.events.range(Range { start: first, end }))
    }

    /// What the slots that changed since a revision held at it.
    pub(crate) fn undo(&self, revision: u64) -> Result<BTreeMap<u32, PreImage>, Compacted> {
        let mut images: BTreeMap<u32, PreImage> = BTreeMap::new();
        let mut removed: hashbrown::HashSet<u32> = hashbrown::HashSet::new();
        for event in self.after(revision, usize::MAX)? {
            let image = images
                .entry(event.slot)
                .or_insert_with(|| PreImage { record: event.previous.clone(), expired: false });
            // The first removal ends the life that is shown; later ones are of others.
            if event.kind != EventType::Put && removed.insert(event.slot) {
                image.expired = event.kind == EventType::Expired;
            }
        }
        Ok(images)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        let previous =
            |event: &Event| event.previous.as_ref().map_or(0, |record| record.len() + 48);
        self.events.capacity() * size_of::<Event>()
            + self.events.iter().map(previous).sum::<usize>()
    }
}
