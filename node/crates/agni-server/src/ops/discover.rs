//! Discover: random candidates that match, over all partitions, of which the better ones win
//! (power of k choices), so that a thousand clients who ask at once don't all go to the same one.

use crate::admission;
use crate::limits;
use crate::node::Node;
use crate::ops::read::{demand, named};
use crate::random::random;
use crate::route::question::{Demand, Draw, Explain, read, read_all};
use crate::status::RpcError;
use agni_core::engine::ReadPoint;
use agni_core::key::KeyRef;
use agni_core::proto::api::{self, ExclusionReason};
use agni_core::raft::work::Priority;
use agni_core::store::{CompiledFilter, InstanceOwned, RankRequest, key_bytes_of, rank};
use bytes::Bytes;
use prost::Message;
use std::collections::{BTreeMap, HashSet};

/// What was found.
pub struct Discovered {
    /// The partitions that were asked.
    pub points: Vec<(u32, ReadPoint)>,
    /// The best, best first.
    pub winners: Vec<(InstanceOwned, api::Score)>,
    /// What was left out, if that was asked.
    pub exclusions: Vec<api::Exclusion>,
    /// How many match the filter.
    pub matched: u64,
}

struct Question {
    filter: api::Filter,
    compiled: CompiledFilter,
    everybody: api::Filter,
    region: String,
    limit: usize,
    choices: usize,
    demand: Demand,
}

fn question(request: &api::DiscoverRequest) -> Result<Question, RpcError> {
    let filter = named(request.filter.clone());
    let compiled = CompiledFilter::for_discover(&filter)?;
    let everybody = api::Filter {
        kind: filter.kind,
        namespace: filter.namespace.clone(),
        ..api::Filter::default()
    };
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
    if !request.explain_names.is_empty() && everybody.namespace == "*" {
        let message = "can't be used with namespace *, a name needs its namespace";
        return Err(RpcError::field("explain_names", message));
    }
    let demand = demand(request.read.as_ref())?;
    let region = request.region.clone();
    Ok(Question { filter, compiled, everybody, region, limit, choices, demand })
}

/// Random records that match, over all partitions, each equally likely.
struct Drawn {
    matched: u64,
    instances: Vec<InstanceOwned>,
    points: Vec<(u32, ReadPoint)>,
}

async fn draw(node: &Node, question: &Draw<'_>, demand: &Demand) -> Result<Drawn, RpcError> {
    let want = question.records_max;
    let (mut alive, mut suspects) = (Vec::new(), Vec::new());
    let (mut points, mut matched) = (Vec::new(), 0);
    let answers = read_all(node, demand, question).await?;
    for (partition, (point, sample)) in (0..).zip(answers) {
        points.push((partition, point));
        matched += sample.matched;
        let (doubtful, sure): (Vec<_>, Vec<_>) =
            sample.instances.into_iter().partition(|i| i.status == api::Status::Suspect);
        // A sample has suspects only where all others are in it.
        let weight = if doubtful.is_empty() { sample.matched } else { sure.len() as u64 };
        suspects.push((sample.matched - weight, doubtful));
        alive.push((weight, sure));
    }
    let mut instances = Vec::with_capacity(want);
    lots(alive, want, &mut instances);
    lots(suspects, want, &mut instances);
    Ok(Drawn { matched, instances, points })
}

/// Draws from the partitions' samples until there are as many as wanted.
fn lots(
    mut pools: Vec<(u64, Vec<InstanceOwned>)>,
    want: usize,
    instances: &mut Vec<InstanceOwned>,
) {
    // Partitions are drawn from by how many match in them, so that a small one isn't favoured.
    let mut left: u64 = pools.iter().map(|(weight, _)| weight).sum();
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
}

/// Finds the best records for a need.
pub async fn discover(node: &Node, request: &api::DiscoverRequest) -> Result<Discovered, RpcError> {
    let _place = admission::admit(Priority::Many).await?;
    let question = question(request)?;
    let want = question.limit * question.choices;
    let Question { filter, demand, .. } = &question;
    let here = match question.region.is_empty() {
        true => None,
        false => question.compiled.narrowed_to(&question.region),
    };
    let mut candidates = match &here {
        Some(here) => {
            let region = &*question.region;
            let near = Draw { filter, compiled: here, region, records_max: want };
            draw(node, &near, demand).await?.instances
        }
        None => Vec::new(),
    };
    // Others are only drawn when the preferred region hasn't enough; they are counted always.
    // Suspects don't count: they stand behind whoever is alive, wherever that is.
    let alive = candidates.iter().filter(|i| i.status != api::Status::Suspect).count();
    let others = if alive < question.limit { want + candidates.len() } else { 0 };
    let all = Draw { filter, compiled: &question.compiled, region: "", records_max: others };
    let drawn = draw(node, &all, demand).await?;
    let known: HashSet<Bytes> = candidates.iter().filter_map(|i| key_bytes_of(&i.record)).collect();
    let unknown = |instance: &InstanceOwned| {
        key_bytes_of(&instance.record).is_none_or(|key| !known.contains(&key))
    };
    candidates.extend(drawn.instances.into_iter().filter(unknown));
    let rank_request =
        RankRequest { region: &question.region, limit: question.limit, choices: question.choices };
    let winners = rank(candidates, &rank_request, &mut random);
    let exclusions = match request.explain {
        true => explain(node, &question, request, &winners).await?,
        false => Vec::new(),
    };
    Ok(Discovered { points: drawn.points, winners, exclusions, matched: drawn.matched })
}

/// The keys to explain: those named, or some of those left out.
async fn keys_to_explain(
    node: &Node,
    question: &Question,
    names: &[String],
) -> Result<BTreeMap<String, api::Key>, RpcError> {
    let everybody = &question.everybody;
    if !names.is_empty() {
        let key = |name: &String| api::Key {
            namespace: everybody.namespace.clone(),
            kind: everybody.kind,
            name: name.clone(),
        };
        return Ok(names.iter().map(|name| (name.clone(), key(name))).collect());
    }
    let want = limits::EXPLAIN_SAMPLE + question.limit;
    let compiled = CompiledFilter::for_discover(everybody)?;
    let any = Draw { filter: everybody, compiled: &compiled, region: "", records_max: want };
    let drawn = draw(node, &any, &question.demand).await?;
    let key = |instance: &InstanceOwned| api::Record::decode(instance.record.clone()).ok()?.key;
    let keys = drawn.instances.iter().filter_map(key);
    Ok(keys.map(|key| (format!("{}/{}", key.namespace, key.name), key)).collect())
}

async fn explain(
    node: &Node,
    question: &Question,
    request: &api::DiscoverRequest,
    winners: &[(InstanceOwned, api::Score)],
) -> Result<Vec<api::Exclusion>, RpcError> {
    let found: HashSet<Bytes> =
        winners.iter().filter_map(|(i, _)| key_bytes_of(&i.record)).collect();
    let keys = keys_to_explain(node, question, &request.explain_names).await?;
    let mut exclusions = Vec::new();
    for key in keys.into_values() {
        if found.contains(&Bytes::from(key.encode_to_vec())) {
            continue;
        }
        let partition = node.engine.partition_of(&KeyRef::of(&key));
        let Question { filter, compiled, demand, .. } = question;
        let asked = Explain { filter, compiled, key: &key };
        let (_, reason) = read(node, partition, demand.of(partition), &asked).await?;
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
