//! The end of the faults, and what must be true some time after it.

use crate::check::{Checked, Violation};
use crate::clients::{Mood, ZOMBIE_US};
use crate::node::Turn;
use crate::world::{APPEND_US, World};
use std::fmt::Write as _;
use std::sync::atomic::Ordering::Relaxed;

/// What the system group may have to write down in a second in which nothing happens: comparisons
/// of its states. What is reported to it over and over would be more.
const SYSTEM_ENTRIES_MAX: u64 = 4;

impl World {
    /// All is well again. What is gone for ever stays gone, and the operator ends what he began.
    pub(crate) fn heal_all(&mut self) -> Checked {
        self.mood = Mood::Healed;
        self.deserting = None;
        self.network.heal();
        for node in 0..self.nodes.len() {
            self.append_us_max[node] = APPEND_US.1;
            self.nodes[node].disk.heal();
            self.start(node)?;
            let mut turn = Turn::default();
            if self.nodes[node].paused {
                self.nodes[node].resume(&mut turn);
            }
            self.turn(node, turn)?;
        }
        Ok(())
    }

    /// The highest term of each group, as its members know it.
    pub(crate) fn terms(&self) -> Vec<u64> {
        let Some(state) = self.newest_state() else { return Vec::new() };
        let term = |group: usize| {
            let members = (0..self.nodes.len()).filter(|node| self.takes_part(*node, &state));
            let lives = members.filter_map(|node| self.nodes[node].life.as_ref());
            let held = lives.filter(|life| life.cells[group].is_held.load(Relaxed));
            held.map(|life| life.cells[group].term.load(Relaxed)).max().unwrap_or(0)
        };
        (0..=self.scenario.partitions as usize).map(term).collect()
    }

    /// The newest committed entry of the system group.
    pub(crate) fn system_index(&self) -> u64 {
        let system = self.scenario.partitions as usize;
        let lives = self.nodes.iter().filter_map(|node| node.life.as_ref());
        lives.map(|life| life.cells[system].commit.load(Relaxed)).max().unwrap_or(0)
    }

    /// All replicas are equal and where they are wanted, the living live, the dead are gone,
    /// watches know everything, and nobody disturbs.
    pub(crate) fn check_end(&self) -> Checked {
        let failed = |invariant, message| Err(Violation { invariant, message });
        self.check_members()?;
        for node in self.nodes.iter().filter(|node| !node.is_lost) {
            let Some(life) = &node.life else {
                return failed("I27", format!("node {} is down", node.id));
            };
            for partition in 0..self.scenario.partitions as usize {
                let cell = &life.cells[partition];
                let replicas = life.replicas(partition);
                let store = cell.store.read();
                self.checker.holds(partition, node.id, &store)?;
                let newest = self.settled[partition];
                let votes = self.leader(partition).is_some_and(|leader| {
                    self.nodes[leader].life.as_ref().is_some_and(|leader| {
                        leader.replicas(partition) == replicas && replicas.voters.contains(&node.id)
                    })
                });
                if votes && store.revision() < newest {
                    let what = format!(
                        "node {} partition {partition} is at revision {} of {newest}: {}",
                        node.id,
                        store.revision(),
                        life.describe(partition)
                    );
                    return failed("I27", what);
                }
            }
        }
        for (key, promise) in self.checker.survivors() {
            let Some(promise) = promise else { continue };
            let zombie_us = promise.alive_until_us + ZOMBIE_US;
            if !promise.is_kept && zombie_us < self.now_us {
                return failed("I7", format!("{key:?} is still there"));
            }
        }
        if self.terms() != self.settled_terms {
            let what = format!("terms {:?} became {:?}", self.settled_terms, self.terms());
            return failed("I27 undisturbed", what);
        }
        let said = self.system_index() - self.settled_system;
        if said > SYSTEM_ENTRIES_MAX {
            let what = format!("{said} entries of the system group in the last second");
            return failed("I27 undisturbed", what);
        }
        self.check_equal()?;
        self.watchers.check_end(&self.settled, &self.checker)
    }

    /// Replicas that have applied as much hold the same, whatever went wrong before.
    fn check_equal(&self) -> Checked {
        for group in 0..=self.scenario.partitions as usize {
            let mut seen = std::collections::BTreeMap::new();
            for life in self.nodes.iter().filter_map(|node| node.life.as_ref()) {
                let store = life.cells[group].store.read();
                let hash = store.state_hash();
                let index = store.applied().0;
                let first = *seen.entry(index).or_insert(hash);
                if index > 0 && first != hash {
                    let message = format!(
                        "group {group} after entry {index}: {first:016x} and {hash:016x}{}",
                        self.describe(group)
                    );
                    return Err(Violation { invariant: "I12", message });
                }
            }
        }
        Ok(())
    }

    /// How a group does everywhere, for people.
    pub(crate) fn describe(&self, partition: usize) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let how = match (&node.life, node.is_lost) {
                (Some(life), _) => life.describe(partition),
                (None, true) => "lost".to_owned(),
                (None, false) => "down".to_owned(),
            };
            let _ = write!(text, "\n  node {}: {how}", node.id);
        }
        text
    }
}
