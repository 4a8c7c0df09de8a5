//! Get and List. Records pass as they are stored: neither decoded nor copied.

use crate::admission;
use crate::limits;
use crate::node::Node;
use crate::route::question::{self, Demand, Get, Point, read, read_all};
use crate::status::RpcError;
use crate::token::{self, PagePosition};
use agni_core::engine::{Freshness, ReadPoint};
use agni_core::key::KeyRef;
use agni_core::proto::api::{self, Consistency};
use agni_core::raft::work::Priority;
use agni_core::store::{CompiledFilter, InstanceOwned, ListPosition};
use agni_core::validate;
use prost::Message;

/// A record and which state of its partition shows it.
pub struct Found {
    /// The partition.
    pub partition: u32,
    /// The state.
    pub point: ReadPoint,
    /// The record.
    pub instance: InstanceOwned,
}

/// One page.
pub struct Page {
    /// The partitions shown, with their state.
    pub points: Vec<(u32, ReadPoint)>,
    /// The records.
    pub instances: Vec<InstanceOwned>,
    /// For the next page; empty on the last.
    pub next_page_token: String,
    /// On the last page, to watch from the state shown.
    pub resume_token: Vec<u8>,
}

/// A filter with its namespace's default filled in.
pub fn named(filter: Option<api::Filter>) -> api::Filter {
    let mut filter = filter.unwrap_or_default();
    if filter.namespace.is_empty() {
        validate::NAMESPACE_DEFAULT.clone_into(&mut filter.namespace);
    }
    filter
}

/// How fresh an answer has to be.
pub fn demand(options: Option<&api::ReadOptions>) -> Result<Demand, RpcError> {
    let Some(options) = options else { return Ok(Freshness::Linearizable.into()) };
    let Ok(consistency) = Consistency::try_from(options.consistency) else {
        let message = "must be linearizable, leader or stale";
        return Err(RpcError::field("read.consistency", message));
    };
    if options.max_staleness_ms < 0 {
        return Err(RpcError::field("read.max_staleness_ms", "must not be negative"));
    }
    if options.max_staleness_ms > 0 && consistency != Consistency::Stale {
        return Err(RpcError::field("read.max_staleness_ms", "is only for stale reads"));
    }
    if options.at_least.len() > agni_core::limits::PARTITIONS_MAX as usize {
        return Err(RpcError::field("read.at_least", "has more entries than partitions can be"));
    }
    let freshness = match consistency {
        // Everything else shows the newest state anyway.
        Consistency::Unspecified | Consistency::Linearizable => Freshness::Linearizable,
        Consistency::Leader => Freshness::Leader,
        Consistency::Stale => {
            Freshness::Stale { max_ms: options.max_staleness_ms as u64, at_least: 0 }
        }
    };
    Ok(Demand { freshness, at_least: options.at_least.clone() })
}

/// Reads one record.
pub async fn get(node: &Node, request: api::GetRequest) -> Result<Found, RpcError> {
    let key = validate::validate_key(request.key.as_ref(), "")?;
    let demand = demand(request.read.as_ref())?;
    let partition = node.engine.partition_of(&KeyRef::of(&key));
    let (point, found) = read(node, partition, demand.of(partition), &Get { key: &key }).await?;
    // That there is none is a state, too: who reads on must not be shown an older one.
    let instance = found.ok_or_else(|| {
        let missing = RpcError::not_found(&key);
        missing
            .with("partition", partition.to_string())
            .with("revision", point.revision.to_string())
    })?;
    Ok(Found { partition, point, instance })
}

/// The revisions of all partitions as they are now, as fresh as is demanded.
pub async fn pin(node: &Node, demand: &Demand, priority: Priority) -> Result<Vec<u64>, RpcError> {
    let points = read_all(node, demand, &Point { priority }).await?;
    Ok(points.into_iter().map(|(point, ())| point.revision).collect())
}

/// Reads one page of the records that match.
pub async fn list(node: &Node, request: api::ListRequest) -> Result<Page, RpcError> {
    let _place = admission::admit(Priority::Many).await?;
    let filter = named(request.filter);
    let compiled = CompiledFilter::new(&filter)?;
    let demand = demand(request.read.as_ref())?;
    let page_size = match request.page_size as usize {
        0 => limits::PAGE_RECORDS_DEFAULT,
        size if size <= limits::PAGE_RECORDS_MAX => size,
        _ => {
            let message = format!("must be 1..{}", limits::PAGE_RECORDS_MAX);
            return Err(RpcError::field("page_size", message));
        }
    };
    let (cluster_id, partitions) = (node.engine.cluster_id(), node.engine.partition_count());
    let filter_hash = xxhash_rust::xxh3::xxh3_64(&filter.encode_to_vec());
    let mut at = match request.page_token.is_empty() {
        true => PagePosition {
            revisions: pin(node, &demand, Priority::Many).await?,
            filter_hash,
            partition: 0,
            after_slot: None,
        },
        false => token::open_page(&request.page_token, &cluster_id, partitions, filter_hash)?,
    };
    let mut page = Page {
        points: Vec::new(),
        instances: Vec::new(),
        next_page_token: String::new(),
        resume_token: Vec::new(),
    };
    let wanted = (&filter, &compiled);
    let finished = fill(node, wanted, page_size, &mut at, &mut page).await?;
    match finished {
        true => page.resume_token = token::resume(&cluster_id, &at.revisions),
        false => page.next_page_token = token::page(&cluster_id, &at),
    }
    Ok(page)
}

/// Fills a page from its position on; says whether it is the last.
async fn fill(
    node: &Node,
    (filter, compiled): (&api::Filter, &CompiledFilter),
    page_size: usize,
    at: &mut PagePosition,
    page: &mut Page,
) -> Result<bool, RpcError> {
    let mut bytes_left = limits::PAGE_BYTES_MAX;
    while at.partition < node.engine.partition_count() {
        let revision = at.revisions[at.partition as usize];
        let position = ListPosition { revision: Some(revision), after_slot: at.after_slot };
        let limit = page_size - page.instances.len();
        let question = question::Page {
            filter,
            compiled,
            position,
            records_max: limit,
            bytes_max: bytes_left,
        };
        let (point, list) = read(node, at.partition, Freshness::Local, &question).await?;
        // The header shows the state of the page, not that of the moment.
        let point = ReadPoint { revision, ..point };
        let list = list.map_err(|_| token::page_expired())?;
        page.points.push((at.partition, point));
        let bytes: usize = list.instances.iter().map(|instance| instance.record.len()).sum();
        bytes_left = bytes_left.saturating_sub(bytes);
        page.instances.extend(list.instances);
        match list.next {
            Some(slot) => {
                at.after_slot = Some(slot);
                return Ok(false);
            }
            None => {
                at.partition += 1;
                at.after_slot = None;
            }
        }
        let full = page.instances.len() >= page_size || bytes_left == 0;
        if full && at.partition < node.engine.partition_count() {
            return Ok(false);
        }
    }
    Ok(true)
}
