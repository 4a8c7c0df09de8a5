//! The lease table of one partition: a column beside the slots, found by slot or by lease identity.
//!
//! A renewal after the deadline is refused (the record is already expired for every reader), except
//! while the guard holds the record as SUSPECT. A slot that `take_due` has answered is *taken*: its
//! removal is in flight, so nothing but a new revision can save it, and renewals are refused even
//! if it was suspect.

use std::collections::VecDeque;

use hashbrown::{HashMap, HashTable};
use roaring::RoaringBitmap;

use super::guard::{Guard, LeaseSettings};
use super::wheel::{UNARMED, Wheel};

/// A deadline that never comes: no lease, or one that `grant_all` has not reached yet.
const NEVER: u64 = u64::MAX;

const SUSPECT: u8 = 1;
const TAKEN: u8 = 2;
const DRAINING: u8 = 4;
const READY: u8 = 8;

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
    region: u32,
    flags: u8,
}

const VACANT: Entry =
    Entry { lease_id: 0, deadline_ms: NEVER, ttl_ms: 0, armed: UNARMED, region: 0, flags: 0 };

impl Entry {
    fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

#[derive(Clone, Copy)]
struct Drain {
    duration_ms: u64,
    deadline_ms: u64,
}

#[derive(Default)]
struct Region {
    name: Box<str>,
    leased: u32,
    suspects: u32,
    guard: Guard,
    held: VecDeque<u32>,
}

/// Leases, deadlines and load figures of one partition.
pub(crate) struct LeaseTable {
    settings: LeaseSettings,
    entries: Vec<Entry>,
    by_lease: HashTable<u32>,
    leases: usize,
    drains: HashMap<u32, Drain>,
    loads: HashMap<u32, Load>,
    wheel: Wheel,
    regions: Vec<Region>,
    region_ids: HashMap<Box<str>, u32>,
    vacant_regions: Vec<u32>,
    active_regions: u32,
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
    pub(crate) fn new(settings: LeaseSettings) -> LeaseTable {
        LeaseTable {
            settings,
            entries: Vec::new(),
            by_lease: HashTable::new(),
            leases: 0,
            drains: HashMap::new(),
            loads: HashMap::new(),
            wheel: Wheel::new(0),
            regions: Vec::new(),
            region_ids: HashMap::new(),
            vacant_regions: Vec::new(),
            active_regions: 0,
            ready: VecDeque::new(),
            taken: VecDeque::new(),
            taken_slots: RoaringBitmap::new(),
            scratch: Vec::new(),
        }
    }

    pub(crate) fn settings(&self) -> &LeaseSettings {
        &self.settings
    }

    pub(crate) fn set_settings(&mut self, settings: LeaseSettings) {
        self.settings = settings;
    }

    /// How many leases there are.
    pub(crate) fn len(&self) -> usize {
        self.leases
    }

    /// How many regions the guard holds or slows.
    pub(crate) fn active_regions(&self) -> u32 {
        self.active_regions
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.entries.capacity() * size_of::<Entry>()
            + self.by_lease.capacity() * 5
            + (self.drains.capacity() + self.loads.capacity()) * (size_of::<(u32, Load)>() + 1)
            + self.wheel.memory_bytes()
            + (self.ready.capacity() + self.scratch.capacity()) * 4
            + self.taken.capacity() * 16
    }

    /// Gives a slot a lease, or renews the one that it has. `now_ms` of `None` leaves the deadline
    /// open until `grant_all` (a snapshot is being restored).
    pub(crate) fn grant(
        &mut self,
        slot: u32,
        lease_id: u64,
        ttl_ms: u32,
        region: &str,
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
            let region = self.region_id(region);
            self.regions[region as usize].leased += 1;
            let entry = &mut self.entries[slot as usize];
            (entry.lease_id, entry.region) = (lease_id, region);
        } else {
            self.move_to_region(slot, region);
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

    /// Notes that a slot's record is in another region now.
    pub(crate) fn move_to_region(&mut self, slot: u32, region: &str) {
        let leased = self.entries.get(slot as usize).filter(|entry| entry.lease_id != 0);
        if leased.is_some_and(|entry| *self.regions[entry.region as usize].name != *region) {
            self.move_region(slot, region);
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
        if entry.has(TAKEN) || (overdue && !entry.has(SUSPECT)) {
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
        for region in &mut self.regions {
            region.suspects = 0;
            region.guard = Guard::default();
            region.held.clear();
        }
        self.active_regions = 0;
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
        if entry.has(SUSPECT) && self.drain_deadline(slot) > now_ms {
            return Liveness::Suspect(-(now_ms.saturating_sub(entry.deadline_ms) as i64));
        }
        Liveness::Overdue
    }

    /// The load last reported for a slot.
    pub(crate) fn load(&self, slot: u32) -> Option<&Load> {
        self.loads.get(&slot)
    }

    /// Slots that are due, each answered once until it is put back.
    pub(crate) fn take_due(&mut self, now_ms: u64, limit: usize) -> Vec<u32> {
        self.retry_taken(now_ms);
        let mut reached = std::mem::take(&mut self.scratch);
        let entries = &self.entries;
        self.wheel.advance(now_ms, |slot| entries[slot as usize].armed, &mut reached);
        self.sort_reached(&reached, now_ms);
        reached.clear();
        self.scratch = reached;
        self.release_held(now_ms);
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
        self.clear_suspect(slot);
        self.clear_taken(slot);
        self.entries[slot as usize].deadline_ms = deadline_ms;
        self.arm(slot);
    }

    /// Sees to it that the wheel reaches the slot no later than its deadline.
    fn arm(&mut self, slot: u32) {
        let deadline_ms = self.deadline(slot);
        let armed = self.entries[slot as usize].armed;
        if deadline_ms == NEVER || (armed != UNARMED && armed <= super::wheel::tick_of(deadline_ms))
        {
            return;
        }
        // Too many stale entries: rebuilt from what is known to be armed.
        if self.wheel.entries() > 2 * self.entries.len() + 4_096 {
            self.rebuild_wheel();
        }
        self.entries[slot as usize].armed = self.wheel.arm(slot, deadline_ms);
    }

    fn rebuild_wheel(&mut self) {
        let mut wheel = self.wheel.emptied();
        for slot in 0..self.entries.len() as u32 {
            if self.entries[slot as usize].armed != UNARMED {
                let deadline_ms = self.deadline(slot);
                self.entries[slot as usize].armed = match deadline_ms {
                    NEVER => UNARMED,
                    _ => wheel.arm(slot, deadline_ms),
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

    /// Sorts what the wheel reached: armed again, ready to go, or held by the guard.
    fn sort_reached(&mut self, reached: &[u32], now_ms: u64) {
        let mut due_by_region: HashMap<u32, (u32, u32)> = HashMap::new();
        let mut due = Vec::new();
        for &slot in reached {
            self.entries[slot as usize].armed = UNARMED;
            let deadline_ms = self.deadline(slot);
            if deadline_ms > now_ms {
                self.arm(slot);
            } else if self.drain_deadline(slot) <= now_ms {
                self.make_ready(slot);
            } else if !self.entries[slot as usize].has(SUSPECT | TAKEN | READY) {
                let entry = &self.entries[slot as usize];
                let (count, ttl_ms) = due_by_region.entry(entry.region).or_default();
                *count += 1;
                *ttl_ms = entry.ttl_ms.max(*ttl_ms);
                due.push(slot);
            }
        }
        for (&region, &(count, ttl_ms)) in &due_by_region {
            let region = &mut self.regions[region as usize];
            let was_active = region.guard.is_active();
            let ttl_ms = u64::from(ttl_ms);
            region.guard.fell_due(count, ttl_ms, region.leased, now_ms, &self.settings);
            self.active_regions += u32::from(region.guard.is_active() && !was_active);
        }
        for slot in due {
            let region = self.entries[slot as usize].region as usize;
            if self.regions[region].guard.is_active() {
                self.regions[region].held.push_back(slot);
                self.regions[region].suspects += 1;
                self.entries[slot as usize].flags |= SUSPECT;
                self.arm_drain(slot);
            } else {
                self.make_ready(slot);
            }
        }
    }

    /// A held slot that is draining still goes when its time of draining is over.
    fn arm_drain(&mut self, slot: u32) {
        let deadline_ms = self.drain_deadline(slot);
        if deadline_ms != NEVER {
            self.entries[slot as usize].armed = self.wheel.arm(slot, deadline_ms);
        }
    }

    /// Lets go what the guards allow.
    fn release_held(&mut self, now_ms: u64) {
        if self.active_regions == 0 {
            return;
        }
        for id in 0..self.regions.len() {
            let region = &mut self.regions[id];
            if !region.guard.is_active() {
                continue;
            }
            let allowed = region.guard.may_release(region.suspects, now_ms, &self.settings);
            let mut released = 0;
            while released < allowed {
                let Some(slot) = self.regions[id].held.pop_front() else { break };
                let entry = &self.entries[slot as usize];
                if entry.has(SUSPECT) && entry.region as usize == id {
                    self.clear_suspect(slot);
                    self.make_ready(slot);
                    released += 1;
                }
            }
            let region = &mut self.regions[id];
            region.guard.released(released, now_ms, &self.settings);
            if !region.guard.is_active() {
                region.held.clear();
                self.active_regions -= 1;
            }
        }
    }

    fn retry_taken(&mut self, now_ms: u64) {
        while let Some(&(at_ms, slot)) = self.taken.front() {
            if at_ms.saturating_add(self.settings.retry_ms) > now_ms {
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

    fn clear_suspect(&mut self, slot: u32) {
        let entry = &mut self.entries[slot as usize];
        if entry.has(SUSPECT) {
            entry.flags &= !SUSPECT;
            self.regions[entry.region as usize].suspects -= 1;
        }
    }

    fn forget_lease(&mut self, slot: u32) {
        self.clear_suspect(slot);
        self.clear_taken(slot);
        let entry = &self.entries[slot as usize];
        if entry.lease_id == 0 {
            return;
        }
        let (lease_id, region) = (entry.lease_id, entry.region);
        if let Ok(found) = self.by_lease.find_entry(lease_hash(lease_id), |&other| other == slot) {
            found.remove();
        }
        let entry = &mut self.entries[slot as usize];
        (entry.lease_id, entry.deadline_ms, entry.ttl_ms, entry.region) = (0, NEVER, 0, 0);
        self.leases -= 1;
        self.leave_region(region);
    }

    fn region_id(&mut self, name: &str) -> u32 {
        if let Some(&id) = self.region_ids.get(name) {
            return id;
        }
        let region = Region { name: name.into(), ..Region::default() };
        let id = match self.vacant_regions.pop() {
            Some(id) => {
                self.regions[id as usize] = region;
                id
            }
            None => {
                self.regions.push(region);
                self.regions.len() as u32 - 1
            }
        };
        self.region_ids.insert(name.into(), id);
        id
    }

    fn leave_region(&mut self, id: u32) {
        let region = &mut self.regions[id as usize];
        region.leased -= 1;
        if region.leased == 0 {
            self.active_regions -= u32::from(region.guard.is_active());
            let name = std::mem::take(region).name;
            self.region_ids.remove(&name);
            self.vacant_regions.push(id);
        }
    }

    fn move_region(&mut self, slot: u32, name: &str) {
        self.clear_suspect(slot);
        let old = self.entries[slot as usize].region;
        let new = self.region_id(name);
        self.regions[new as usize].leased += 1;
        self.entries[slot as usize].region = new;
        self.leave_region(old);
        self.arm(slot);
    }
}
