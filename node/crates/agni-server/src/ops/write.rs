//! Writes and renewals: checked, sent to their partition, answered once durable.

use crate::limits;
use crate::node::{Node, unix_ms};
use crate::route::{self, Going};
use crate::status::{Code, RpcError};
use agni_core::engine::ReadPoint;
use agni_core::key::KeyRef;
use agni_core::proto::api::{self, write_operation, write_result};
use agni_core::proto::node::{Command, Delete, Drain, Patch, Put, command::Operation};
use agni_core::raft::work::Answer;
use agni_core::store::{Outcome, Refusal};
use agni_core::validate;
use bytes::Bytes;
use futures_util::future::join_all;
use prost::Message;
use std::collections::BTreeMap;

/// Bits of a lease id below its partition.
const LEASE_PARTITION_SHIFT: u32 = 53;

/// A write on its way.
struct Sent {
    key: api::Key,
    partition: u32,
    draining: bool,
    writing: Going,
}

/// A write that was answered.
struct Written {
    key: api::Key,
    partition: u32,
    outcome: Outcome,
    point: ReadPoint,
    next_renewal_ms: i64,
}

fn send(node: &Node, key: api::Key, operation: Operation) -> Sent {
    let partition = node.engine.partition_of(&KeyRef::of(&key));
    let draining = matches!(operation, Operation::Drain(_));
    let command = Command { proposed_unix_ms: unix_ms(), operation: Some(operation) };
    Sent { key, partition, draining, writing: route::write(node, partition, command) }
}

impl Sent {
    async fn answer(self, node: &Node) -> Result<Written, RpcError> {
        let Sent { key, partition, draining, writing } = self;
        match writing.answer(node).await? {
            Answer::Written {
                outcome: Outcome::Refused(refusal), term, store_revision, ..
            } => {
                // Asking something that isn't there to go is no fault.
                if draining && matches!(refusal, Refusal::NotFound) {
                    let point = ReadPoint { revision: store_revision, term, age_ms: 0 };
                    let outcome = Outcome::Deleted { revision: 0, existed: false };
                    return Ok(Written { key, partition, outcome, point, next_renewal_ms: 0 });
                }
                Err(RpcError::refusal(refusal, &key))
            }
            Answer::Written { outcome, term, store_revision, next_renewal_ms } => {
                let point = ReadPoint { revision: store_revision, term, age_ms: 0 };
                Ok(Written { key, partition, outcome, point, next_renewal_ms })
            }
            Answer::Refused(refuse) => Err(RpcError::refused(refuse)),
            _ => Err(unexpected()),
        }
    }
}

fn unexpected() -> RpcError {
    RpcError::new(Code::Internal, "INTERNAL", "the engine gave an answer to another question")
}

fn send_register(node: &Node, request: api::RegisterRequest) -> Result<Sent, RpcError> {
    let key = validate::validate_register(&request)?;
    let spec = request.spec.unwrap_or_default();
    let put = Put {
        key: Some(key.clone()),
        spec: Bytes::from(spec.encode_to_vec()),
        ttl_ms: request.ttl_ms,
        incarnation: request.incarnation,
        expected_revision: request.expected_revision,
    };
    Ok(send(node, key, Operation::Put(put)))
}

fn send_update(node: &Node, request: api::UpdateRequest) -> Result<Sent, RpcError> {
    let key = validate::validate_update(&request)?;
    let paths = request.update_mask.map(|mask| mask.paths).unwrap_or_default();
    if paths.len() > limits::MASK_PATHS_MAX {
        let message = format!("must be at most {} paths", limits::MASK_PATHS_MAX);
        return Err(RpcError::field("update_mask", message));
    }
    let spec = request.spec.unwrap_or_default();
    let patch = Patch {
        key: Some(key.clone()),
        spec: Bytes::from(spec.encode_to_vec()),
        paths,
        incarnation: request.incarnation,
        expected_revision: request.expected_revision,
        keeps_address: true,
    };
    Ok(send(node, key, Operation::Patch(patch)))
}

fn send_deregister(node: &Node, request: api::DeregisterRequest) -> Result<Sent, RpcError> {
    let key = validate::validate_deregister(&request)?;
    let operation = match request.drain_ms {
        0 => Operation::Delete(Delete {
            key: Some(key.clone()),
            incarnation: request.incarnation,
            expected_revision: request.expected_revision,
        }),
        drain_ms => Operation::Drain(Drain {
            key: Some(key.clone()),
            incarnation: request.incarnation,
            expected_revision: request.expected_revision,
            drain_ms,
            successor: request.successor,
            deadline_unix_ms: unix_ms() + drain_ms,
        }),
    };
    Ok(send(node, key, operation))
}

fn registered(node: &Node, written: Written) -> Result<api::RegisterResponse, RpcError> {
    let header = Some(node.header(written.partition, written.point).message());
    let Outcome::Put { revision, create_revision, lease_id, ttl_ms, incarnation, created } =
        written.outcome
    else {
        return Err(unexpected());
    };
    Ok(api::RegisterResponse {
        header,
        key: Some(written.key),
        revision,
        create_revision,
        lease_id,
        ttl_ms,
        next_renewal_ms: written.next_renewal_ms,
        created,
        incarnation,
    })
}

fn updated(node: &Node, written: Written) -> Result<api::UpdateResponse, RpcError> {
    let header = Some(node.header(written.partition, written.point).message());
    match written.outcome {
        Outcome::Patched { revision } => Ok(api::UpdateResponse { header, revision }),
        _ => Err(unexpected()),
    }
}

fn deregistered(node: &Node, written: Written) -> Result<api::DeregisterResponse, RpcError> {
    let header = Some(node.header(written.partition, written.point).message());
    let (revision, existed) = match written.outcome {
        Outcome::Deleted { revision, existed } => (if existed { revision } else { 0 }, existed),
        Outcome::Draining { revision } => (revision, true),
        _ => return Err(unexpected()),
    };
    Ok(api::DeregisterResponse { header, revision, existed })
}

/// Creates a record or replaces its spec.
pub async fn register(
    node: &Node,
    request: api::RegisterRequest,
) -> Result<api::RegisterResponse, RpcError> {
    let sent = send_register(node, request)?;
    registered(node, sent.answer(node).await?)
}

/// Changes some fields of a record.
pub async fn update(
    node: &Node,
    request: api::UpdateRequest,
) -> Result<api::UpdateResponse, RpcError> {
    let sent = send_update(node, request)?;
    updated(node, sent.answer(node).await?)
}

/// Removes a record, at once or after a time of draining.
pub async fn deregister(
    node: &Node,
    request: api::DeregisterRequest,
) -> Result<api::DeregisterResponse, RpcError> {
    let sent = send_deregister(node, request)?;
    deregistered(node, sent.answer(node).await?)
}

enum OperationKind {
    Register,
    Update,
    Deregister,
}

/// Several writes: all are sent before the first answer is waited for.
pub async fn batch(
    node: &Node,
    request: api::BatchRequest,
) -> Result<api::BatchResponse, RpcError> {
    let count = request.operations.len();
    if !(1..=limits::BATCH_OPERATIONS_MAX).contains(&count) {
        let message =
            format!("has {count} writes, 1..{} are allowed", limits::BATCH_OPERATIONS_MAX);
        return Err(RpcError::field("operations", message));
    }
    let mut sent = Vec::with_capacity(count);
    for operation in request.operations {
        use write_operation::Operation as O;
        sent.push(match operation.operation {
            Some(O::Register(r)) => send_register(node, r).map(|s| (OperationKind::Register, s)),
            Some(O::Update(r)) => send_update(node, r).map(|s| (OperationKind::Update, s)),
            Some(O::Deregister(r)) => {
                send_deregister(node, r).map(|s| (OperationKind::Deregister, s))
            }
            None => Err(RpcError::field("operations", "has one that says not what to do")),
        });
    }
    let answers = sent.into_iter().map(|sent| async {
        let (kind, sent) = sent?;
        sent.answer(node).await.and_then(|written| result_of(node, kind, written))
    });
    let result = |answer: Result<_, RpcError>| {
        let result = answer.unwrap_or_else(|e| write_result::Result::Error(e.write_error()));
        api::WriteResult { result: Some(result) }
    };
    let results = join_all(answers).await.into_iter().map(result).collect();
    Ok(api::BatchResponse { results })
}

fn result_of(
    node: &Node,
    kind: OperationKind,
    written: Written,
) -> Result<write_result::Result, RpcError> {
    Ok(match kind {
        OperationKind::Register => write_result::Result::Register(registered(node, written)?),
        OperationKind::Update => write_result::Result::Update(updated(node, written)?),
        OperationKind::Deregister => write_result::Result::Deregister(deregistered(node, written)?),
    })
}

/// Leases of one partition, with the load that came with them.
type Leases = Vec<(u64, Option<api::Capacity>)>;

fn leases_by_partition(
    node: &Node,
    request: &api::RenewRequest,
) -> Result<(BTreeMap<u32, Leases>, Vec<u64>), RpcError> {
    validate::validate_renew(request)?;
    let mut loads: BTreeMap<u64, api::Capacity> =
        request.loads.iter().filter_map(|load| Some((load.lease_id, load.free?))).collect();
    let (mut by_partition, mut lost) = (BTreeMap::<u32, Leases>::new(), Vec::new());
    for lease_id in &request.lease_ids {
        let partition = (lease_id >> LEASE_PARTITION_SHIFT) as u32;
        if *lease_id == 0 || partition >= node.engine.partition_count() {
            lost.push(*lease_id);
            continue;
        }
        // A lease named twice is renewed twice; its load counts once.
        by_partition.entry(partition).or_default().push((*lease_id, loads.remove(lease_id)));
    }
    match loads.first_key_value() {
        Some((lease_id, _)) => {
            let message = format!("has {lease_id}, which is not among lease_ids");
            Err(RpcError::field("loads.lease_id", message))
        }
        None => Ok((by_partition, lost)),
    }
}

/// Extends leases.
pub async fn renew(
    node: &Node,
    request: api::RenewRequest,
) -> Result<api::RenewResponse, RpcError> {
    let (by_partition, mut lost) = leases_by_partition(node, &request)?;
    let asked = by_partition.into_iter().map(|(partition, leases)| {
        let renewal = route::renew(node, partition, leases);
        renewal.answer(node)
    });
    // All are on their way before the first is waited for.
    let (mut renewed, mut next_renewal_ms) = (0, i64::MAX);
    for answer in join_all(asked).await {
        match answer? {
            Answer::Renewed { renewed: count, lost: gone, next_renewal_ms: next } => {
                renewed += count;
                lost.extend(gone);
                if count > 0 {
                    next_renewal_ms = next_renewal_ms.min(next);
                }
            }
            Answer::Refused(refuse) => return Err(RpcError::refused(refuse)),
            _ => return Err(unexpected()),
        }
    }
    if next_renewal_ms == i64::MAX {
        next_renewal_ms = agni_core::limits::RENEWAL_DEFAULT_MS;
    }
    Ok(api::RenewResponse { renewed, lost_lease_ids: lost, next_renewal_ms })
}
