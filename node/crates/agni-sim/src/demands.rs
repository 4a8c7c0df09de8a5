//! Writes that demand something of what is stored, and removals; what their answers promise is held
//! against what was applied.

use crate::check::{Applied, Changed, Checked, Violation};
use crate::random::Random;
use agni_core::key::KeyRef;
use agni_core::proto::api::{Record, Spec};
use agni_core::proto::node::{Command, Delete, Patch, Put, command::Operation};
use agni_core::raft::work::Work;
use agni_core::store::Refusal;
use prost::Message as _;
use std::collections::BTreeMap;

/// The one field that patches take over.
const PATH: &str = "owner";

/// What a request demands, and what it would make of the record.
#[derive(Debug, Default)]
pub struct Demand {
    /// The spec that it brings.
    pub spec: Vec<u8>,
    expected_revision: Option<u64>,
    incarnation: u64,
    patches: bool,
}

/// What the clients last heard of a record; they share it, and so get into each other's way.
#[derive(Debug, Clone, Copy, Default)]
struct Heard {
    revision: u64,
    incarnation: u64,
}

/// What was last heard of each record.
#[derive(Debug, Default)]
pub struct Hearsay(BTreeMap<String, Heard>);

fn decoded(applied: &Applied) -> Option<Record> {
    applied.record.as_ref().and_then(|record| Record::decode(record.clone()).ok())
}

impl Demand {
    /// What some work demands.
    pub fn of(work: &Work) -> Self {
        let Work::Write(Command { operation: Some(operation), .. }) = work else {
            return Demand::default();
        };
        match operation {
            Operation::Put(put) => Demand {
                spec: put.spec.to_vec(),
                expected_revision: put.expected_revision,
                incarnation: put.incarnation,
                patches: false,
            },
            Operation::Patch(patch) => Demand {
                spec: patch.spec.to_vec(),
                expected_revision: patch.expected_revision,
                incarnation: patch.incarnation,
                patches: true,
            },
            Operation::Delete(delete) => Demand {
                expected_revision: delete.expected_revision,
                incarnation: delete.incarnation,
                ..Demand::default()
            },
            _ => Demand::default(),
        }
    }

    /// It was acknowledged, and this is what was applied.
    ///
    /// # Errors
    /// When the record before it was not what it demanded, or the one after it is another one.
    pub fn check(&self, changed: &Changed) -> Checked {
        let failed = |what: &str| {
            let message = format!("{self:?} was acknowledged, {what}: {changed:?}");
            Err(Violation { invariant: "I4", message })
        };
        let before = changed.before.as_ref().filter(|(_, applied)| applied.record.is_some());
        let stored = before.map_or(0, |(revision, _)| *revision);
        if self.expected_revision.is_some_and(|expected| expected != stored) {
            return failed("but another revision was stored");
        }
        let before = before.and_then(|(_, applied)| decoded(applied));
        let stored = before.as_ref().map_or(0, |record| record.incarnation);
        if self.incarnation != 0 && self.incarnation < stored {
            return failed("but a newer incarnation was stored");
        }
        match decoded(&changed.now) {
            // Whoever registers again with none means the one that is there.
            Some(after) if after.incarnation != self.incarnation.max(stored) => {
                failed("but not with its incarnation")
            }
            Some(after) if self.patches => self.check_patch(before, after, failed),
            Some(_) => Ok(()),
            None if self.spec.is_empty() && !changed.now.expired => Ok(()),
            None => failed("but the record is gone"),
        }
    }

    fn check_patch(
        &self,
        before: Option<Record>,
        after: Record,
        failed: impl Fn(&str) -> Checked,
    ) -> Checked {
        let brought = Spec::decode(&self.spec[..]).unwrap_or_default();
        let mut expected = before.and_then(|record| record.spec).unwrap_or_default();
        expected.owner = brought.owner;
        match after.spec == Some(expected) {
            true => Ok(()),
            false => failed("but more was changed than its mask names, or less"),
        }
    }
}

impl Hearsay {
    /// A record was seen, or was not there.
    pub fn saw(&mut self, key: &str, record: Option<&[u8]>) {
        let record = record.and_then(|record| Record::decode(record).ok()).unwrap_or_default();
        let heard = Heard { revision: record.revision, incarnation: record.incarnation };
        self.0.insert(key.to_owned(), heard);
    }

    /// A demand was refused.
    pub fn refused(&mut self, key: &str, refusal: &Refusal) {
        let heard = self.0.entry(key.to_owned()).or_default();
        match refusal {
            Refusal::RevisionMismatch { stored, .. } | Refusal::AlreadyExists { stored } => {
                heard.revision = *stored;
            }
            Refusal::StaleIncarnation { stored } => heard.incarnation = *stored,
            _ => {}
        }
    }

    /// A write that demands something, or removes a record.
    pub fn demand(&self, key: KeyRef<'_>, spec: &Spec, random: &mut Random) -> Work {
        let heard = self.0.get(key.name).copied().unwrap_or_default();
        let key = Some(key.to_message());
        let compares = random.chance(500).then_some(heard.revision);
        let spec = spec.encode_to_vec().into();
        let operation = match random.below(4) {
            0 => Operation::Delete(Delete { key, expected_revision: compares, incarnation: 0 }),
            1 => {
                let expected_revision = Some(heard.revision);
                Operation::Put(Put { key, spec, expected_revision, ..Put::default() })
            }
            2 => {
                let incarnation = (heard.incarnation + random.below(3)).saturating_sub(1);
                Operation::Put(Put { key, spec, incarnation, ..Put::default() })
            }
            _ => {
                let paths = vec![PATH.to_owned()];
                let expected_revision = compares;
                Operation::Patch(Patch { key, spec, paths, expected_revision, ..Patch::default() })
            }
        };
        Work::Write(Command { proposed_unix_ms: 0, operation: Some(operation) })
    }
}
