//! Applies commands. What becomes of the records depends on the commands alone, on every replica.
//!
//! One case answers from soft state without touching a record: a repeated `Put` that changes
//! nothing, for a record whose removal is in flight. To call that success would acknowledge a
//! record that is about to go, so the leader answers `Refusal::Expiring`, and the owner tries
//! again.

use bytes::Bytes;
use std::sync::Arc;

use super::events::Event;
use super::record::{self, DrainingRef, Meta, SpecParts};
use super::tombstones::Tombstone;
use super::{Store, patch};
use crate::key::KeyRef;
use crate::lease::Home;
use crate::planted::{Bug, is_planted};
use crate::proto::api::EventType;
use crate::proto::node::command::Operation;
use crate::proto::node::{Command, Delete, Drain, Expire, ExpiredLease, Patch, Put, SystemCommand};
use crate::system::{self, SystemOutcome, SystemRefusal};

/// A lease identity is the partition above this many bits of the revision that made it.
const LEASE_REVISION_BITS: u32 = 53;

/// What came of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The record is as asked for.
    Put {
        /// Its revision; unchanged where the command changed nothing.
        revision: u64,
        /// The revision at which it was created.
        create_revision: u64,
        /// Its lease; 0 without.
        lease_id: u64,
        /// The lease's time to live, in milliseconds.
        ttl_ms: i64,
        /// Its incarnation.
        incarnation: u64,
        /// Whether it did not exist before.
        created: bool,
    },
    /// The record is as asked for.
    Patched {
        /// Its revision; unchanged where the command changed nothing.
        revision: u64,
    },
    /// The record is gone.
    Deleted {
        /// The revision of its removal; 0 when there was none.
        revision: u64,
        /// Whether there was one.
        existed: bool,
    },
    /// The record is draining.
    Draining {
        /// Its revision.
        revision: u64,
    },
    /// What had run out is gone.
    Expired {
        /// How many were removed.
        removed: u32,
        /// How many were spared, because they had changed or the proposer no longer led.
        spared: u32,
    },
    /// The system state is as asked for.
    System(SystemOutcome),
    /// Nothing happened.
    Refused(Refusal),
}

/// Why a command did nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such record.
    NotFound,
    /// The incarnation is older than the stored one.
    StaleIncarnation {
        /// The stored incarnation.
        stored: u64,
    },
    /// The record has another revision than expected.
    RevisionMismatch {
        /// What was expected.
        expected: u64,
        /// What is stored; 0 without a record.
        stored: u64,
    },
    /// The record must not exist, but does.
    AlreadyExists {
        /// Its revision.
        stored: u64,
    },
    /// The record would not be a valid one.
    InvalidSpec {
        /// The field at fault.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// The record has run out and its removal is in flight: try again in a moment.
    Expiring,
    /// The system state stands against it.
    System(SystemRefusal),
}

impl Refusal {
    fn invalid(field: &str, message: &str) -> Outcome {
        let (field, message) = (field.to_owned(), message.to_owned());
        Outcome::Refused(Refusal::InvalidSpec { field, message })
    }
}

/// What a write demands of the stored record.
struct Demand {
    incarnation: u64,
    expected_revision: Option<u64>,
}

impl Demand {
    fn incarnation(&self, stored: &Meta<'_>) -> Result<u64, Refusal> {
        match self.incarnation {
            0 => Ok(stored.incarnation),
            older if older < stored.incarnation => {
                Err(Refusal::StaleIncarnation { stored: stored.incarnation })
            }
            incarnation => Ok(incarnation),
        }
    }

    fn revision(&self, stored: u64) -> Result<(), Refusal> {
        match self.expected_revision {
            _ if is_planted(Bug::RevisionNotCompared) => Ok(()),
            Some(0) if stored != 0 => Err(Refusal::AlreadyExists { stored }),
            Some(expected) if expected != stored => {
                Err(Refusal::RevisionMismatch { expected, stored })
            }
            _ => Ok(()),
        }
    }
}

impl Store {
    /// Applies a committed entry. Indexes only grow. `now_ms` counts for leases alone.
    pub fn apply(&mut self, index: u64, term: u64, command: &Command, now_ms: u64) -> Outcome {
        self.apply_empty(index, term);
        let proposed_unix_ms = command.proposed_unix_ms;
        match &command.operation {
            Some(Operation::Put(put)) => self.put(put, proposed_unix_ms, now_ms),
            Some(Operation::Patch(patch)) => self.patch(patch, proposed_unix_ms),
            Some(Operation::Delete(delete)) => self.delete(delete),
            Some(Operation::Drain(drain)) => self.drain(drain, proposed_unix_ms, now_ms),
            Some(Operation::Expire(expire)) => self.expire(expire, term),
            Some(Operation::System(command)) => self.change_system(command),
            None => Refusal::invalid("operation", "must be given"),
        }
    }

    /// Notes an entry that changes no record: the leader's own, or a configuration change.
    pub fn apply_empty(&mut self, index: u64, term: u64) {
        debug_assert!(index > self.applied_index, "an entry is applied once");
        (self.applied_index, self.applied_term) = (index, term);
    }

    fn put(&mut self, put: &Put, proposed_unix_ms: i64, now_ms: u64) -> Outcome {
        let Some(key) = put.key.as_ref().map(KeyRef::of) else {
            return Refusal::invalid("key", "must be given");
        };
        let Some(spec) = SpecParts::parse(&put.spec) else {
            return Refusal::invalid("spec", "is malformed");
        };
        let Ok(ttl_ms) = u32::try_from(put.ttl_ms) else {
            return Refusal::invalid("ttl_ms", "is out of bounds");
        };
        let demand =
            Demand { incarnation: put.incarnation, expected_revision: put.expected_revision };
        let stored = self.slots.find(&key);
        let old = stored.and_then(|slot| self.slots.get(slot)).cloned();
        let old_parts = old.as_ref().and_then(|record| record::parse(record));
        let mut meta = match &old_parts {
            None => Meta { incarnation: put.incarnation, ..Meta::default() },
            Some(parts) => {
                let incarnation = match demand.incarnation(&parts.meta) {
                    Ok(incarnation) => incarnation,
                    Err(refusal) => return Outcome::Refused(refusal),
                };
                let same = incarnation == parts.meta.incarnation
                    && parts.spec == put.spec
                    && parts.meta.ttl_ms == put.ttl_ms
                    && parts.meta.draining.is_none();
                if let (true, Some(slot)) = (same, stored) {
                    return self.put_again(slot, &parts.meta, spec.home(&key), now_ms);
                }
                let kept = incarnation == parts.meta.incarnation && put.ttl_ms > 0;
                let lease_id = if kept { parts.meta.lease_id } else { 0 };
                Meta { incarnation, lease_id, draining: None, ..parts.meta.clone() }
            }
        };
        if let Err(refusal) = demand.revision(meta.revision) {
            return Outcome::Refused(refusal);
        }
        let revision = self.revision + 1;
        let created = old_parts.is_none();
        if created {
            (meta.create_revision, meta.created_unix_ms) = (revision, proposed_unix_ms);
        }
        meta.ttl_ms = put.ttl_ms;
        if meta.lease_id == 0 && ttl_ms > 0 {
            meta.lease_id = (u64::from(self.partition) << LEASE_REVISION_BITS) | revision;
        }
        (meta.revision, meta.version) = (revision, meta.version + 1);
        meta.updated_unix_ms = proposed_unix_ms;
        let slot = stored.unwrap_or_else(|| self.slots.next_vacant());
        self.write(slot, record::encode(&key, &put.spec, &meta));
        self.leases.undrain(slot);
        match meta.lease_id {
            0 => self.leases.revoke(slot),
            lease_id => {
                self.leases.grant(slot, lease_id, ttl_ms, spec.home(&key), Some(now_ms));
            }
        }
        put_outcome(&meta, created)
    }

    /// A repeated `Put` that changes nothing: takes no revision, but renews.
    fn put_again(&mut self, slot: u32, meta: &Meta<'_>, home: Home<'_>, now_ms: u64) -> Outcome {
        if self.leases.is_taken(slot) {
            return Outcome::Refused(Refusal::Expiring);
        }
        if meta.lease_id != 0 {
            let ttl_ms = u32::try_from(meta.ttl_ms).unwrap_or(u32::MAX);
            self.leases.grant(slot, meta.lease_id, ttl_ms, home, Some(now_ms));
        }
        put_outcome(meta, false)
    }

    fn patch(&mut self, command: &Patch, proposed_unix_ms: i64) -> Outcome {
        let Some((slot, old)) = self.find_record(command.key.as_ref().map(KeyRef::of)) else {
            return Outcome::Refused(Refusal::NotFound);
        };
        let Some(parts) = record::parse(&old) else {
            return Refusal::invalid("record", "is malformed");
        };
        let demand = Demand {
            incarnation: command.incarnation,
            expected_revision: command.expected_revision,
        };
        if let Err(refusal) = demand.incarnation(&parts.meta) {
            return Outcome::Refused(refusal);
        }
        let spec = match patch::patched(parts.spec, command) {
            Ok(spec) => spec,
            Err(error) => return Refusal::invalid(&error.field, &error.message),
        };
        if spec == parts.spec {
            return Outcome::Patched { revision: parts.meta.revision };
        }
        if let Err(refusal) = demand.revision(parts.meta.revision) {
            return Outcome::Refused(refusal);
        }
        let revision = self.revision + 1;
        let meta = Meta {
            revision,
            version: parts.meta.version + 1,
            updated_unix_ms: proposed_unix_ms,
            ..parts.meta.clone()
        };
        self.write(slot, record::encode(&parts.key, &spec, &meta));
        if let Some(spec) = SpecParts::parse(&spec) {
            self.leases.move_home(slot, spec.home(&parts.key));
        }
        Outcome::Patched { revision }
    }

    fn delete(&mut self, delete: &Delete) -> Outcome {
        let Some((slot, old)) = self.find_record(delete.key.as_ref().map(KeyRef::of)) else {
            return Outcome::Deleted { revision: 0, existed: false };
        };
        let demand =
            Demand { incarnation: delete.incarnation, expected_revision: delete.expected_revision };
        if let Err(refusal) = self.demanded(&old, &demand) {
            return Outcome::Refused(refusal);
        }
        self.remove(slot, EventType::Deregistered);
        Outcome::Deleted { revision: self.revision, existed: true }
    }

    fn drain(&mut self, drain: &Drain, proposed_unix_ms: i64, now_ms: u64) -> Outcome {
        let Some((slot, old)) = self.find_record(drain.key.as_ref().map(KeyRef::of)) else {
            return Outcome::Deleted { revision: 0, existed: false };
        };
        let demand =
            Demand { incarnation: drain.incarnation, expected_revision: drain.expected_revision };
        if let Err(refusal) = self.demanded(&old, &demand) {
            return Outcome::Refused(refusal);
        }
        let Some(parts) = record::parse(&old) else {
            return Refusal::invalid("record", "is malformed");
        };
        let revision = self.revision + 1;
        let meta = Meta {
            revision,
            version: parts.meta.version + 1,
            updated_unix_ms: proposed_unix_ms,
            draining: Some(DrainingRef {
                deadline_unix_ms: drain.deadline_unix_ms,
                successor: &drain.successor,
            }),
            ..parts.meta.clone()
        };
        self.write(slot, record::encode(&parts.key, parts.spec, &meta));
        self.leases.drain(slot, drain.drain_ms.max(0) as u64, Some(now_ms));
        Outcome::Draining { revision }
    }

    fn change_system(&mut self, command: &SystemCommand) -> Outcome {
        let Some(state) = &mut self.system else {
            return Refusal::invalid("operation", "changes the system state, which is elsewhere");
        };
        // Readers keep what they hold.
        let state = Arc::make_mut(state);
        let before = state.version;
        let outcome = system::apply(state, command);
        self.revision += u64::from(state.version != before);
        match outcome {
            Ok(outcome) => Outcome::System(outcome),
            Err(refusal) => Outcome::Refused(Refusal::System(refusal)),
        }
    }

    fn expire(&mut self, expire: &Expire, term: u64) -> Outcome {
        let mut removed = 0;
        for lease in &expire.leases {
            let own_term = term == expire.proposer_term || is_planted(Bug::ExpiryWithoutProof);
            if own_term && self.is_still(lease) {
                self.remove(lease.slot, EventType::Expired);
                removed += 1;
            } else {
                self.leases.retake(lease.slot);
            }
        }
        Outcome::Expired { removed, spared: expire.leases.len() as u32 - removed }
    }

    /// Whether a slot still holds exactly what ran out.
    fn is_still(&self, lease: &ExpiredLease) -> bool {
        let record = self.slots.get(lease.slot);
        record.and_then(|record| record::parse(record)).is_some_and(|parts| {
            parts.meta.lease_id == lease.lease_id
                && parts.meta.incarnation == lease.incarnation
                && parts.meta.revision == lease.revision
                && (lease.lease_id != 0 || parts.meta.draining.is_some())
        })
    }

    fn find_record(&self, key: Option<KeyRef<'_>>) -> Option<(u32, Bytes)> {
        let slot = self.slots.find(&key?)?;
        Some((slot, self.slots.get(slot)?.clone()))
    }

    fn demanded(&self, record: &Bytes, demand: &Demand) -> Result<(), Refusal> {
        let meta = record::parse(record).map(|parts| parts.meta).unwrap_or_default();
        demand.incarnation(&meta)?;
        demand.revision(meta.revision)
    }

    /// Stores a record with the next revision, in all that is kept of it.
    fn write(&mut self, slot: u32, record: Bytes) {
        self.revision += 1;
        let old = self.slots.get(slot).cloned();
        self.save_for_snapshots(slot, old.as_ref());
        self.place(slot, &record, old.as_ref());
        self.events.push(Event {
            revision: self.revision,
            slot,
            kind: EventType::Put,
            created: old.is_none(),
            record: Some(record),
            previous: old,
        });
    }

    /// Puts a record into its slot and the indexes; answers its parts.
    pub(super) fn place(&mut self, slot: u32, record: &Bytes, old: Option<&Bytes>) {
        let Some(parts) = record::parse(record) else { return };
        let Some(spec) = SpecParts::parse(parts.spec) else { return };
        match old.and_then(|old| record::parse(old)) {
            None => self.index.insert(slot, &parts, &spec),
            Some(old) if old.spec == parts.spec => {}
            Some(old) => {
                if let Some(old) = SpecParts::parse(old.spec) {
                    self.index.remove_spec(slot, &old);
                }
                self.index.insert_spec(slot, &spec);
            }
        }
        self.slots.put(slot, &parts.key, record.clone(), parts.meta.revision, &spec.capacity);
    }

    /// Removes a record with the next revision, from all that is kept of it.
    fn remove(&mut self, slot: u32, kind: EventType) {
        let Some(old) = self.slots.get(slot).cloned() else { return };
        self.revision += 1;
        self.save_for_snapshots(slot, Some(&old));
        if let Some(parts) = record::parse(&old) {
            if let Some(spec) = SpecParts::parse(parts.spec) {
                self.index.remove(slot, &parts, &spec);
            }
            self.tombstones.push(Tombstone {
                revision: self.revision,
                key: parts.key_bytes.into(),
                expired: kind == EventType::Expired,
            });
        }
        self.slots.remove(slot);
        self.leases.release(slot);
        self.events.push(Event {
            revision: self.revision,
            slot,
            kind,
            created: false,
            record: None,
            previous: Some(old),
        });
    }
}

fn put_outcome(meta: &Meta<'_>, created: bool) -> Outcome {
    Outcome::Put {
        revision: meta.revision,
        create_revision: meta.create_revision,
        lease_id: meta.lease_id,
        ttl_ms: meta.ttl_ms,
        incarnation: meta.incarnation,
        created,
    }
}
