//! What can be read of one partition, wherever it is: put to the store here, or sent to the node
//! that leads the partition and put to its store there.

use super::changes::{Difference, Events};
use super::{Done, ask_since, goes_elsewhere, leader};
use crate::limits;
use crate::node::Node;
use crate::runtime;
use crate::status::RpcError;
use agni_core::engine::{Freshness, ReadPoint};
use agni_core::key::KeyRef;
use agni_core::proto::api::{self, ExclusionReason, Status};
use agni_core::proto::node::ask_request::Work as Asked;
use agni_core::proto::node::read_query::Query;
use agni_core::proto::node::{
    ExplainQuery, FoundRecord, ListQuery, ReadDone, ReadFreshness, ReadQuery, SampleQuery,
};
use agni_core::raft::work::{Answer, Priority, Refuse, Work};
use agni_core::store::{
    CompiledFilter, DifferenceCursor, InstanceOwned, ListPage, ListPosition, PageExpired, Sample,
    Store,
};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::time::Instant;

/// A question to one partition.
pub trait Question {
    /// What it is answered.
    type Answer;

    /// What it comes before and after where a node has too much to do.
    fn priority(&self) -> Priority;

    /// Puts it to the store; none when the store is behind what is asked for.
    fn here(&self, store: &Store, now_ms: u64) -> Option<Self::Answer>;

    /// The same for another node.
    fn query(&self) -> Query;

    /// An answer for another node.
    fn tell(answer: Self::Answer) -> ReadDone;

    /// An answer of another node.
    fn told(done: ReadDone) -> Self::Answer;
}

/// How fresh an answer has to be, partition by partition.
#[derive(Debug, Clone)]
pub struct Demand {
    /// Of all of them.
    pub freshness: Freshness,
    /// For stale reads: the revisions that some must show at least.
    pub at_least: BTreeMap<u32, u64>,
}

impl Demand {
    /// What is asked of one partition.
    pub fn of(&self, partition: u32) -> Freshness {
        match self.freshness {
            Freshness::Stale { max_ms, .. } => {
                let at_least = self.at_least.get(&partition).copied().unwrap_or_default();
                Freshness::Stale { max_ms, at_least }
            }
            other => other,
        }
    }
}

/// The same of all partitions.
impl From<Freshness> for Demand {
    fn from(freshness: Freshness) -> Self {
        Demand { freshness, at_least: BTreeMap::new() }
    }
}

/// Asks a partition, wherever it is.
///
/// # Errors
/// When nobody can vouch for the freshness asked for.
pub async fn read<Q: Question>(
    node: &Node,
    partition: u32,
    freshness: Freshness,
    question: &Q,
) -> Result<(ReadPoint, Q::Answer), RpcError> {
    let begun = Instant::now();
    match here(node, partition, freshness, question).await {
        Ok(answer) => Ok(answer),
        Err(refuse) if goes_elsewhere(node, refuse) => {
            let (freshness, max_staleness_ms, at_least) = match freshness {
                Freshness::Leader => (ReadFreshness::Leader, 0, 0),
                Freshness::Stale { max_ms, at_least } => (ReadFreshness::Stale, max_ms, at_least),
                Freshness::Linearizable | Freshness::Local => (ReadFreshness::Linearizable, 0, 0),
            };
            let query = ReadQuery {
                freshness: freshness.into(),
                max_staleness_ms,
                at_least,
                query: Some(question.query()),
            };
            // Every request's future has room for this: a box keeps that small.
            match Box::pin(ask_since(node, partition, Asked::Read(query), begun)).await? {
                Done::Read(done) => {
                    let (revision, term, age_ms) = (done.revision, done.term, done.age_ms);
                    Ok((ReadPoint { revision, term, age_ms }, Q::told(done)))
                }
                Done::Engine(_) => Err(super::unexpected()),
            }
        }
        Err(refuse) => Err(RpcError::refused(refuse)),
    }
}

/// Asks all partitions; the answers are in their order.
///
/// # Errors
/// When nobody can vouch for one of them.
pub async fn read_all<Q: Question>(
    node: &Node,
    demand: &Demand,
    question: &Q,
) -> Result<Vec<(ReadPoint, Q::Answer)>, RpcError> {
    let partitions = 0..node.engine.partition_count();
    if node.engine.is_alone() {
        // All are here, and none has to be waited for.
        let mut answers = Vec::with_capacity(partitions.len());
        for partition in partitions {
            answers.push(read(node, partition, demand.of(partition), question).await?);
        }
        return Ok(answers);
    }
    let asked = partitions.map(|partition| read(node, partition, demand.of(partition), question));
    join_all(asked).await.into_iter().collect()
}

async fn here<Q: Question>(
    node: &Node,
    partition: u32,
    freshness: Freshness,
    question: &Q,
) -> Result<(ReadPoint, Q::Answer), Refuse> {
    let engine = &node.engine;
    if !engine.holds(partition) {
        return Err(Refuse::NotLeader { leader: 0 });
    }
    let put = |store: &Store, point, now_ms| question.here(store, now_ms).map(|a| (point, a));
    let mut read = engine.read(partition, freshness, put);
    if matches!(read, Err(Refuse::RoundNeeded)) {
        let known = leader(node, partition);
        if known != engine.node_id() {
            return Err(Refuse::NotLeader { leader: known });
        }
        read = match runtime::ask(partition, Work::Read(question.priority())).await {
            Answer::Readable => engine.read(partition, Freshness::Local, put),
            Answer::Refused(refuse) => Err(refuse),
            _ => Err(Refuse::NotReady),
        };
    }
    read?.ok_or(Refuse::NotReady)
}

/// Answers another node's question.
///
/// # Errors
/// Says why this node can't.
pub async fn answer(node: &Node, partition: u32, read: ReadQuery) -> Result<ReadDone, Refuse> {
    let freshness = match read.freshness() {
        ReadFreshness::Linearizable => Freshness::Linearizable,
        ReadFreshness::Leader => Freshness::Leader,
        ReadFreshness::Stale => {
            Freshness::Stale { max_ms: read.max_staleness_ms, at_least: read.at_least }
        }
    };
    // The asking node has checked all of it, so what can't be read is of another version.
    let strange = |_| Refuse::NotReady;
    match read.query {
        Some(Query::Get(key)) => tell(node, partition, freshness, &Get { key: &key }).await,
        Some(Query::List(list)) => {
            let filter = list.filter.unwrap_or_default();
            let compiled = CompiledFilter::new(&filter).map_err(strange)?;
            let position =
                ListPosition { revision: Some(list.revision), after_slot: list.after_slot };
            let records_max = (list.records_max as usize).min(limits::PAGE_RECORDS_MAX);
            let bytes_max = (list.bytes_max as usize).min(limits::PAGE_BYTES_MAX);
            let page =
                Page { filter: &filter, compiled: &compiled, position, records_max, bytes_max };
            tell(node, partition, freshness, &page).await
        }
        Some(Query::Sample(sample)) => {
            let filter = sample.filter.unwrap_or_default();
            let compiled = CompiledFilter::for_discover(&filter).map_err(strange)?;
            let narrowed = match sample.region.is_empty() {
                true => Some(compiled),
                false => compiled.narrowed_to(&sample.region),
            };
            let compiled = narrowed.ok_or(Refuse::NotReady)?;
            let records_max = sample.records_max.min(limits::SAMPLE_RECORDS_MAX) as usize;
            let region = &*sample.region;
            let draw = Draw { filter: &filter, compiled: &compiled, region, records_max };
            tell(node, partition, freshness, &draw).await
        }
        Some(Query::Explain(explain)) => {
            let filter = explain.filter.unwrap_or_default();
            let compiled = CompiledFilter::for_discover(&filter).map_err(strange)?;
            let key = explain.key.unwrap_or_default();
            let question = Explain { filter: &filter, compiled: &compiled, key: &key };
            tell(node, partition, freshness, &question).await
        }
        Some(Query::Events(query)) => {
            let events_max = (query.events_max as usize).min(limits::WATCH_EVENTS_MAX);
            let events = Events { after: query.after, events_max, wait_ms: 0 };
            tell(node, partition, freshness, &events).await
        }
        Some(Query::Difference(query)) => {
            let changes_max = (query.changes_max as usize).min(limits::WATCH_SYNC_RECORDS_MAX);
            let cursor = DifferenceCursor::of_place(&query.place.unwrap_or_default());
            let difference = Difference { after: query.after, cursor, changes_max };
            tell(node, partition, freshness, &difference).await
        }
        Some(Query::Point(is_for_watch)) => {
            let priority = if is_for_watch { Priority::Watch } else { Priority::Many };
            tell(node, partition, freshness, &Point { priority }).await
        }
        None => Err(Refuse::NotReady),
    }
}

async fn tell<Q: Question>(
    node: &Node,
    partition: u32,
    freshness: Freshness,
    question: &Q,
) -> Result<ReadDone, Refuse> {
    let (point, answer) = here(node, partition, freshness, question).await?;
    let ReadPoint { revision, term, age_ms } = point;
    Ok(ReadDone { revision, term, age_ms, ..Q::tell(answer) })
}

fn found(instance: InstanceOwned) -> FoundRecord {
    FoundRecord {
        record: instance.record,
        status: instance.status.into(),
        lease_remaining_ms: instance.lease_remaining_ms,
        free: instance.load.map(|(free, _)| free),
        load_age_ms: instance.load.map_or(0, |(_, age_ms)| age_ms),
    }
}

fn instance(found: FoundRecord) -> InstanceOwned {
    let FoundRecord { record, status, lease_remaining_ms, free, load_age_ms } = found;
    InstanceOwned {
        record,
        status: Status::try_from(status).unwrap_or_default(),
        lease_remaining_ms,
        load: free.map(|free| (free, load_age_ms)),
    }
}

fn records(instances: Vec<InstanceOwned>) -> Vec<FoundRecord> {
    instances.into_iter().map(found).collect()
}

fn instances(records: Vec<FoundRecord>) -> Vec<InstanceOwned> {
    records.into_iter().map(instance).collect()
}

/// One record.
pub struct Get<'a> {
    /// Its key.
    pub key: &'a api::Key,
}

impl Question for Get<'_> {
    type Answer = Option<InstanceOwned>;

    fn priority(&self) -> Priority {
        Priority::Register
    }

    fn here(&self, store: &Store, now_ms: u64) -> Option<Self::Answer> {
        Some(store.get(&KeyRef::of(self.key), now_ms).map(|view| view.to_owned()))
    }

    fn query(&self) -> Query {
        Query::Get(self.key.clone())
    }

    fn tell(answer: Self::Answer) -> ReadDone {
        ReadDone { records: answer.map(found).into_iter().collect(), ..ReadDone::default() }
    }

    fn told(done: ReadDone) -> Self::Answer {
        done.records.into_iter().next().map(instance)
    }
}

/// A page of records at one revision.
pub struct Page<'a> {
    /// Which records.
    pub filter: &'a api::Filter,
    /// The same, compiled.
    pub compiled: &'a CompiledFilter,
    /// The revision, and where in it.
    pub position: ListPosition,
    /// Most records.
    pub records_max: usize,
    /// About so many bytes.
    pub bytes_max: usize,
}

impl Question for Page<'_> {
    type Answer = Result<ListPage, PageExpired>;

    fn priority(&self) -> Priority {
        Priority::Many
    }

    fn here(&self, store: &Store, now_ms: u64) -> Option<Self::Answer> {
        let reaches = self.position.revision.is_none_or(|wanted| wanted <= store.revision());
        let list =
            || store.list(self.compiled, self.position, self.records_max, self.bytes_max, now_ms);
        reaches.then(list)
    }

    fn query(&self) -> Query {
        Query::List(ListQuery {
            filter: Some(self.filter.clone()),
            revision: self.position.revision.unwrap_or_default(),
            after_slot: self.position.after_slot,
            records_max: self.records_max as u32,
            bytes_max: self.bytes_max as u64,
        })
    }

    fn tell(answer: Self::Answer) -> ReadDone {
        match answer {
            Ok(page) => ReadDone {
                records: records(page.instances),
                next_slot: page.next,
                ..ReadDone::default()
            },
            Err(PageExpired) => ReadDone { is_expired: true, ..ReadDone::default() },
        }
    }

    fn told(done: ReadDone) -> Self::Answer {
        match done.is_expired {
            true => Err(PageExpired),
            false => Ok(ListPage {
                revision: done.revision,
                next: done.next_slot,
                instances: instances(done.records),
            }),
        }
    }
}

/// Random records.
pub struct Draw<'a> {
    /// Which may be drawn.
    pub filter: &'a api::Filter,
    /// The same, compiled, for the region alone where one is given.
    pub compiled: &'a CompiledFilter,
    /// Only of this region; empty for all.
    pub region: &'a str,
    /// How many.
    pub records_max: usize,
}

impl Question for Draw<'_> {
    type Answer = Sample;

    fn priority(&self) -> Priority {
        Priority::Many
    }

    fn here(&self, store: &Store, now_ms: u64) -> Option<Self::Answer> {
        let mut random = crate::random::random;
        Some(store.sample(self.compiled, self.records_max, &mut random, now_ms))
    }

    fn query(&self) -> Query {
        Query::Sample(SampleQuery {
            filter: Some(self.filter.clone()),
            region: self.region.to_owned(),
            records_max: self.records_max as u32,
        })
    }

    fn tell(answer: Self::Answer) -> ReadDone {
        let Sample { matched, instances } = answer;
        ReadDone { matched, records: records(instances), ..ReadDone::default() }
    }

    fn told(done: ReadDone) -> Self::Answer {
        Sample { matched: done.matched, instances: instances(done.records) }
    }
}

/// Why a record is no candidate.
pub struct Explain<'a> {
    /// The filter of the discovery.
    pub filter: &'a api::Filter,
    /// The same, compiled.
    pub compiled: &'a CompiledFilter,
    /// The record.
    pub key: &'a api::Key,
}

impl Question for Explain<'_> {
    type Answer = Option<(ExclusionReason, String)>;

    fn priority(&self) -> Priority {
        Priority::Many
    }

    fn here(&self, store: &Store, now_ms: u64) -> Option<Self::Answer> {
        Some(store.explain(&KeyRef::of(self.key), self.compiled, now_ms))
    }

    fn query(&self) -> Query {
        let (filter, key) = (Some(self.filter.clone()), Some(self.key.clone()));
        Query::Explain(ExplainQuery { filter, key })
    }

    fn tell(answer: Self::Answer) -> ReadDone {
        match answer {
            Some((reason, detail)) => {
                ReadDone { exclusion: reason.into(), detail, ..ReadDone::default() }
            }
            None => ReadDone::default(),
        }
    }

    fn told(done: ReadDone) -> Self::Answer {
        let reason = ExclusionReason::try_from(done.exclusion).ok()?;
        (reason != ExclusionReason::Unspecified).then_some((reason, done.detail))
    }
}

/// Nothing but the state that would be shown.
pub struct Point {
    /// What it is asked for.
    pub priority: Priority,
}

impl Question for Point {
    type Answer = ();

    fn priority(&self) -> Priority {
        self.priority
    }

    fn here(&self, _: &Store, _: u64) -> Option<()> {
        Some(())
    }

    fn query(&self) -> Query {
        Query::Point(self.priority == Priority::Watch)
    }

    fn tell((): ()) -> ReadDone {
        ReadDone::default()
    }

    fn told(_: ReadDone) {}
}
