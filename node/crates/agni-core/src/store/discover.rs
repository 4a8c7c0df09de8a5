//! Finding the best records for a need: draw candidates at random, then rank them.
//!
//! A store draws matching records without looking at all of them; `rank` then judges the candidates
//! of all partitions. Each place goes to the best of `choices` random candidates, so that callers
//! who ask at the same moment don't all get the same answer.

use hashbrown::HashSet;

use super::filter::CompiledFilter;
use super::record::{self, SpecParts};
use super::{InstanceOwned, Store};
use crate::capacity::{self, RESOURCES};
use crate::key::KeyRef;
use crate::lease::Liveness;
use crate::proto::api::{ExclusionReason, Score, Status};

/// What being in the preferred region weighs: as much as the rest, so that others follow after it.
pub const WEIGHT_REGION: f64 = 0.5;
/// What the smallest free share weighs.
pub const WEIGHT_FREE: f64 = 0.4;
/// What the age of the load report weighs.
pub const WEIGHT_FRESHNESS: f64 = 0.1;
/// The age at which a load report is worth half as much as a new one, in milliseconds.
const FRESHNESS_HALF_MS: f64 = 30_000.0;
/// Freshness where no load was ever reported.
const FRESHNESS_UNKNOWN: f64 = 0.5;

/// Random matching records.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// How many records match.
    pub matched: u64,
    /// Some of them, each once, in random order.
    pub instances: Vec<InstanceOwned>,
}

/// How candidates are judged.
#[derive(Clone, Copy, Debug)]
pub struct RankRequest<'a> {
    /// The preferred region; empty for none.
    pub region: &'a str,
    /// How many to answer.
    pub limit: usize,
    /// How many random candidates compete for each place; at least 1.
    pub choices: usize,
}

impl Store {
    /// Draws up to `want` matching records at random; `rng` answers uniform numbers.
    ///
    /// Where no record has to be looked at and few have run out, `matched` is counted in the
    /// bitmaps: it then includes what ran out since `take_due` was called last.
    pub fn sample(
        &self,
        filter: &CompiledFilter,
        want: usize,
        rng: &mut dyn FnMut() -> u64,
        now_ms: u64,
    ) -> Sample {
        let slots = self.index.query(&filter.query());
        let few = slots.len() <= 4 * want as u64;
        // Draining records are few and known; suspect ones are neither, and stand behind the alive:
        // while there may be any, each record is looked at.
        let counted = !filter.looks_at_records()
            && filter.matches_status(Status::Alive)
            && self.suspect_domains() == 0;
        let matching = slots.iter().filter(|&slot| self.matches(slot, filter, now_ms));
        if few || !counted {
            return self.reservoir(matching, want, rng, now_ms);
        }
        let mut sample = Sample { matched: slots.len(), instances: Vec::with_capacity(want) };
        let draining_too = filter.matches_status(Status::Draining);
        sample.matched -= self.leases.left_out_of(&slots, !draining_too);
        let mut drawn = HashSet::with_capacity(want);
        // Overdue records are rare, and where they aren't, drawing by lot would find only them.
        for _ in 0..8 * want + 16 {
            if sample.instances.len() == want {
                break;
            }
            let nth = below(rng(), slots.len()) as u32;
            let Some(slot) = slots.select(nth).filter(|slot| drawn.insert(*slot)) else { continue };
            sample
                .instances
                .extend(self.matching_view(slot, filter, now_ms).map(|view| view.to_owned()));
        }
        match sample.instances.len() == want {
            true => sample,
            false => self.reservoir(matching, want, rng, now_ms),
        }
    }

    /// Why a record isn't an answer to a filter; none when it is one.
    pub fn explain(
        &self,
        key: &KeyRef<'_>,
        filter: &CompiledFilter,
        now_ms: u64,
    ) -> Option<(ExclusionReason, String)> {
        let Some(slot) = self.slots.find(key) else {
            return Some((ExclusionReason::NotRegistered, "there is no such record".to_owned()));
        };
        if self.leases.liveness(slot, now_ms) == Liveness::Overdue {
            let detail = "its lease or its time of draining has run out".to_owned();
            return Some((ExclusionReason::Expired, detail));
        }
        let record = self.slots.get(slot)?;
        let parts = record::parse(record)?;
        let spec = SpecParts::parse(parts.spec)?;
        let status = self.view(slot, now_ms)?.status;
        explain_status(filter, status)
            .or_else(|| explain_key(filter, key, &spec))
            .or_else(|| explain_spec(filter, &spec))
            .or_else(|| self.explain_free(slot, filter, &spec))
    }

    fn explain_free(
        &self,
        slot: u32,
        filter: &CompiledFilter,
        spec: &SpecParts<'_>,
    ) -> Option<(ExclusionReason, String)> {
        let min = filter.min_free?;
        let (free, source) = match self.leases.load(slot) {
            Some(load) => (load.free, "reported free"),
            None => (spec.capacity, "in total, none reported"),
        };
        let detail = too_little(&free, &min)?;
        Some((ExclusionReason::FreeCapacity, format!("{detail} ({source})")))
    }

    fn matches(&self, slot: u32, filter: &CompiledFilter, now_ms: u64) -> bool {
        let Some(record) = self.slots.get(slot) else { return false };
        let capacity = self.slots.capacity(slot);
        if !filter.matches_slot(record, capacity) {
            return false;
        }
        let status = match self.leases.liveness(slot, now_ms) {
            Liveness::Overdue => return false,
            _ if self.leases.is_draining(slot) => Status::Draining,
            Liveness::Suspect(_) => Status::Suspect,
            _ => Status::Alive,
        };
        filter.matches_status(status)
            && (filter.min_free.is_none()
                || filter.matches_free(record, capacity, self.leases.load(slot)))
    }

    /// Counts matching slots and keeps `want` of them, each with the same chance; suspects only
    /// where there are too few others.
    fn reservoir(
        &self,
        matching: impl Iterator<Item = u32>,
        want: usize,
        rng: &mut dyn FnMut() -> u64,
        now_ms: u64,
    ) -> Sample {
        let (mut alive, mut suspects) = (Reservoir::new(want), Reservoir::new(want));
        for slot in matching {
            let is_suspect = matches!(self.leases.liveness(slot, now_ms), Liveness::Suspect(_));
            if is_suspect { &mut suspects } else { &mut alive }.offer(slot, rng);
        }
        let matched = alive.offered + suspects.offered;
        let mut kept = alive.kept;
        suspects.kept.truncate(want - kept.len());
        kept.append(&mut suspects.kept);
        shuffle(&mut kept, rng);
        let view = |slot| self.view(slot, now_ms).map(|view| view.to_owned());
        Sample { matched, instances: kept.into_iter().filter_map(view).collect() }
    }
}

/// Keeps some of what it is offered, each with the same chance.
struct Reservoir {
    want: usize,
    offered: u64,
    kept: Vec<u32>,
}

impl Reservoir {
    fn new(want: usize) -> Reservoir {
        Reservoir { want, offered: 0, kept: Vec::new() }
    }

    fn offer(&mut self, slot: u32, rng: &mut dyn FnMut() -> u64) {
        self.offered += 1;
        if self.kept.len() < self.want {
            self.kept.push(slot);
            return;
        }
        let place = below(rng(), self.offered) as usize;
        if let Some(place) = self.kept.get_mut(place) {
            *place = slot;
        }
    }
}

/// A number below `bound` from a uniform one.
fn below(random: u64, bound: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

fn shuffle<T>(items: &mut [T], rng: &mut dyn FnMut() -> u64) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng(), last as u64 + 1) as usize);
    }
}

/// Chooses the best candidates, best first, each with the parts of its score.
///
/// Those of the preferred region are drawn first, others only once these have run out, and suspects
/// last of all. For each place `choices` random candidates compete: 1 spreads evenly, more leans
/// towards the freest.
pub fn rank(
    candidates: Vec<InstanceOwned>,
    request: &RankRequest<'_>,
    rng: &mut dyn FnMut() -> u64,
) -> Vec<(InstanceOwned, Score)> {
    let scored = candidates.into_iter().map(|instance| {
        let score = score(&instance, request.region);
        (instance, score)
    });
    let mut pools: [Vec<(InstanceOwned, Score)>; 4] = Default::default();
    for (instance, score) in scored {
        let is_suspect = instance.status == Status::Suspect;
        let elsewhere = score.region_match == 0.0;
        pools[2 * usize::from(is_suspect) + usize::from(elsewhere)].push((instance, score));
    }
    let mut chosen: Vec<(InstanceOwned, Score)> = Vec::new();
    while chosen.len() < request.limit {
        let Some(pool) = pools.iter_mut().find(|pool| !pool.is_empty()) else { break };
        let draws = request.choices.clamp(1, pool.len());
        // The first `draws` of the pool become a random choice of it.
        for position in 0..draws {
            let rest = (pool.len() - position) as u64;
            pool.swap(position, position + below(rng(), rest) as usize);
        }
        let best =
            (0..draws).max_by(|&a, &b| pool[a].1.total.total_cmp(&pool[b].1.total)).unwrap_or(0);
        chosen.push(pool.swap_remove(best));
    }
    chosen.sort_by(|(_, a), (_, b)| b.total.total_cmp(&a.total));
    chosen
}

/// The parts of a score, each 0..1, and their weighted sum.
fn score(instance: &InstanceOwned, region: &str) -> Score {
    let spec = record::parse(&instance.record)
        .and_then(|parts| SpecParts::parse(parts.spec))
        .unwrap_or_default();
    let region_match = f64::from(u8::from(region.is_empty() || region == spec.region));
    let (free_capacity, freshness) = match &instance.load {
        None => (1.0, FRESHNESS_UNKNOWN),
        Some((free, age_ms)) => {
            let age_ms = (*age_ms).max(0) as f64;
            let share = free_share(&capacity::amounts(free), &spec.capacity);
            (share, FRESHNESS_HALF_MS / (FRESHNESS_HALF_MS + age_ms))
        }
    };
    let total =
        WEIGHT_REGION * region_match + WEIGHT_FREE * free_capacity + WEIGHT_FRESHNESS * freshness;
    // Whether it is still there is what nobody knows: it stands behind whoever is alive.
    let is_suspect = instance.status == Status::Suspect;
    let (freshness, total) = if is_suspect { (0.0, 0.0) } else { (freshness, total) };
    Score { total, region_match, free_capacity, freshness }
}

/// The smallest free share of those resources that there are any of.
fn free_share(free: &[f64; 4], total: &[f64; 4]) -> f64 {
    let shares = free.iter().zip(total).filter(|(_, total)| **total > 0.0);
    shares.map(|(free, total)| (free / total).clamp(0.0, 1.0)).fold(1.0, f64::min)
}

fn explain_status(filter: &CompiledFilter, status: Status) -> Option<(ExclusionReason, String)> {
    if filter.matches_status(status) {
        return None;
    }
    Some(match status {
        Status::Draining => (ExclusionReason::Draining, "it is about to go".to_owned()),
        Status::Suspect => {
            let detail = "much of its region, or behind its gateway, went silent at once";
            (ExclusionReason::Suspect, detail.to_owned())
        }
        _ => (ExclusionReason::Filter, "its status is alive".to_owned()),
    })
}

fn explain_key(
    filter: &CompiledFilter,
    key: &KeyRef<'_>,
    spec: &SpecParts<'_>,
) -> Option<(ExclusionReason, String)> {
    let detail = if filter.kind.is_some_and(|kind| kind != key.kind) {
        "it is of another kind".to_owned()
    } else if filter.namespace.as_deref().is_some_and(|namespace| namespace != key.namespace) {
        format!("its namespace is {:?}", key.namespace)
    } else if !key.name.starts_with(&filter.name_prefix) {
        format!("its name doesn't begin with {:?}", filter.name_prefix)
    } else if filter.gateway.as_deref().is_some_and(|gateway| gateway != spec.gateway) {
        format!("its gateway is {:?}", spec.gateway)
    } else {
        return None;
    };
    Some((ExclusionReason::Filter, detail))
}

fn explain_spec(
    filter: &CompiledFilter,
    spec: &SpecParts<'_>,
) -> Option<(ExclusionReason, String)> {
    if !filter.matches_region(spec) {
        return Some((ExclusionReason::Region, format!("its region is {:?}", spec.region)));
    }
    if let Some((key, wanted)) = filter.missing_label(spec) {
        let detail = match (spec.labels().find(|(other, _)| other == key), wanted) {
            (Some((_, stored)), Some(wanted)) => {
                format!("its label {key:?} is {stored:?}, not {wanted:?}")
            }
            _ => format!("it has no label {key:?}"),
        };
        return Some((ExclusionReason::Labels, detail));
    }
    let detail = too_little(&spec.capacity, filter.min_capacity.as_ref()?)?;
    Some((ExclusionReason::Capacity, detail))
}

fn too_little(amounts: &[f64; 4], min: &[f64; 4]) -> Option<String> {
    let short = (0..RESOURCES.len()).find(|&resource| amounts[resource] < min[resource])?;
    Some(format!("{} is {}, below {}", RESOURCES[short], amounts[short], min[short]))
}
