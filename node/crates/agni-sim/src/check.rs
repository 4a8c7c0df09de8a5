//! What must be true at every step. A violation ends the run with a sentence that says what was
//! seen and when.

use agni_core::proto::node::SystemState;
use agni_core::raft::cell::PartitionCell;
use agni_core::store::{Change, DifferenceCursor, Event, Store, key_bytes_of};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// One applied change, as the first node that applied it has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The canonical key.
    pub key: Bytes,
    /// The record after it; none when it was removed.
    pub record: Option<Bytes>,
    /// Whether the record ran out.
    pub expired: bool,
}

impl Applied {
    fn of(event: &Event) -> Self {
        let expired = event.kind == agni_core::proto::api::EventType::Expired;
        Applied { key: event.key_bytes(), record: event.record.clone(), expired }
    }
}

/// A change that was acknowledged.
#[derive(Debug)]
pub struct Changed {
    /// What was applied.
    pub now: Applied,
    /// The change of the same key before it, with its revision.
    pub before: Option<(u64, Applied)>,
}

/// A broken promise.
#[derive(Debug, Clone)]
pub struct Violation {
    /// Which promise, by its number in the list of invariants.
    pub invariant: &'static str,
    /// What was seen.
    pub message: String,
}

/// An answer like that of every check.
pub type Checked = Result<(), Violation>;

/// Everything that has been seen of one partition.
#[derive(Default)]
struct History {
    /// The changes by revision, beginning with 1.
    log: Vec<Applied>,
    /// The newest revision that somebody has been told of.
    told_revision: u64,
    /// When it became the newest, in microseconds of the world's time.
    told: Vec<(u64, u64)>,
    /// Who led in which term.
    leaders: BTreeMap<u64, u64>,
    /// The terms of applied entries and the hashes of the states behind them, as far as a node
    /// stood at them for a while.
    places: BTreeMap<u64, (u64, u64)>,
}

impl History {
    fn tell(&mut self, revision: u64, now_us: u64) {
        if revision > self.told_revision {
            self.told_revision = revision;
            self.told.push((now_us, revision));
        }
    }
}

/// A lease whose owner takes care, or doesn't.
#[derive(Debug, Clone)]
pub struct Promise {
    /// When it was given first.
    pub since_us: u64,
    /// Until when the record may not run out, in microseconds of the world's time.
    pub alive_until_us: u64,
    /// Whether its owner never stops renewing.
    pub is_kept: bool,
}

/// The records of a partition, by key.
pub type Records = BTreeMap<Bytes, Bytes>;

/// All checks of a run.
pub struct Checker {
    partitions: Vec<History>,
    /// The world's time, in microseconds.
    pub now_us: u64,
    promises: HashMap<Bytes, Promise>,
    /// The system group's states by version, as the first node that had them has them.
    system: BTreeMap<u64, Arc<SystemState>>,
}

fn violation(invariant: &'static str, message: String) -> Violation {
    Violation { invariant, message }
}

impl Checker {
    /// Nothing has been seen yet. The system group stands behind the partitions.
    pub fn new(partitions: u32) -> Self {
        let partitions = (0..=partitions).map(|_| History::default()).collect();
        Checker { partitions, now_us: 0, promises: HashMap::new(), system: BTreeMap::new() }
    }

    /// Election safety: at most one leader a term.
    pub fn leader(&mut self, partition: usize, node: u64, cell: &PartitionCell) -> Checked {
        if cell.leader.load(Relaxed) != node || !cell.is_current.load(Relaxed) {
            return Ok(());
        }
        let term = cell.term.load(Relaxed);
        let first = *self.partitions[partition].leaders.entry(term).or_insert(node);
        match first == node {
            true => Ok(()),
            false => Err(violation(
                "one leader a term",
                format!("partition {partition} term {term} is led by {first} and by {node}"),
            )),
        }
    }

    /// Log matching, of what is applied: an index has the same term everywhere. And the same state
    /// behind it, unless states may differ for a while.
    pub fn stands_at(
        &mut self,
        partition: usize,
        node: u64,
        store: &Store,
        may_differ: bool,
    ) -> Checked {
        let (index, term) = store.applied();
        let hash = store.state_hash();
        let (first, first_hash) =
            *self.partitions[partition].places.entry(index).or_insert((term, hash));
        if first != term {
            return Err(violation(
                "log matching",
                format!(
                    "group {partition} entry {index} is of term {term} on node {node}, \
                     but was of {first}"
                ),
            ));
        }
        if hash == first_hash || may_differ || index == 0 {
            return Ok(());
        }
        Err(violation(
            "I12",
            format!(
                "group {partition} after entry {index}: the state has hash {hash:016x} on node \
                 {node}, but had {first_hash:016x}"
            ),
        ))
    }

    /// State machine safety: every node applies the same changes at the same revisions.
    pub fn applied(&mut self, partition: usize, node: u64, event: &Event, now_us: u64) -> Checked {
        let applied = Applied::of(event);
        let history = &mut self.partitions[partition];
        let position = event.revision as usize - 1;
        if let Some(known) = history.log.get(position) {
            return match *known == applied {
                true => Ok(()),
                false => Err(violation(
                    "I5, I12",
                    format!(
                        "partition {partition} revision {} is {applied:?} on node {node}, but was \
                         {known:?}",
                        event.revision
                    ),
                )),
            };
        }
        if position != history.log.len() {
            return Err(violation(
                "I16 reliable",
                format!(
                    "partition {partition} on node {node}: revision {} follows {}",
                    event.revision,
                    history.log.len()
                ),
            ));
        }
        history.log.push(applied.clone());
        if applied.expired { self.expired(&applied.key, now_us) } else { Ok(()) }
    }

    /// No early expiry, and no expiry at all of what its owner keeps alive.
    fn expired(&mut self, key: &Bytes, now_us: u64) -> Checked {
        let Some(promise) = self.promises.remove(key) else { return Ok(()) };
        if promise.is_kept {
            return Err(violation("I28", format!("{key:?} ran out though it was kept alive")));
        }
        if now_us < promise.alive_until_us {
            return Err(violation(
                "I6",
                format!("{key:?} ran out {} µs too early", promise.alive_until_us - now_us),
            ));
        }
        Ok(())
    }

    /// An owner was told that its lease holds until then.
    pub fn promised(&mut self, key: &Bytes, now_us: u64, alive_until_us: u64, is_kept: bool) {
        let first = Promise { since_us: now_us, alive_until_us, is_kept };
        let promise = self.promises.entry(key.clone()).or_insert(first);
        promise.alive_until_us = promise.alive_until_us.max(alive_until_us);
    }

    /// Whether a record was promised before `since_us` to be alive at `now_us`.
    pub fn is_promised(&self, key: &Bytes, since_us: u64, now_us: u64) -> bool {
        let promise = self.promises.get(key);
        promise.is_some_and(|p| p.since_us < since_us && now_us < p.alive_until_us)
    }

    /// What a request that begins now must see at least.
    pub fn floor(&self, partition: usize) -> u64 {
        self.partitions[partition].told_revision
    }

    /// The newest revision that somebody had been told of at this time.
    pub fn floor_at(&self, partition: usize, at_us: u64) -> u64 {
        let told = &self.partitions[partition].told;
        let later = told.partition_point(|(told_us, _)| *told_us <= at_us);
        told[..later].last().map_or(0, |(_, revision)| *revision)
    }

    /// A change was acknowledged at this revision.
    pub fn changed(
        &mut self,
        partition: usize,
        floor: u64,
        revision: u64,
        key: &Bytes,
    ) -> Result<Changed, Violation> {
        let history = &mut self.partitions[partition];
        if revision <= floor {
            return Err(violation(
                "I2, I5",
                format!(
                    "partition {partition}: a write was acknowledged at revision {revision}, but \
                     {floor} was known before it began"
                ),
            ));
        }
        let Some(applied) = history.log.get(revision as usize - 1) else {
            return Err(violation(
                "I1",
                format!(
                    "partition {partition} revision {revision} was acknowledged, but no node \
                         has applied it"
                ),
            ));
        };
        if applied.key != *key {
            return Err(violation(
                "I1",
                format!(
                    "partition {partition} revision {revision} was acknowledged for {key:?}, but \
                     holds {applied:?}"
                ),
            ));
        }
        let mut earlier = history.log[..revision as usize - 1].iter().enumerate().rev();
        let before = earlier.find(|(_, applied)| applied.key == *key);
        let before = before.map(|(position, applied)| (position as u64 + 1, applied.clone()));
        let now = applied.clone();
        history.tell(revision, self.now_us);
        Ok(Changed { now, before })
    }

    /// A whole record was acknowledged at this revision.
    pub fn wrote(
        &mut self,
        partition: usize,
        floor: u64,
        revision: u64,
        key: &Bytes,
        spec: &[u8],
    ) -> Result<Changed, Violation> {
        let changed = self.changed(partition, floor, revision, key)?;
        let record = changed.now.record.as_ref();
        match record.is_some_and(|record| contains(record, spec)) {
            true => Ok(changed),
            false => Err(violation(
                "I1",
                format!(
                    "partition {partition} revision {revision} was acknowledged for {key:?}, but \
                     holds {:?}",
                    changed.now
                ),
            )),
        }
    }

    /// A read of a key saw this revision of the partition and this record. It must have seen
    /// `floor` at least.
    pub fn read(
        &mut self,
        partition: usize,
        floor: u64,
        revision: u64,
        key: &Bytes,
        record: Option<&Bytes>,
    ) -> Checked {
        let history = &mut self.partitions[partition];
        if revision < floor {
            return Err(violation(
                "I2",
                format!(
                    "partition {partition}: a read saw revision {revision}, but {floor} was known \
                     before it began, or before the age it told"
                ),
            ));
        }
        let newest = history.log[..revision as usize].iter().rev().find(|a| a.key == *key);
        let stored = newest.and_then(|applied| applied.record.as_ref());
        // A record that is overdue but not removed yet is hidden from readers.
        if record.is_some() && record != stored {
            return Err(violation(
                "I2",
                format!(
                    "partition {partition} revision {revision}: {key:?} was read as {record:?}, \
                     but is {stored:?}"
                ),
            ));
        }
        history.tell(revision, self.now_us);
        Ok(())
    }

    /// Every node that has a version of the cluster's state has the same.
    pub fn cluster(&mut self, node: u64, state: Arc<SystemState>) -> Checked {
        let known = self.system.entry(state.version).or_insert_with(|| state.clone());
        // What was reported of the same replicas is no change.
        let plain = |state: &SystemState| {
            let mut state = state.clone();
            for placement in &mut state.partitions {
                (placement.reported_index, placement.reached_version) = (0, 0);
            }
            state
        };
        match Arc::ptr_eq(known, &state) || plain(known) == plain(&state) {
            true => Ok(()),
            false => Err(violation(
                "I12",
                format!("node {node} has {state:?}, but the first of this version was {known:?}"),
            )),
        }
    }

    /// What a partition held at a revision.
    pub fn records_at(&self, partition: usize, revision: u64) -> Records {
        let mut records = Records::new();
        for applied in self.partitions[partition].log.iter().take(revision as usize) {
            match &applied.record {
                Some(record) => records.insert(applied.key.clone(), record.clone()),
                None => records.remove(&applied.key),
            };
        }
        records
    }

    /// A whole store holds what it must at its revision: after a snapshot, and at the end.
    pub fn holds(&self, partition: usize, node: u64, store: &Store) -> Checked {
        let revision = store.revision();
        if revision > self.revision(partition) {
            let what = format!("partition {partition} on node {node} is at revision {revision}");
            let message =
                format!("{what}, but no node has applied more than {}", self.revision(partition));
            return Err(violation("I5", message));
        }
        let (mut records, mut cursor) = (Records::new(), DifferenceCursor::default());
        while let Ok(page) = store.difference_after(0, cursor, usize::MAX) {
            for change in page.changes {
                if let Change::Put { record, .. } = change {
                    records.insert(key_bytes_of(&record).unwrap_or_default(), record);
                }
            }
            match page.next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        let expected = self.records_at(partition, revision);
        if records == expected {
            return Ok(());
        }
        let message = format!(
            "partition {partition} on node {node} holds {records:?} at revision {revision}, not \
             {expected:?}"
        );
        Err(violation("I12", message))
    }

    /// A watch that had seen everything up to `cursor` was told this next. Whoever reads from now
    /// on must see it, too: I11.
    pub fn watched(&mut self, partition: usize, cursor: u64, event: &Event) -> Checked {
        let told = |invariant, what: &str| {
            let revision = event.revision;
            let message = format!(
                "partition {partition}: a watch at {cursor} was told of {revision}, {what}"
            );
            Err(violation(invariant, message))
        };
        if event.revision <= cursor {
            return told("I14 unique", "again");
        }
        if event.revision != cursor + 1 {
            return told("I16 reliable", "which leaves something out");
        }
        let history = &mut self.partitions[partition];
        let known = history.log.get(event.revision as usize - 1);
        if known.is_none_or(|known| *known != Applied::of(event)) {
            return told("I13 ordered", "which nobody has applied like this");
        }
        history.tell(event.revision, self.now_us);
        Ok(())
    }

    /// The newest revision of a partition.
    pub fn revision(&self, partition: usize) -> u64 {
        self.partitions[partition].log.len() as u64
    }

    /// Keys whose last change left a record, with their promise.
    pub fn survivors(&self) -> Vec<(Bytes, Option<Promise>)> {
        let mut newest: BTreeMap<&Bytes, bool> = BTreeMap::new();
        for history in &self.partitions {
            for applied in &history.log {
                newest.insert(&applied.key, applied.record.is_some());
            }
        }
        let stored = newest.into_iter().filter(|(_, stored)| *stored);
        stored.map(|(key, _)| (key.clone(), self.promises.get(key).cloned())).collect()
    }
}

fn contains(record: &[u8], spec: &[u8]) -> bool {
    record.windows(spec.len()).any(|window| window == spec)
}
