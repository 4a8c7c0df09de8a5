//! The mass-expiry guard of a node: what all partitions that it leads say of a domain together.
//!
//! A partition by itself sees too little: a fleet of fifty has three leases in each of sixteen.
//! One look is three passes over the stores, each store for itself, because a reader may hold one
//! while it waits for another: first what each has to tell, then how many leases there are where
//! that matters, then what each is to do.

use std::collections::BTreeMap;
use std::fmt;

use super::domain::Domain;
use super::guard::{Guard, GuardSettings, Tally, Turn};
use crate::store::Store;

/// What the guard has begun or ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MassExpiryNews {
    domain: Domain,
    turn: Turn,
}

impl MassExpiryNews {
    /// Whether a hold has begun, and not ended.
    pub fn has_begun(&self) -> bool {
        matches!(self.turn, Turn::Held { .. })
    }
}

impl fmt::Display for MassExpiryNews {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let domain = &self.domain;
        match self.turn {
            Turn::Held { silent, leases } => {
                write!(formatter, "{domain}: {silent} of {leases} leases are silent")
            }
            Turn::Over { let_go } => {
                write!(formatter, "{domain}: {let_go} leases expired, the others were renewed")
            }
        }
    }
}

/// Calls a function with each store that this node leads, always in the same order.
pub type Visit<'a> = &'a mut dyn FnMut(&mut dyn FnMut(&mut Store));

/// Lets so many suspects of a domain go; answers how many there were.
pub(crate) type LetGo<'a> = &'a mut dyn FnMut(usize) -> usize;

/// Says of a domain whether it is held, and lets go as many of its suspects as it likes.
pub(crate) type Verdict<'a> = &'a mut dyn FnMut(&Domain, LetGo<'_>) -> bool;

/// The guards of all domains in which something is silent.
#[derive(Debug, Default)]
pub struct MassExpiry {
    settings: GuardSettings,
    domains: BTreeMap<Domain, (Guard, Tally)>,
}

impl MassExpiry {
    /// Guards that know of nothing yet.
    pub fn new(settings: GuardSettings) -> MassExpiry {
        MassExpiry { settings, domains: BTreeMap::new() }
    }

    /// Looks at the leases of all stores and tells them which domains are held. What is due stands
    /// ready for `Store::take_due` afterwards.
    pub fn look(&mut self, now_ms: u64, visit: Visit<'_>, news: &mut Vec<MassExpiryNews>) {
        self.domains.values_mut().for_each(|(_, tally)| *tally = Tally::default());
        visit(&mut |store| {
            store.look_at_leases(now_ms, &mut |domain, tally| match self.domains.get_mut(domain) {
                Some((_, sum)) => sum.add(tally),
                None => {
                    self.domains.insert(domain.clone(), (Guard::default(), *tally));
                }
            })
        });
        for (domain, (guard, tally)) in &mut self.domains {
            let turn = guard.look(tally, now_ms, &self.settings, || {
                let mut leased = 0;
                visit(&mut |store| leased += u64::from(store.leased_in(domain)));
                leased
            });
            news.extend(turn.map(|turn| MassExpiryNews { domain: domain.clone(), turn }));
        }
        visit(&mut |store| {
            store.sort_due(&mut |domain, release| {
                let Some((guard, _)) = self.domains.get_mut(domain) else { return false };
                let count = release(guard.may_release(now_ms, &self.settings));
                guard.released(count, now_ms, &self.settings);
                guard.is_active()
            })
        });
        self.domains.retain(|_, (guard, tally)| !guard.is_idle() || !tally.is_quiet());
    }
}
