//! The store against a naive model: random commands, after which everything that can be read at any
//! revision (lists, pages, events, differences, snapshots) must be what the model remembers of it.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::lease::GuardSettings;
use crate::proto::api::Draining;
use crate::proto::node::{ExpiredLease, ReplicaSet, SnapshotBlock};

/// All records at one revision, by name.
type State = BTreeMap<String, Record>;

#[derive(Clone, Debug)]
enum Step {
    Put { name: u8, region: u8, ttl: u8, incarnation: u64, expected: Expected },
    Patch { name: u8, region: u8, incarnation: u64, expected: Expected },
    Delete { name: u8, incarnation: u64, expected: Expected },
    Drain { name: u8 },
    Expire { name: u8, term: u64, stale: bool },
}

#[derive(Clone, Copy, Debug)]
enum Expected {
    Any,
    Absent,
    Stored,
    Wrong,
}

fn step() -> impl Strategy<Value = Step> {
    let expected = prop_oneof![
        6 => Just(Expected::Any), 1 => Just(Expected::Absent),
        1 => Just(Expected::Stored), 1 => Just(Expected::Wrong),
    ];
    let (name, region) = (0u8..6, 0u8..3);
    let head = (name.clone(), region, 0u64..4, expected);
    prop_oneof![
        5 => (head.clone(), 0u8..3).prop_map(|((name, region, incarnation, expected), ttl)| {
            Step::Put { name, region, ttl, incarnation, expected }
        }),
        2 => head.clone().prop_map(|(name, region, incarnation, expected)| {
            Step::Patch { name, region, incarnation, expected }
        }),
        2 => head.prop_map(|(name, _, incarnation, expected)| {
            Step::Delete { name, incarnation, expected }
        }),
        1 => name.clone().prop_map(|name| Step::Drain { name }),
        2 => (name, 1u64..3, any::<bool>())
            .prop_map(|(name, term, stale)| Step::Expire { name, term, stale }),
    ]
}

/// Applies the rules in the plainest way and remembers every revision.
#[derive(Default)]
struct Model {
    history: Vec<State>,
}

impl Model {
    fn now(&self) -> &State {
        self.history.last().unwrap()
    }

    fn revision(&self) -> u64 {
        self.history.len() as u64 - 1
    }

    fn change(&mut self, change: impl FnOnce(&mut State, u64)) -> u64 {
        let mut state = self.now().clone();
        let revision = self.revision() + 1;
        change(&mut state, revision);
        self.history.push(state);
        revision
    }

    fn expected(&self, name: &str, expected: Expected) -> Option<u64> {
        let stored = self.now().get(name).map_or(0, |record| record.revision);
        match expected {
            Expected::Any => None,
            Expected::Absent => Some(0),
            Expected::Stored => Some(stored),
            Expected::Wrong => Some(stored + 1),
        }
    }

    fn refusal(&self, name: &str, expected: Option<u64>) -> Option<Refusal> {
        let stored = self.now().get(name).map_or(0, |record| record.revision);
        match expected? {
            0 if stored != 0 => Some(Refusal::AlreadyExists { stored }),
            expected if expected != stored => Some(Refusal::RevisionMismatch { expected, stored }),
            _ => None,
        }
    }

    fn put(
        &mut self,
        name: &str,
        spec: Spec,
        ttl_ms: i64,
        incarnation: u64,
        expected: Option<u64>,
    ) -> Outcome {
        let old = self.now().get(name).cloned();
        if let Some(old) = &old {
            if incarnation != 0 && incarnation < old.incarnation {
                return Outcome::Refused(Refusal::StaleIncarnation { stored: old.incarnation });
            }
            let same = incarnation == 0 || incarnation == old.incarnation;
            let same_spec = old.spec.as_ref() == Some(&spec) && old.ttl_ms == ttl_ms;
            if same && same_spec && old.draining.is_none() {
                return outcome(old, false);
            }
        }
        if let Some(refusal) = self.refusal(name, expected) {
            return Outcome::Refused(refusal);
        }
        let created = old.is_none();
        self.change(|state, revision| {
            let mut record = old.unwrap_or(Record {
                key: Some(key(name)),
                incarnation,
                create_revision: revision,
                created_unix_ms: 7,
                ..Record::default()
            });
            let other = incarnation != 0 && incarnation != record.incarnation;
            if other || ttl_ms == 0 {
                record.lease_id = 0;
            }
            if ttl_ms > 0 && record.lease_id == 0 {
                record.lease_id = (3 << 53) + revision;
            }
            record.incarnation = if incarnation == 0 { record.incarnation } else { incarnation };
            (record.spec, record.ttl_ms, record.draining) = (Some(spec), ttl_ms, None);
            (record.revision, record.version) = (revision, record.version + 1);
            record.updated_unix_ms = 7;
            state.insert(name.to_owned(), record);
        });
        outcome(&self.now()[name], created)
    }

    fn patch(
        &mut self,
        name: &str,
        spec: Spec,
        incarnation: u64,
        expected: Option<u64>,
    ) -> Outcome {
        let Some(old) = self.now().get(name).cloned() else {
            return Outcome::Refused(Refusal::NotFound);
        };
        if incarnation != 0 && incarnation < old.incarnation {
            return Outcome::Refused(Refusal::StaleIncarnation { stored: old.incarnation });
        }
        let mut new = old.spec.clone().unwrap();
        new.region = spec.region;
        if old.spec.as_ref() == Some(&new) {
            return Outcome::Patched { revision: old.revision };
        }
        if let Some(refusal) = self.refusal(name, expected) {
            return Outcome::Refused(refusal);
        }
        let revision = self.change(|state, revision| {
            let record = state.get_mut(name).unwrap();
            (record.spec, record.revision, record.version) = (Some(new), revision, old.version + 1);
        });
        Outcome::Patched { revision }
    }

    fn delete(&mut self, name: &str, incarnation: u64, expected: Option<u64>) -> Outcome {
        let Some(old) = self.now().get(name).cloned() else {
            return Outcome::Deleted { revision: 0, existed: false };
        };
        if incarnation != 0 && incarnation < old.incarnation {
            return Outcome::Refused(Refusal::StaleIncarnation { stored: old.incarnation });
        }
        if let Some(refusal) = self.refusal(name, expected) {
            return Outcome::Refused(refusal);
        }
        let revision = self.change(|state, _| drop(state.remove(name)));
        Outcome::Deleted { revision, existed: true }
    }

    fn drain(&mut self, name: &str) -> Outcome {
        if !self.now().contains_key(name) {
            return Outcome::Deleted { revision: 0, existed: false };
        }
        let revision = self.change(|state, revision| {
            let record = state.get_mut(name).unwrap();
            record.draining = Some(Draining { deadline_unix_ms: 99, successor: "next".into() });
            (record.revision, record.version) = (revision, record.version + 1);
        });
        Outcome::Draining { revision }
    }

    fn expire(&mut self, name: &str, term: u64, lease: &ExpiredLease) -> Outcome {
        let matches = self.now().get(name).is_some_and(|record| {
            record.lease_id == lease.lease_id
                && record.revision == lease.revision
                && (record.lease_id != 0 || record.draining.is_some())
        });
        if matches && term == 1 {
            self.change(|state, _| drop(state.remove(name)));
            return Outcome::Expired { removed: 1, spared: 0 };
        }
        Outcome::Expired { removed: 0, spared: 1 }
    }
}

fn outcome(record: &Record, created: bool) -> Outcome {
    Outcome::Put {
        revision: record.revision,
        create_revision: record.create_revision,
        lease_id: record.lease_id,
        ttl_ms: record.ttl_ms,
        incarnation: record.incarnation,
        created,
    }
}

fn take(driver: &mut Driver, model: &mut Model, step: &Step) -> (Outcome, Outcome) {
    let region = |region: u8| spec(["eu", "us", "ap"][usize::from(region)]);
    let encoded = |spec: &Spec| Bytes::from(spec.encode_to_vec());
    match *step {
        Step::Put { name, region: r, ttl, incarnation, expected } => {
            let (name, ttl_ms) = (format!("n{name}"), i64::from(ttl) * 50_000_000);
            let expected_revision = model.expected(&name, expected);
            let put = Put { incarnation, expected_revision, ..put(&name, &region(r), ttl_ms) };
            let wanted = model.put(&name, region(r), ttl_ms, incarnation, expected_revision);
            (driver.apply(Operation::Put(put)), wanted)
        }
        Step::Patch { name, region: r, incarnation, expected } => {
            let name = format!("n{name}");
            let expected_revision = model.expected(&name, expected);
            let patch = Patch {
                key: Some(key(&name)),
                spec: encoded(&region(r)),
                paths: vec!["region".into()],
                incarnation,
                expected_revision,
                keeps_address: true,
            };
            let wanted = model.patch(&name, region(r), incarnation, expected_revision);
            (driver.apply(Operation::Patch(patch)), wanted)
        }
        Step::Delete { name, incarnation, expected } => {
            let name = format!("n{name}");
            let expected_revision = model.expected(&name, expected);
            let delete = Delete { key: Some(key(&name)), incarnation, expected_revision };
            let wanted = model.delete(&name, incarnation, expected_revision);
            (driver.apply(Operation::Delete(delete)), wanted)
        }
        Step::Drain { name } => {
            let name = format!("n{name}");
            let drain = Drain {
                key: Some(key(&name)),
                drain_ms: 3_000_000,
                successor: "next".into(),
                deadline_unix_ms: 99,
                ..Drain::default()
            };
            (driver.apply(Operation::Drain(drain)), model.drain(&name))
        }
        Step::Expire { name, term, stale } => {
            let name = format!("n{name}");
            let record = model.now().get(&name).cloned().unwrap_or_default();
            let lease = ExpiredLease {
                slot: driver.store.slots.find(&KeyRef::of(&key(&name))).unwrap_or(99),
                lease_id: record.lease_id,
                incarnation: record.incarnation,
                revision: record.revision.saturating_sub(u64::from(stale)),
            };
            let wanted = model.expire(&name, term, &lease);
            (
                driver.apply(Operation::Expire(Expire {
                    proposer_term: term,
                    leases: vec![lease],
                    claim: None,
                })),
                wanted,
            )
        }
    }
}

/// What pages show at a revision, read in pages of two.
fn listed(store: &Store, revision: u64, now: u64) -> Result<State, PageExpired> {
    let filter = CompiledFilter::new(&Filter::default()).unwrap();
    let (mut state, mut after_slot, mut slots) = (State::new(), None, 0);
    loop {
        let at = ListPosition { revision: Some(revision), after_slot };
        let page = store.list(&filter, at, 2, 1 << 20, now)?;
        assert!(page.instances.len() <= 2);
        for instance in page.instances {
            let record = Record::decode(instance.record).unwrap();
            slots += 1;
            state.insert(record.key.clone().unwrap().name, record);
        }
        match page.next {
            Some(next) => after_slot = Some(next),
            None => break,
        }
    }
    assert_eq!(slots, state.len(), "no record twice");
    Ok(state)
}

/// What a client that held `state` at a revision holds after the difference, and at which revision.
fn after_difference(store: &Store, revision: u64, mut state: State) -> (State, u64) {
    let (mut cursor, mut present, mut told) = (DifferenceCursor::default(), Vec::new(), Vec::new());
    loop {
        let page = store.difference_after(revision, cursor, 2).unwrap();
        for change in page.changes {
            let name = match change {
                Change::Put { record, created, revision: of } => {
                    let record = Record::decode(record).unwrap();
                    assert_eq!((of, created), (record.revision, record.create_revision > revision));
                    let name = record.key.clone().unwrap().name;
                    state.insert(name.clone(), record);
                    name
                }
                Change::Removed { key, .. } => {
                    let name = Key::decode(key).unwrap().name;
                    state.remove(&name);
                    name
                }
            };
            assert!(!told.contains(&name), "{name} is told twice");
            told.push(name);
        }
        present.extend(page.present.into_iter().map(|key| Key::decode(key).unwrap().name));
        match page.next {
            Some(next) => cursor = next,
            None => {
                if page.present_complete {
                    state.retain(|name, _| told.contains(name) || present.contains(name));
                }
                return (state, page.until);
            }
        }
    }
}

fn check_reads(store: &Store, model: &Model, now: u64) {
    for (revision, state) in model.history.iter().enumerate() {
        let revision = revision as u64;
        let reached = store.events_after(revision, 999);
        match (listed(store, revision, now), reached) {
            (Ok(shown), Ok(events)) => {
                assert_eq!(
                    expired_aside(&shown, store, revision),
                    expired_aside(state, store, revision)
                );
                let mut replayed = state.clone();
                for (event, number) in events.zip(revision + 1..) {
                    assert_eq!(event.revision, number, "no revision is left out");
                    replay(&mut replayed, event);
                }
                assert_eq!(&replayed, model.now());
            }
            (Err(PageExpired), Err(compacted)) => assert!(compacted.oldest > revision),
            other => panic!("pages and events disagree at {revision}: {other:?}"),
        }
        let (after, until) = after_difference(store, revision, state.clone());
        assert_eq!((&after, until), (model.now(), model.revision()));
    }
}

/// A state without the records that have run out since: pages don't bring these back.
fn expired_aside(state: &State, store: &Store, revision: u64) -> State {
    let mut state = state.clone();
    let mut ended = Vec::new();
    for event in store.events_after(revision, 999).unwrap() {
        let name = event.key().name.to_owned();
        if event.kind != EventType::Put && !ended.contains(&name) {
            ended.push(name.clone());
            if event.kind == EventType::Expired {
                state.remove(&name);
            }
        }
    }
    state
}

fn replay(state: &mut State, event: &Event) {
    let name = event.key().name.to_owned();
    let previous = event.previous.clone().map(|record| Record::decode(record).unwrap());
    assert_eq!(previous.as_ref(), state.get(&name), "the record before the change");
    assert_eq!(event.created, event.kind == EventType::Put && previous.is_none());
    match &event.record {
        Some(record) => state.insert(name, Record::decode(record.clone()).unwrap()),
        None => state.remove(&name),
    };
}

fn limits(events_max: usize, tombstones_max: usize) -> StoreLimits {
    StoreLimits { events_max, tombstones_max, ..StoreLimits::default() }
}

fn restored(header: SnapshotCursor, blocks: Vec<SnapshotBlock>, limits: StoreLimits) -> Store {
    let mut store = Store::with_limits(3, limits);
    store.restore_header(&header.header([1; 16], ReplicaSet::default()));
    for block in blocks {
        store.restore_block(block).unwrap();
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn everything_that_is_read_is_as_the_model_remembers_it(
        steps in proptest::collection::vec(step(), 1..60),
        events_max in 1usize..40, tombstones_max in 0usize..8,
    ) {
        let mut driver = Driver::with(GuardSettings::default(), limits(events_max, tombstones_max));
        let mut model = Model { history: vec![State::new()] };
        for step in &steps {
            let (answered, wanted) = take(&mut driver, &mut model, step);
            prop_assert_eq!(answered, wanted, "{:?}", step);
            prop_assert_eq!(driver.store.revision(), model.revision());
            prop_assert_eq!(driver.store.len(), model.now().len());
            let leases = model.now().values().filter(|record| record.lease_id != 0).count();
            prop_assert_eq!(driver.store.lease_count(), leases);
        }
        check_reads(&driver.store, &model, driver.now);
        for region in ["eu", "us", "ap"] {
            let shown = driver.names(&Filter { regions: vec![region.into()], ..Filter::default() });
            let wanted = model.now().values().filter(|record| {
                record.spec.as_ref().unwrap().region == region
            });
            let name = |record: &Record| record.key.clone().unwrap().name;
            let mut wanted: Vec<_> = wanted.map(name).collect();
            let mut shown = shown;
            shown.sort();
            wanted.sort();
            prop_assert_eq!(shown, wanted);
        }
    }

    #[test]
    fn a_snapshot_under_writes_shows_its_beginning_and_goes_on_identically(
        before in proptest::collection::vec(step(), 1..40),
        during in proptest::collection::vec(step(), 0..40),
        after in proptest::collection::vec(step(), 0..20),
        block_bytes in 1usize..400,
    ) {
        let limits = limits(64, 4);
        let mut driver = Driver::with(GuardSettings::default(), limits.clone());
        let mut model = Model { history: vec![State::new()] };
        for step in &before {
            take(&mut driver, &mut model, step);
        }
        let mut cursor = driver.store.begin_snapshot();
        let (mut blocks, begun) = (Vec::new(), model.now().clone());
        let index = driver.index;
        for step in &during {
            blocks.extend(driver.store.snapshot_block(&mut cursor, block_bytes));
            take(&mut driver, &mut model, step);
        }
        while let Some(block) = driver.store.snapshot_block(&mut cursor, block_bytes) {
            blocks.push(block);
        }
        let records: usize = blocks.iter().map(|block| block.records.len()).sum();
        prop_assert_eq!(records as u64, cursor.records);
        let mut copy = Driver::new();
        (copy.store, copy.now, copy.index) = (restored(cursor, blocks, limits), driver.now, index);
        prop_assert_eq!(listed(&copy.store, copy.store.revision(), driver.now).unwrap(), begun);
        // The same commands have the same outcome there, to the slot.
        let revision = copy.store.revision() as usize;
        let mut second = Model { history: model.history[..=revision].to_vec() };
        for step in during.iter().chain(&after) {
            take(&mut copy, &mut second, step);
        }
        for step in &after {
            take(&mut driver, &mut model, step);
        }
        prop_assert_eq!(second.now(), model.now());
        for slot in 0..driver.store.slots.end().max(copy.store.slots.end()) {
            prop_assert_eq!(driver.store.slots.get(slot), copy.store.slots.get(slot));
        }
        prop_assert_eq!(driver.store.compacted_revision(), copy.store.compacted_revision());
        prop_assert_eq!(driver.store.state_hash(), copy.store.state_hash());
    }
}
