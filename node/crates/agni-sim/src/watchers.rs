//! Watches: clients that follow a partition's changes, and go on at another node when theirs is
//! gone. What they are sent is held against what was applied.

use crate::check::{Checked, Checker, Violation};
use crate::clients::Mood;
use crate::random::Random;
use agni_core::store::{Change, DifferenceCursor, Store, key_bytes_of};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

/// Watches of a partition.
const WATCHES: usize = 2;
/// Changes of a difference's page, at most.
const PAGE_MAX: u64 = 6;
/// Events of a message, at most.
const EVENTS_MAX: u64 = 12;
/// Of a thousand looks, after so many a client goes to another node without need.
const MOVE_PERMILLE: u64 = 15;

/// A connection to one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: usize,
    /// Which of its processes.
    pub life: u64,
}

#[derive(Debug, Default)]
struct Difference {
    cursor: DifferenceCursor,
    /// What it has spoken of.
    named: BTreeSet<Bytes>,
}

#[derive(Debug)]
struct Watch {
    partition: usize,
    place: Option<Place>,
    /// The revision to go on after: what a resume token says.
    cursor: u64,
    difference: Option<Difference>,
    /// What the client has, by key.
    records: BTreeMap<Bytes, Bytes>,
    /// A difference that was broken off has told of states up to here.
    ahead: u64,
}

/// What the watches have been through.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watched {
    /// Events that were delivered.
    pub events: u64,
    /// Differences that were delivered whole.
    pub differences: u64,
    /// How often a watch went on at another process.
    pub moves: u64,
}

/// All watches.
#[derive(Debug)]
pub struct Watchers {
    random: Random,
    watches: Vec<Watch>,
    /// What they have been through.
    pub seen: Watched,
}

impl Watchers {
    /// Some for each partition, connected to nobody yet.
    pub fn new(random: Random, partitions: u32) -> Self {
        let watch = |position: usize| Watch {
            partition: position % partitions as usize,
            place: None,
            cursor: 0,
            difference: None,
            records: BTreeMap::new(),
            ahead: 0,
        };
        let watches = (0..partitions as usize * WATCHES).map(watch).collect();
        Watchers { random, watches, seen: Watched::default() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.watches.len()
    }

    /// How long until a watch's next look.
    pub fn pause_us(&mut self, mood: Mood) -> u64 {
        let most_us = match mood {
            // Some are slow, so that the event log moves on without them.
            Mood::Faulty if self.random.chance(20) => 8_000_000,
            Mood::Faulty => 120_000,
            Mood::Healed | Mood::Quiet => 60_000,
        };
        self.random.between(5_000, most_us)
    }

    /// The partition of a watch.
    pub fn partition(&self, watch: usize) -> usize {
        self.watches[watch].partition
    }

    /// Where a watch reads now: where it was, if that still goes, else one of `places`.
    pub fn place(&mut self, watch: usize, places: &[Place]) -> Option<Place> {
        let leaves = self.random.chance(MOVE_PERMILLE);
        let watch = &mut self.watches[watch];
        if let Some(place) = watch.place
            && places.contains(&place)
            && !leaves
        {
            return Some(place);
        }
        watch.difference = None;
        watch.place = match places.len() {
            0 => None,
            count => Some(places[self.random.below(count as u64) as usize]),
        };
        self.seen.moves += 1;
        watch.place
    }

    /// A watch takes what its node has for it.
    ///
    /// # Errors
    /// When it is told something wrong, or not told something.
    pub fn look(&mut self, watch: usize, store: &Store, checker: &mut Checker) -> Checked {
        let events_max = self.random.between(1, EVENTS_MAX) as usize;
        let page_max = self.random.between(1, PAGE_MAX) as usize;
        let watch = &mut self.watches[watch];
        if watch.difference.is_some() {
            return watch.differ(store, page_max, checker, &mut self.seen);
        }
        if watch.cursor >= store.revision() {
            // Up to date, or ahead of a replica that lags.
            return Ok(());
        }
        let Ok(events) = store.events_after(watch.cursor, events_max) else {
            watch.difference = Some(Difference::default());
            return Ok(());
        };
        let mut told = 0;
        for event in events {
            told += 1;
            let key = event.key_bytes();
            checker.watched(watch.partition, watch.cursor, event)?;
            watch.cursor = event.revision;
            match &event.record {
                Some(record) => watch.records.insert(key, record.clone()),
                None => watch.records.remove(&key),
            };
        }
        self.seen.events += told;
        match told {
            // The node takes this for proof that nothing is missing.
            0 => Err(Violation {
                invariant: "I16 reliable",
                message: format!(
                    "partition {}: nothing is told after revision {}, though the replica is at {}",
                    watch.partition,
                    watch.cursor,
                    store.revision()
                ),
            }),
            _ => Ok(()),
        }
    }

    /// At the end every watch has all that is known.
    ///
    /// # Errors
    /// When one hasn't.
    pub fn check_end(&self, settled: &[u64], checker: &Checker) -> Checked {
        for watch in &self.watches {
            if watch.cursor < settled[watch.partition] {
                let message = format!(
                    "a watch of partition {} is at revision {} of {}, reading at {:?}",
                    watch.partition, watch.cursor, settled[watch.partition], watch.place
                );
                return Err(Violation { invariant: "I27", message });
            }
            watch.check_records(checker)?;
        }
        Ok(())
    }
}

impl Watch {
    /// A page of what changed since the cursor, where the event log no longer reaches back.
    fn differ(
        &mut self,
        store: &Store,
        page_max: usize,
        checker: &Checker,
        seen: &mut Watched,
    ) -> Checked {
        let Some(mut difference) = self.difference.take() else { return Ok(()) };
        let Ok(page) = store.difference_after(self.cursor, difference.cursor, page_max) else {
            self.difference = Some(Difference::default());
            return Ok(());
        };
        self.ahead = self.ahead.max(page.until);
        for change in page.changes {
            let key = match &change {
                Change::Put { record, .. } => key_bytes_of(record).unwrap_or_default(),
                Change::Removed { key, .. } => key.clone(),
            };
            if !difference.named.insert(key.clone()) {
                let message = format!("{key:?} is told of twice in one difference");
                return Err(Violation { invariant: "I14 unique", message });
            }
            match change {
                Change::Put { record, .. } => self.records.insert(key, record),
                Change::Removed { .. } => self.records.remove(&key),
            };
        }
        difference.named.extend(page.present);
        if let Some(next) = page.next {
            difference.cursor = next;
            self.difference = Some(difference);
            return Ok(());
        }
        if page.present_complete {
            self.records.retain(|key, _| difference.named.contains(key));
        }
        self.cursor = page.until;
        seen.differences += 1;
        self.check_records(checker)
    }

    fn check_records(&self, checker: &Checker) -> Checked {
        if self.cursor < self.ahead {
            // It knows more than its token says, until it has caught up with itself.
            return Ok(());
        }
        let expected = checker.records_at(self.partition, self.cursor);
        if self.records == expected {
            return Ok(());
        }
        let wrong = self.records.iter().find(|(key, record)| expected.get(*key) != Some(*record));
        let missing = expected.keys().find(|key| !self.records.contains_key(*key));
        let message = format!(
            "partition {} at revision {}: a watch has {wrong:?} in excess and lacks {missing:?}",
            self.partition, self.cursor
        );
        Err(Violation { invariant: "I23 coalesced", message })
    }
}
