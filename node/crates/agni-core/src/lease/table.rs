//! The lease table of one partition: a column beside the slots, found by slot or by lease identity.
//!
//! A renewal after the deadline is refused (the record is already expired for every reader), except
//! while the guard holds the record's domain: it is SUSPECT then, from its deadline on. The guard
//! decides while leases are late, well before the first of them is due, so that nothing depends on
//! when it looks. A slot that `take_due` has answered is *taken*: its removal is in flight, so
//! nothing but a new revision can save it, and renewals are refused even if it was suspect.

use std::collections::{BTreeSet, VecDeque};

use hashbrown::{HashMap, HashTable};
use roaring::RoaringBitmap;

use super::domain::{Domain, DomainRef, Home};
use super::guard::Tally;
use super::mass_expiry::Verdict;
use super::wheel::{UNARMED, Wheel};
use crate::limits::{EXPIRY_RETRY_MS, LATE_AFTER_PERCENT};

/// A deadline that never comes: no lease, or one that `grant_all` has not reached yet.
const NEVER: u64 = u64::MAX;

const SUSPECT: u8 = 1;
const TAKEN: u8 = 2;
const DRAINING: u8 = 4;
const READY: u8 = 8;
const LATE: u8 = 16;

/// The domain of a record that is behind no gateway.
const NO_DOMAIN: u32 = u32::MAX;

/// What an owner last reported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Load {
    /// cpu, bandwidth, memory, storage.
    pub free: [f64; 4],
    pub at_ms: u64,
}

/// How alive a slot is at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Liveness {
    /// It has no lease and isn't draining.
    Unleased,
    /// In time; the lease's remaining milliseconds, if it has one.
    Alive(Option<i64>),
    /// Overdue, but held by the guard; the remaining milliseconds are negative.
    Suspect(i64),
    /// Overdue: gone for every reader.
    Overdue,
}

#[derive(Clone, Debug)]
struct Entry {
    lease_id: u64,
    deadline_ms: u64,
    ttl_ms: u32,
    armed: u32,
    /// Its region's domain and its gateway's; none without a lease.
    domains: [u32; 2],
    flags: u8,
}

const VACANT: Entry = Entry {
    lease_id: 0,
    deadline_ms: NEVER,
    ttl_ms: 0,
    armed: UNARMED,
    domains: [NO_DOMAIN; 2],
    flags: 0,
};

impl Entry {
    /// When the lease counts as late.
    fn late_ms(&self) -> u64 {
        let rest_ms = u64::from(self.ttl_ms) * (100 - LATE_AFTER_PERCENT) / 100;
        self.deadline_ms.saturating_sub(rest_ms)
    }

    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

#[derive(Clone, Copy)]
struct Drain {
    duration_ms: u64,
    deadline_ms: u64,
}

/// The leases of one domain.
struct Members {
    domain: Domain,
    leased: u32,
    tally: Tally,
    /// Whether the guard holds what runs out.
    is_held: bool,
    held: VecDeque<u32>,
}

impl Members {
    /// Nothing is late or held any more.
    fn calm(&mut self) {
        (self.tally, self.is_held) = (Tally::default(), false);
        self.held.clear();
    }
}

/// Leases, deadlines and load figures of one partition.
pub(crate) struct LeaseTable {
    entries: Vec<Entry>,
    by_lease: HashTable<u32>,
    leases: usize,
    drains: HashMap<u32, Drain>,
    loads: HashMap<u32, Load>,
    wheel: Wheel,
    domains: Vec<Members>,
    domain_ids: HashMap<Domain, u32>,
    vacant_domains: Vec<u32>,
    /// Domains in which something is late, overdue or held.
    restless: BTreeSet<u32>,
    /// What fell due at the look that is under way.
    fell_due: Vec<u32>,
    ready: VecDeque<u32>,
    taken: VecDeque<(u64, u32)>,
    /// The slots with the flag TAKEN.
    taken_slots: RoaringBitmap,
    scratch: Vec<u32>,
}

fn lease_hash(lease_id: u64) -> u64 {
    xxhash_rust::xxh3::xxh3_64(&lease_id.to_le_bytes())
}

impl LeaseTable {
    pub(crate) fn new() -> LeaseTable {
        LeaseTable {
            entries: Vec::new(),
            by_lease: HashTable::new(),
            leases: 0,
            drains: HashMap::new(),
            loads: HashMap::new(),
            wheel: Wheel::new(0),
            domains: Vec::new(),
            domain_ids: HashMap::new(),
            vacant_domains: Vec::new(),
            restless: BTreeSet::new(),
            fell_due: Vec::new(),
            ready: VecDeque::new(),
            taken: VecDeque::new(),
            taken_slots: RoaringBitmap::new(),
            scratch: Vec::new(),
        }
    }

    /// How many leases there are.
    pub(crate) fn len(&self) -> usize {
        self.leases
    }

    /// How many domains the guard holds here.
    pub(crate) fn held_domains(&self) -> u32 {
        let is_held = |&&id: &&u32| self.domains[id as usize].is_held;
        self.restless.iter().filter(is_held).count() as u32
    }

    /// How many leases there are of a domain.
    pub(crate) fn leased_in(&self, domain: &Domain) -> u32 {
        self.domain_ids.get(domain).map_or(0, |&id| self.domains[id as usize].leased)
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.by_lease.capacity() * 5
            + (self.drains.capacity() + self.loads.capacity()) * (size_of::<(u32, Load)>() + 1)
            + self.wheel.memory_bytes()
            + (self.ready.capacity() + self.scratch.capacity() + self.fell_due.capacity()) * 4
            + self.domains.capacity() * size_of::<Members>()
            + self.taken.capacity() * 16
    }

    /// Gives a slot a lease, or renews the one that it has. `now_ms` of `None` leaves the deadline
    /// open until `grant_all` (a snapshot is being restored).
    pub(crate) fn grant(
        &mut self,
        slot: u32,
        lease_id: u64,
        ttl_ms: u32,
        home: Home<'_>,
        now_ms: Option<u64>,
    ) {
        let old = self.entry(slot).lease_id;
        if old != lease_id {
            self.forget_lease(slot);
            let entries = &self.entries;
            self.by_lease.insert_unique(lease_hash(lease_id), slot, |&slot| {
                lease_hash(entries[slot as usize].lease_id)
            });
            self.leases += 1;
            self.entries[slot as usize].lease_id = lease_id;
            self.enter_domains(slot, home);
        } else {
            self.move_home(slot, home);
        }
        self.entries[slot as usize].ttl_ms = ttl_ms;
        if let Some(now_ms) = now_ms {
            self.extend(slot, now_ms + u64::from(ttl_ms));
        }
    }

    /// Takes a slot's lease away; draining and load stay.
    pub(crate) fn revoke(&mut self, slot: u32) {
        if (slot as usize) < self.entries.len() {
            self.forget_lease(slot);
        }
    }

    /// Notes that a slot's record may be in other domains now.
    pub(crate) fn move_home(&mut self, slot: u32, home: Home<'_>) {
        let Some(entry) = self.entries.get(slot as usize).filter(|entry| entry.lease_id != 0)
        else {
            return;
        };
        let wanted = [Some(home.region()), home.gateway()];
        let domain = |id: u32| self.domains.get(id as usize).map(|members| members.domain.as_ref());
        if entry.domains.map(domain) != wanted {
            self.clear_silence(slot);
            let old = self.entries[slot as usize].domains;
            self.enter_domains(slot, home);
            self.leave_domains(old);
            self.arm(slot);
        }
    }

    /// Starts the time of draining; `now_ms` as for `grant`.
    pub(crate) fn drain(&mut self, slot: u32, duration_ms: u64, now_ms: Option<u64>) {
        let deadline_ms = now_ms.map_or(NEVER, |now_ms| now_ms + duration_ms);
        self.entry(slot).flags |= DRAINING;
        self.drains.insert(slot, Drain { duration_ms, deadline_ms });
        self.arm(slot);
    }

    /// Ends draining without removing the record.
    pub(crate) fn undrain(&mut self, slot: u32) {
        if self.drains.remove(&slot).is_some() {
            self.entries[slot as usize].flags &= !DRAINING;
        }
    }

    /// Forgets everything about a slot whose record is gone.
    pub(crate) fn release(&mut self, slot: u32) {
        if (slot as usize) < self.entries.len() {
            self.forget_lease(slot);
            self.undrain(slot);
            let entry = &mut self.entries[slot as usize];
            // A stale entry of the wheel or of the ready queue finds a slot that isn't due.
            entry.flags &= READY;
        }
        self.loads.remove(&slot);
    }

    /// Extends a lease to its full time and answers that time; none when it is lost.
    pub(crate) fn renew(
        &mut self,
        lease_id: u64,
        free: Option<[f64; 4]>,
        now_ms: u64,
    ) -> Option<u32> {
        let entries = &self.entries;
        let found = self
            .by_lease
            .find(lease_hash(lease_id), |&slot| entries[slot as usize].lease_id == lease_id);
        let &slot = found?;
        let entry = &self.entries[slot as usize];
        let ttl_ms = entry.ttl_ms;
        let overdue = self.deadline(slot) <= now_ms;
        if entry.has(TAKEN) || (overdue && !self.is_spared(entry)) {
            return None;
        }
        let deadline_ms = now_ms + u64::from(ttl_ms);
        self.extend(slot, deadline_ms);
        if let Some(free) = free {
            self.loads.insert(slot, Load { free, at_ms: now_ms });
        }
        Some(ttl_ms)
    }

    /// Gives every lease its full time, and every draining record its full time of draining.
    pub(crate) fn grant_all(&mut self, now_ms: u64) {
        self.wheel = Wheel::new(now_ms);
        self.ready.clear();
        self.taken.clear();
        self.taken_slots.clear();
        self.fell_due.clear();
        for id in std::mem::take(&mut self.restless) {
            self.domains[id as usize].calm();
        }
        for slot in 0..self.entries.len() as u32 {
            let entry = &mut self.entries[slot as usize];
            entry.armed = UNARMED;
            entry.flags &= DRAINING;
            if entry.lease_id != 0 {
                entry.deadline_ms = now_ms + u64::from(entry.ttl_ms);
            }
            if let Some(drain) = self.drains.get_mut(&slot) {
                drain.deadline_ms = now_ms + drain.duration_ms;
            }
            self.arm(slot);
        }
    }

    /// Removals that were in flight are somebody else's affair now.
    pub(crate) fn forget_removals(&mut self) {
        for slot in std::mem::take(&mut self.taken_slots) {
            self.entries[slot as usize].flags &= !TAKEN;
        }
        self.taken.clear();
    }

    /// Whether a removal of this slot is in flight.
    pub(crate) fn is_taken(&self, slot: u32) -> bool {
        self.entries.get(slot as usize).is_some_and(|entry| entry.has(TAKEN))
    }

    /// How many of the slots have a removal in flight, or are draining.
    pub(crate) fn left_out_of(&self, slots: &RoaringBitmap, draining_too: bool) -> u64 {
        let taken = slots.intersection_len(&self.taken_slots);
        let draining = self.drains.keys().filter(|&&slot| {
            draining_too && slots.contains(slot) && !self.taken_slots.contains(slot)
        });
        taken + draining.count() as u64
    }

    /// Whether a slot is draining.
    pub(crate) fn is_draining(&self, slot: u32) -> bool {
        self.entries.get(slot as usize).is_some_and(|entry| entry.has(DRAINING))
    }

    /// How alive a slot is at this moment.
    pub(crate) fn liveness(&self, slot: u32, now_ms: u64) -> Liveness {
        let Some(entry) = self.entries.get(slot as usize) else { return Liveness::Unleased };
        if entry.lease_id == 0 && !entry.has(DRAINING) {
            return Liveness::Unleased;
        }
        if entry.has(TAKEN) {
            return Liveness::Overdue;
        }
        let remaining = entry.deadline_ms.saturating_sub(now_ms) as i64;
        if self.deadline(slot) > now_ms {
            return Liveness::Alive((entry.lease_id != 0).then_some(remaining));
        }
        if self.is_spared(entry) && self.drain_deadline(slot) > now_ms {
            return Liveness::Suspect(-(now_ms.saturating_sub(entry.deadline_ms) as i64));
        }
        Liveness::Overdue
    }

    /// The load last reported for a slot.
    pub(crate) fn load(&self, slot: u32) -> Option<&Load> {
        self.loads.get(&slot)
    }

    /// Finds what is late or due by now and tells of each domain in which anything is, or was.
    pub(crate) fn look(&mut self, now_ms: u64, tell: &mut dyn FnMut(&Domain, &Tally)) {
        let mut reached = std::mem::take(&mut self.scratch);
        let entries = &self.entries;
        self.wheel.advance(now_ms, |slot| entries[slot as usize].armed, &mut reached);
        for slot in reached.drain(..) {
            self.reach(slot, now_ms);
        }
        self.scratch = reached;
        for &id in &self.restless {
            let members = &self.domains[id as usize];
            tell(&members.domain, &members.tally);
        }
    }

    /// Sorts what `look` found due: ready to go, or held.
    pub(crate) fn sort_due(&mut self, verdict: Verdict<'_>) {
        let looked = std::mem::take(&mut self.restless);
        for &id in &looked {
            let domain = self.domains[id as usize].domain.clone();
            let is_held = verdict(&domain, &mut |allowed| self.let_go(id, allowed));
            let members = &mut self.domains[id as usize];
            members.is_held = is_held;
            members.tally.fell_due = 0;
        }
        for slot in std::mem::take(&mut self.fell_due) {
            let domains = self.entries[slot as usize].domains;
            match domains.into_iter().find(|&id| self.is_held(id)) {
                Some(holder) => self.suspect(slot, holder),
                None => self.make_ready(slot),
            }
        }
        for id in looked {
            let members = &mut self.domains[id as usize];
            match members.tally.is_quiet() {
                true => members.calm(),
                false => drop(self.restless.insert(id)),
            }
        }
    }

    /// Slots that are due, each answered once until it is put back.
    pub(crate) fn take_due(&mut self, now_ms: u64, limit: usize) -> Vec<u32> {
        self.retry_taken(now_ms);
        let mut due = Vec::new();
        while due.len() < limit {
            let Some(slot) = self.ready.pop_front() else { break };
            self.entries[slot as usize].flags &= !READY;
            if self.deadline(slot) <= now_ms {
                self.entries[slot as usize].flags |= TAKEN;
                self.taken_slots.insert(slot);
                self.taken.push_back((now_ms, slot));
                due.push(slot);
            } else {
                self.arm(slot);
            }
        }
        due
    }

    /// Answers a taken slot again, because its removal failed or spared it. It stays taken: another
    /// removal of it may be in flight.
    pub(crate) fn retake(&mut self, slot: u32) {
        if self.is_taken(slot) {
            self.make_ready(slot);
        }
    }

    fn entry(&mut self, slot: u32) -> &mut Entry {
        let slot = slot as usize;
        if slot >= self.entries.len() {
            self.entries.resize(slot + 1, VACANT);
        }
        &mut self.entries[slot]
    }

    fn drain_deadline(&self, slot: u32) -> u64 {
        match self.entries[slot as usize].has(DRAINING) {
            true => self.drains.get(&slot).map_or(NEVER, |drain| drain.deadline_ms),
            false => NEVER,
        }
    }

    fn deadline(&self, slot: u32) -> u64 {
        self.entries[slot as usize].deadline_ms.min(self.drain_deadline(slot))
    }

    /// Sets a lease's deadline and clears what an earlier one led to.
    fn extend(&mut self, slot: u32, deadline_ms: u64) {
        self.clear_silence(slot);
        self.clear_taken(slot);
        self.entries[slot as usize].deadline_ms = deadline_ms;
        self.arm(slot);
    }

    /// When there is something to do about a slot: it becomes late, its lease runs out, or its time
    /// of draining is over.
    fn wake_ms(&self, slot: u32) -> u64 {
        let entry = &self.entries[slot as usize];
        let lease_ms = match entry.deadline_ms {
            NEVER => NEVER,
            // Held, or on its way out: only the end of draining is news.
            _ if entry.has(SUSPECT | TAKEN) => NEVER,
            deadline_ms if entry.has(LATE) => deadline_ms,
            _ => entry.late_ms(),
        };
        lease_ms.min(self.drain_deadline(slot))
    }

    /// Sees to it that the wheel reaches the slot no later than that.
    fn arm(&mut self, slot: u32) {
        let wake_ms = self.wake_ms(slot);
        let armed = self.entries[slot as usize].armed;
        if wake_ms == NEVER || (armed != UNARMED && armed <= super::wheel::tick_of(wake_ms)) {
            return;
        }
        // Too many stale entries: rebuilt from what is known to be armed.
        if self.wheel.entries() > 2 * self.entries.len() + 4_096 {
            self.rebuild_wheel();
        }
        self.entries[slot as usize].armed = self.wheel.arm(slot, wake_ms);
    }

    fn rebuild_wheel(&mut self) {
        let mut wheel = self.wheel.emptied();
        for slot in 0..self.entries.len() as u32 {
            if self.entries[slot as usize].armed != UNARMED {
                let wake_ms = self.wake_ms(slot);
                self.entries[slot as usize].armed = match wake_ms {
                    NEVER => UNARMED,
                    _ => wheel.arm(slot, wake_ms),
                };
            }
        }
        self.wheel = wheel;
    }

    fn make_ready(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        if !entry.has(READY) {
            entry.flags |= READY;
            self.ready.push_back(slot);
        }
    }

    /// The wheel has reached a slot.
    fn reach(&mut self, slot: u32, now_ms: u64) {
        self.entries[slot as usize].armed = UNARMED;
        if self.drain_deadline(slot) <= now_ms {
            self.make_ready(slot);
            return;
        }
        let entry = &self.entries[slot as usize];
        let is_settled = entry.has(SUSPECT | TAKEN | READY);
        let (is_due, is_late) = (entry.deadline_ms <= now_ms, entry.late_ms() <= now_ms);
        if is_due && !is_settled {
            self.clear_silence(slot);
            self.count(slot, |tally| tally.fell_due += 1);
            self.fell_due.push(slot);
        } else if is_late && !is_due && !entry.has(LATE) {
            self.entries[slot as usize].flags |= LATE;
            self.count(slot, |tally| tally.late += 1);
        }
        // What is ready is armed again, if it is spared, when its turn comes.
        let is_ready = self.entries[slot as usize].has(READY);
        if !is_ready && (!is_due || is_settled) {
            self.arm(slot);
        }
    }

    /// Changes the tallies of both domains of a slot.
    fn count(&mut self, slot: u32, change: impl Fn(&mut Tally)) {
        let Entry { domains, ttl_ms, .. } = self.entries[slot as usize];
        for id in domains.into_iter().filter(|&id| id != NO_DOMAIN) {
            let tally = &mut self.domains[id as usize].tally;
            change(tally);
            tally.ttl_ms = tally.ttl_ms.max(u64::from(ttl_ms));
            self.restless.insert(id);
        }
    }

    fn is_held(&self, domain: u32) -> bool {
        self.domains.get(domain as usize).is_some_and(|members| members.is_held)
    }

    /// Whether an overdue lease is, or is about to be, held instead of removed.
    fn is_spared(&self, entry: &Entry) -> bool {
        let is_held = || entry.domains.into_iter().any(|id| self.is_held(id));
        entry.has(SUSPECT) || (!entry.has(READY | TAKEN) && is_held())
    }

    fn suspect(&mut self, slot: u32, holder: u32) {
        self.entries[slot as usize].flags |= SUSPECT;
        self.count(slot, |tally| tally.suspects += 1);
        self.domains[holder as usize].held.push_back(slot);
        // A held slot that is draining still goes when its time of draining is over.
        self.arm(slot);
    }

    /// Lets so many suspects of a domain go, oldest first; answers how many went.
    fn let_go(&mut self, id: u32, allowed: usize) -> usize {
        let mut released = 0;
        while released < allowed {
            let Some(slot) = self.domains[id as usize].held.pop_front() else { break };
            let entry = &self.entries[slot as usize];
            if entry.has(SUSPECT) && entry.domains.contains(&id) {
                self.clear_silence(slot);
                self.make_ready(slot);
                released += 1;
            }
        }
        released
    }

    fn retry_taken(&mut self, now_ms: u64) {
        while let Some(&(at_ms, slot)) = self.taken.front() {
            if at_ms.saturating_add(EXPIRY_RETRY_MS) > now_ms {
                break;
            }
            self.taken.pop_front();
            // A slot that was removed or saved meanwhile isn't taken any more.
            self.retake(slot);
        }
    }

    fn clear_taken(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        if entry.has(TAKEN) {
            entry.flags &= !TAKEN;
            self.taken_slots.remove(slot);
        }
    }

    /// Forgets that a lease was late or held.
    fn clear_silence(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        let (was_late, was_suspect) = (entry.has(LATE), entry.has(SUSPECT));
        entry.flags &= !(LATE | SUSPECT);
        if was_late || was_suspect {
            self.count(slot, |tally| {
                tally.late -= u32::from(was_late);
                tally.suspects -= u32::from(was_suspect);
            });
        }
    }

    fn forget_lease(&mut self, slot: u32) {
        self.clear_silence(slot);
        self.clear_taken(slot);
        let entry = &self.entries[slot as usize];
        if entry.lease_id == 0 {
            return;
        }
        let (lease_id, domains) = (entry.lease_id, entry.domains);
        if let Ok(found) = self.by_lease.find_entry(lease_hash(lease_id), |&other| other == slot) {
            found.remove();
        }
        let entry = &mut self.entries[slot as usize];
        (entry.lease_id, entry.deadline_ms, entry.ttl_ms) = (0, NEVER, 0);
        entry.domains = [NO_DOMAIN; 2];
        self.leases -= 1;
        self.leave_domains(domains);
    }

    fn enter_domains(&mut self, slot: u32, home: Home<'_>) {
        let region = self.enter(home.region());
        let gateway = home.gateway().map_or(NO_DOMAIN, |gateway| self.enter(gateway));
        self.entries[slot as usize].domains = [region, gateway];
    }

    fn enter(&mut self, domain: DomainRef<'_>) -> u32 {
        let known = self.domain_ids.get(&domain).copied();
        let id = known.unwrap_or_else(|| self.new_domain(domain.to_owned()));
        self.domains[id as usize].leased += 1;
        id
    }

    fn new_domain(&mut self, domain: Domain) -> u32 {
        let id = self.vacant_domains.pop().unwrap_or(self.domains.len() as u32);
        self.domain_ids.insert(domain.clone(), id);
        let members = Members {
            domain,
            leased: 0,
            tally: Tally::default(),
            is_held: false,
            held: VecDeque::new(),
        };
        match self.domains.get_mut(id as usize) {
            Some(vacant) => *vacant = members,
            None => self.domains.push(members),
        }
        id
    }

    fn leave_domains(&mut self, domains: [u32; 2]) {
        for id in domains.into_iter().filter(|&id| id != NO_DOMAIN) {
            let members = &mut self.domains[id as usize];
            members.leased -= 1;
            if members.leased == 0 {
                members.calm();
                self.domain_ids.remove(&members.domain);
                self.restless.remove(&id);
                self.vacant_domains.push(id);
            }
        }
    }
}
