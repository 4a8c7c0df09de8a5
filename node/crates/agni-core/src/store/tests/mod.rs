//! The store from outside: what its callers rely on, told command by command.

mod leases;
mod model;
mod reads;

use bytes::Bytes;
use prost::Message;

use super::*;
use crate::lease::{GuardSettings, MassExpiry};
use crate::proto::api::{EventType, Filter, Key, Kind, Record, Spec};
use crate::proto::node::command::Operation;
use crate::proto::node::{Command, Delete, Drain, Expire, Patch, Put};

/// A store with a clock and a log index of its own.
pub(super) struct Driver {
    pub store: Store,
    pub guard: MassExpiry,
    pub now: u64,
    index: u64,
}

pub(super) fn key(name: &str) -> Key {
    Key { namespace: "default".into(), kind: Kind::Agent as i32, name: name.into() }
}

pub(super) fn spec(region: &str) -> Spec {
    let capacity = Some(Capacity { cpu: 2.0, bandwidth: 10.0, memory: 100.0, storage: 100.0 });
    Spec { region: region.into(), capacity, ..Spec::default() }
}

pub(super) fn put(name: &str, spec: &Spec, ttl_ms: i64) -> Put {
    let spec = Bytes::from(spec.encode_to_vec());
    Put { key: Some(key(name)), spec, ttl_ms, incarnation: 0, expected_revision: None }
}

impl Driver {
    pub fn new() -> Driver {
        Driver::with(GuardSettings::default(), StoreLimits::default())
    }

    /// One whose leases are never held.
    pub fn unguarded() -> Driver {
        let settings = GuardSettings { is_on: false, ..GuardSettings::default() };
        Driver::with(settings, StoreLimits::default())
    }

    pub fn with(guard: GuardSettings, limits: StoreLimits) -> Driver {
        let (store, guard) = (Store::with_limits(3, limits), MassExpiry::new(guard));
        Driver { store, guard, now: 1_000_000, index: 0 }
    }

    /// Looks at the leases, as the engine does; answers what is due.
    pub fn take_due(&mut self, now: u64, limit: usize) -> Vec<ExpiredLease> {
        self.guard.look(now, &mut |look| look(&mut self.store), &mut Vec::new());
        self.store.take_due(now, limit)
    }

    pub fn apply(&mut self, operation: Operation) -> Outcome {
        self.index += 1;
        let command = Command { operation: Some(operation), proposed_unix_ms: 7 };
        self.store.apply(self.index, 1, &command, self.now)
    }

    pub fn put(&mut self, name: &str, region: &str, ttl_ms: i64) -> Outcome {
        self.apply(Operation::Put(put(name, &spec(region), ttl_ms)))
    }

    pub fn delete(&mut self, name: &str) -> Outcome {
        self.apply(Operation::Delete(Delete { key: Some(key(name)), ..Delete::default() }))
    }

    /// Proposes what is due, as the engine does; answers how many were removed.
    pub fn expire(&mut self, limit: usize) -> u32 {
        let leases = self.take_due(self.now, limit);
        if leases.is_empty() {
            return 0;
        }
        match self.apply(Operation::Expire(Expire { proposer_term: 1, leases, claim: None })) {
            Outcome::Expired { removed, .. } => removed,
            other => panic!("{other:?}"),
        }
    }

    pub fn renew(&mut self, lease_id: u64) -> bool {
        self.store.renew(lease_id, None, self.now).is_some()
    }

    pub fn get(&self, name: &str) -> Option<InstanceView<'_>> {
        self.store.get(&KeyRef::of(&key(name)), self.now)
    }

    pub fn names(&self, filter: &Filter) -> Vec<String> {
        let filter = CompiledFilter::new(filter).unwrap();
        let page = self.store.list(&filter, ListPosition::default(), 1_000, 1 << 30, self.now);
        page.unwrap().instances.iter().map(|instance| name_of(&instance.record)).collect()
    }
}

pub(super) fn name_of(record: &Bytes) -> String {
    Record::decode(record.clone()).unwrap().key.unwrap().name
}

fn lease_of(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Put { lease_id, .. } => *lease_id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_record_is_created_changed_and_removed_with_a_revision_each() {
    let mut driver = Driver::new();
    let created = driver.put("a", "eu", 10_000);
    let lease_id = (3 << 53) | 1;
    let expected = |revision, created| Outcome::Put {
        revision,
        create_revision: 1,
        lease_id,
        ttl_ms: 10_000,
        incarnation: 0,
        created,
    };
    assert_eq!(created, expected(1, true));
    assert_eq!(driver.put("a", "eu", 10_000), expected(1, false), "a repeat takes no revision");
    assert_eq!(driver.put("a", "us", 10_000), expected(2, false));
    let record = Record::decode(driver.get("a").unwrap().record.clone()).unwrap();
    assert_eq!((record.revision, record.version, record.lease_id), (2, 2, lease_id));
    assert_eq!(record.spec, Some(spec("us")));
    assert_eq!(driver.delete("a"), Outcome::Deleted { revision: 3, existed: true });
    assert_eq!(driver.delete("a"), Outcome::Deleted { revision: 0, existed: false });
    assert!(driver.get("a").is_none());
    let kinds: Vec<_> = driver.store.events_after(0, 9).unwrap().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventType::Put, EventType::Put, EventType::Deregistered]);
}

/// A gateway, registered with an ip and a domain.
fn gateway(driver: &mut Driver) -> Key {
    let key = Key { kind: Kind::Gateway as i32, ..key("g") };
    let (ip, domain) = ("12.34.56.78".into(), "g.example.org".into());
    let spec = Spec { ip, domain, port: 4_000, ..spec("eu") };
    driver.apply(Operation::Put(Put { key: Some(key.clone()), ..put("g", &spec, 0) }));
    key
}

/// Takes what `paths` name from a record.
fn without(key: &Key, paths: &[&str], keeps_address: bool) -> Operation {
    let (key, paths) = (Some(key.clone()), paths.iter().map(|path| (*path).to_owned()).collect());
    Operation::Patch(Patch { key, paths, keeps_address, ..Patch::default() })
}

#[test]
fn no_patch_leaves_a_gateway_without_an_address() {
    let mut driver = Driver::new();
    let key = gateway(&mut driver);
    let refused = |driver: &mut Driver, paths: &[&str]| {
        let before = driver.store.state_hash();
        let field = match driver.apply(without(&key, paths, true)) {
            Outcome::Refused(Refusal::InvalidSpec { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(driver.store.state_hash(), before, "nothing has changed");
        field
    };
    assert_eq!(refused(&mut driver, &["ip", "domain"]), "spec.ip");
    assert_eq!(refused(&mut driver, &["ip", "domain", "port"]), "spec.ip");
    assert_eq!(refused(&mut driver, &["port"]), "spec.port");
    let done = driver.apply(without(&key, &["ip"], true));
    assert_eq!(done, Outcome::Patched { revision: 2 });
    assert_eq!(refused(&mut driver, &["domain"]), "spec.ip", "what is stored by then decides");
}

#[test]
fn a_gateway_that_was_stored_without_an_address_stays_changeable_in_all_else() {
    let mut driver = Driver::new();
    let key = gateway(&mut driver);
    // As an older version wrote it into the log.
    let old = driver.apply(without(&key, &["ip", "domain"], false));
    assert_eq!(old, Outcome::Patched { revision: 2 });
    let other = driver.apply(without(&key, &["capacity"], true));
    assert_eq!(other, Outcome::Patched { revision: 3 });
    let address = driver.apply(without(&key, &["ip"], true));
    assert!(matches!(address, Outcome::Refused(Refusal::InvalidSpec { .. })), "{address:?}");
}
