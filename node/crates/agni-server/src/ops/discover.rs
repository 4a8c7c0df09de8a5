//! Discover: random candidates that match, of which the better ones win (power of k choices), so
//! that a thousand clients who ask at once don't all go to the same freest record.

use crate::engine_api::{CompiledFilter, Freshness, InstanceOwned, KeyRef, ReadPoint};
use crate::grpc::status::RpcError;
use crate::limits;
use crate::node::Node;
use crate::ops::read::{freshness, named};
use agni_core::proto::api::{self, ExclusionReason, Status};
use prost::Message;
use std::cell::Cell;
use std::collections::{BTreeMap, HashSet};

/// How much each part of a score weighs; together 1.
const REGION_WEIGHT: f64 = 0.5;
const FREE_WEIGHT: f64 = 0.4;
const FRESHNESS_WEIGHT: f64 = 0.1;
/// Freshness of a record that never reported its load.
const FRESHNESS_UNKNOWN: f64 = 0.5;
/// Age at which a report is worth half, in milliseconds.
const FRESHNESS_HALF_MS: f64 = 30_000.0;

/// A record that was found.
pub struct Winner {
    /// The record.
    pub instance: InstanceOwned,
    /// Why it stands where it does.
    pub score: api::Score,
    key: api::Key,
}

/// What was found.
pub struct Discovered {
    /// The partitions that were asked.
    pub points: Vec<(u32, ReadPoint)>,
    /// The best, best first.
    pub winners: Vec<Winner>,
    /// What was left out, if that was asked.
    pub exclusions: Vec<api::Exclusion>,
    /// How many match the filter.
    pub matched: u64,
}

struct Question {
    filter: api::Filter,
    region: String,
    limit: usize,
    choices: usize,
    freshness: Freshness,
}

thread_local! {
    static RANDOM: Cell<u64> = Cell::new(random_seed());
}

fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::thread::current().id())
}

/// SplitMix64 (Steele et al., OOPSLA 2014): spreads clients, guards nothing.
pub fn random() -> u64 {
    RANDOM.with(|state| {
        state.set(state.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mut z = state.get();
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

fn question(request: &api::DiscoverRequest) -> Result<Question, RpcError> {
    let filter = named(request.filter.clone());
    CompiledFilter::for_discover(&filter)?;
    if request.region.len() > limits::REGION_BYTES_MAX {
        let message = format!("has more than {} bytes", limits::REGION_BYTES_MAX);
        return Err(RpcError::field("region", message));
    }
    let bounded = |field, value: u32, default, most: u32| match value {
        0 => Ok(default),
        value if value <= most => Ok(value as usize),
        _ => Err(RpcError::field(field, format!("must be 1..{most}"))),
    };
    let limit = bounded(
        "limit",
        request.limit,
        limits::DISCOVER_RECORDS_DEFAULT as usize,
        limits::DISCOVER_RECORDS_MAX,
    )?;
    let choices = bounded(
        "choices",
        request.choices,
        limits::DISCOVER_CHOICES_DEFAULT as usize,
        limits::DISCOVER_CHOICES_MAX,
    )?;
    if request.explain_names.len() > limits::EXPLAIN_NAMES_MAX {
        let message = format!("has more than {} names", limits::EXPLAIN_NAMES_MAX);
        return Err(RpcError::field("explain_names", message));
    }
    if !request.explain_names.is_empty() && filter.namespace == "*" {
        let message = "can't be used with namespace *, a name needs its namespace";
        return Err(RpcError::field("explain_names", message));
    }
    let freshness = freshness(request.read.as_ref())?;
    Ok(Question { filter, region: request.region.clone(), limit, choices, freshness })
}

/// Random records that match, over all partitions, each equally likely.
struct Drawn {
    matched: u64,
    instances: Vec<InstanceOwned>,
    points: Vec<(u32, ReadPoint)>,
}

fn draw(
    node: &Node,
    filter: &api::Filter,
    want: usize,
    freshness: Freshness,
) -> Result<Drawn, RpcError> {
    let compiled = CompiledFilter::new(filter)?;
    let (mut pools, mut points, mut matched) = (Vec::new(), Vec::new(), 0);
    for partition in 0..node.engine.partition_count() {
        let (point, sample) = node
            .engine
            .read(partition, freshness, |store, point, now_ms| {
                (point, store.sample(&compiled, want, &mut random, now_ms))
            })
            .map_err(RpcError::refused)?;
        points.push((partition, point));
        matched += sample.matched;
        if !sample.instances.is_empty() {
            pools.push((sample.matched, sample.instances));
        }
    }
    // Partitions are drawn from by how many match in them, so that a small one isn't favoured.
    let (mut instances, mut left) = (Vec::with_capacity(want), matched);
    while instances.len() < want && left > 0 {
        let mut lot = random() % left;
        for (weight, pool) in &mut pools {
            if lot < *weight {
                match pool.pop() {
                    Some(instance) => {
                        instances.push(instance);
                        *weight -= 1;
                        left -= 1;
                    }
                    // Expired in between: what was counted isn't all there.
                    None => {
                        left -= *weight;
                        *weight = 0;
                    }
                }
                break;
            }
            lot -= *weight;
        }
    }
    Ok(Drawn { matched, instances, points })
}

/// The smallest free share over the resources that the record has.
fn free_share(spec: &api::Spec, load: Option<&api::Capacity>) -> f64 {
    let Some(total) = &spec.capacity else { return 1.0 };
    let Some(free) = load else { return 1.0 };
    let parts = [
        (total.cpu, free.cpu),
        (total.bandwidth, free.bandwidth),
        (total.memory, free.memory),
        (total.storage, free.storage),
    ];
    let share = |(total, free): &(f64, f64)| (*total > 0.0).then(|| (free / total).clamp(0.0, 1.0));
    parts.iter().filter_map(share).fold(1.0, f64::min)
}

fn score(question: &Question, instance: InstanceOwned) -> Option<Winner> {
    // Ranking needs the spec, so Discover decodes its few candidates; the answer still carries
    // the stored bytes.
    let record = api::Record::decode(instance.record.clone()).ok()?;
    let spec = record.spec.unwrap_or_default();
    let region_match =
        f64::from(u8::from(question.region.is_empty() || spec.region == question.region));
    let free_capacity = free_share(&spec, instance.load.as_ref().map(|(free, _)| free));
    let freshness = match &instance.load {
        Some((_, age_ms)) => FRESHNESS_HALF_MS / (FRESHNESS_HALF_MS + *age_ms as f64),
        None => FRESHNESS_UNKNOWN,
    };
    let total = REGION_WEIGHT * region_match
        + FREE_WEIGHT * free_capacity
        + FRESHNESS_WEIGHT * freshness;
    let score = api::Score { total, region_match, free_capacity, freshness };
    Some(Winner { instance, score, key: record.key.unwrap_or_default() })
}

/// For each place `choices` candidates compete; who lost may still fill a place that nobody else
/// is left for.
fn compete(mut candidates: Vec<Winner>, places: usize, choices: usize) -> Vec<Winner> {
    let (mut winners, mut losers) = (Vec::new(), Vec::new());
    while winners.len() < places && !candidates.is_empty() {
        let from = candidates.len().saturating_sub(choices);
        let mut group = candidates.split_off(from);
        group.sort_by(|a, b| b.score.total.total_cmp(&a.score.total));
        let mut group = group.into_iter();
        winners.extend(group.next());
        losers.extend(group);
    }
    losers.sort_by(|a, b| b.score.total.total_cmp(&a.score.total));
    let missing = places.saturating_sub(winners.len());
    winners.extend(losers.into_iter().take(missing));
    winners.sort_by(|a, b| b.score.total.total_cmp(&a.score.total));
    winners
}

/// The filters to draw from, best first: the preferred region before others, and those who are
/// surely alive before those of a region that has just gone silent.
fn passes(question: &Question) -> Vec<api::Filter> {
    let statuses = |status: Status| match question.filter.statuses.is_empty() {
        true => vec![status as i32],
        false => question.filter.statuses.clone(),
    };
    let here = |status| api::Filter { statuses: statuses(status), ..question.filter.clone() };
    let mut passes = Vec::new();
    let wanted = question.filter.regions.is_empty() || question.filter.regions.contains(&question.region);
    let narrower = question.filter.regions != [question.region.clone()];
    if !question.region.is_empty() && wanted && narrower {
        passes.push(api::Filter { regions: vec![question.region.clone()], ..here(Status::Alive) });
    }
    passes.push(here(Status::Alive));
    if question.filter.statuses.is_empty() {
        passes.push(here(Status::Suspect));
    }
    passes
}

/// Finds the best records for a need.
pub fn discover(node: &Node, request: &api::DiscoverRequest) -> Result<Discovered, RpcError> {
    let question = question(request)?;
    let mut found =
        Discovered { points: Vec::new(), winners: Vec::new(), exclusions: Vec::new(), matched: 0 };
    let mut known: HashSet<(String, String)> = HashSet::new();
    for pass in passes(&question) {
        let whole = pass.regions == question.filter.regions;
        let missing = question.limit - found.winners.len();
        // What earlier passes found comes up again here, so as much more is drawn.
        let want = match missing {
            0 => 0,
            _ => missing * question.choices + known.len(),
        };
        if want == 0 && !whole {
            continue;
        }
        let drawn = draw(node, &pass, want, question.freshness)?;
        if whole {
            found.matched += drawn.matched;
        }
        let candidates: Vec<Winner> = drawn
            .instances
            .into_iter()
            .filter_map(|instance| score(&question, instance))
            .filter(|w| !known.contains(&(w.key.namespace.clone(), w.key.name.clone())))
            .collect();
        for winner in compete(candidates, missing, question.choices) {
            known.insert((winner.key.namespace.clone(), winner.key.name.clone()));
            found.winners.push(winner);
        }
        found.points = drawn.points;
    }
    if request.explain {
        found.exclusions = explain(node, &question, request, &known)?;
    }
    Ok(found)
}

/// The keys to explain: those named, or some of those left out.
fn keys_to_explain(
    node: &Node,
    question: &Question,
    names: &[String],
) -> Result<BTreeMap<String, api::Key>, RpcError> {
    let filter = &question.filter;
    if !names.is_empty() {
        let key = |name: &String| api::Key {
            namespace: filter.namespace.clone(),
            kind: filter.kind,
            name: name.clone(),
        };
        return Ok(names.iter().map(|name| (name.clone(), key(name))).collect());
    }
    let everybody = api::Filter {
        kind: filter.kind,
        namespace: filter.namespace.clone(),
        ..api::Filter::default()
    };
    let want = limits::EXPLAIN_SAMPLE + question.limit;
    let drawn = draw(node, &everybody, want, question.freshness)?;
    let key = |instance: &InstanceOwned| api::Record::decode(instance.record.clone()).ok()?.key;
    let keys = drawn.instances.iter().filter_map(key);
    Ok(keys.map(|key| (format!("{}/{}", key.namespace, key.name), key)).collect())
}

fn explain(
    node: &Node,
    question: &Question,
    request: &api::DiscoverRequest,
    winners: &HashSet<(String, String)>,
) -> Result<Vec<api::Exclusion>, RpcError> {
    let mut filter = question.filter.clone();
    if filter.statuses.is_empty() {
        filter.statuses = vec![Status::Alive as i32];
    }
    let compiled = CompiledFilter::new(&filter)?;
    let mut exclusions = Vec::new();
    for key in keys_to_explain(node, question, &request.explain_names)?.into_values() {
        if winners.contains(&(key.namespace.clone(), key.name.clone())) {
            continue;
        }
        let key_ref = KeyRef::of(&key);
        let partition = node.engine.partition_of(&key_ref);
        let reason = node
            .engine
            .read(partition, question.freshness, |store, _, now_ms| {
                store.explain(&key_ref, &compiled, now_ms)
            })
            .map_err(RpcError::refused)?;
        let (reason, detail) = reason.unwrap_or_else(|| {
            (ExclusionReason::Outranked, "it matches, others ranked higher or were drawn".into())
        });
        exclusions.push(api::Exclusion { key: Some(key), reason: reason as i32, detail });
        if request.explain_names.is_empty() && exclusions.len() >= limits::EXPLAIN_SAMPLE {
            break;
        }
    }
    Ok(exclusions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str, total: f64) -> Winner {
        Winner {
            instance: InstanceOwned {
                record: bytes::Bytes::new(),
                status: Status::Alive,
                lease_remaining_ms: None,
                load: None,
            },
            score: api::Score { total, ..api::Score::default() },
            key: api::Key { name: name.into(), ..api::Key::default() },
        }
    }

    #[test]
    fn the_better_of_each_group_wins_and_losers_fill_up() {
        let all = || vec![candidate("a", 0.1), candidate("b", 0.9), candidate("c", 0.5), candidate("d", 0.4)];
        let names = |winners: Vec<Winner>| winners.into_iter().map(|w| w.key.name).collect::<Vec<_>>();
        assert_eq!(names(compete(all(), 2, 2)), ["b", "c"]);
        assert_eq!(names(compete(all(), 3, 2)), ["b", "c", "d"]);
        assert_eq!(names(compete(all(), 9, 4)), ["b", "c", "d", "a"]);
        assert!(compete(Vec::new(), 3, 2).is_empty());
    }

    #[test]
    fn the_scarcest_resource_decides() {
        let capacity = |cpu, memory| api::Capacity { cpu, memory, ..api::Capacity::default() };
        let spec = api::Spec { capacity: Some(capacity(4.0, 100.0)), ..api::Spec::default() };
        assert_eq!(free_share(&spec, Some(&capacity(1.0, 90.0))), 0.25);
        assert_eq!(free_share(&spec, Some(&capacity(9.0, 90.0))), 0.9);
        assert_eq!(free_share(&spec, None), 1.0);
    }
}
