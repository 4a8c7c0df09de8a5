//! Where a partition's work is done: here, or at the node that leads it.
//!
//! Any node takes any request. What only a leader can do goes there in one step: a node that is
//! asked by another one never asks a third, it says who leads instead.

pub mod changes;
mod convert;
pub mod copy;
pub mod question;
mod remote;

pub use convert::{answered, asked, refused};

use crate::limits;
use crate::node::Node;
use crate::runtime;
use crate::status::RpcError;
use agni_core::proto::api::Capacity;
use agni_core::proto::node::ask_request::Work as Asked;
use agni_core::proto::node::renew_leases::Lease;
use agni_core::proto::node::{Command, ReadDone, RenewLeases};
use agni_core::raft::work::{Answer, Refuse, Work};
use agni_core::system;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// What came back from wherever the work was done.
#[derive(Debug)]
pub enum Done {
    /// The engine's answer.
    Engine(Answer),
    /// What was read.
    Read(ReadDone),
}

/// Why an attempt led to nothing.
#[derive(Debug)]
pub enum Failure {
    /// A node said no.
    Refused(Refuse),
    /// A node didn't answer; whether the question had arrived there.
    Unreachable {
        /// It may have.
        maybe_arrived: bool,
    },
}

/// Who leads a partition, as far as this node knows; 0 for nobody.
pub fn leader(node: &Node, partition: u32) -> u64 {
    match node.engine.holds(partition) {
        true => node.engine.leader_of(partition),
        false => node.hints.get(partition),
    }
}

/// Whether another node may do what this one refused.
pub fn goes_elsewhere(node: &Node, refuse: Refuse) -> bool {
    let by_role =
        matches!(refuse, Refuse::NotLeader { .. } | Refuse::NotReady | Refuse::StalenessExceeded);
    by_role && !node.engine.is_alone()
}

/// Has a partition's leader write something. The first attempt is under way when this returns,
/// if it is made here: several writes of one request travel together.
pub fn write(node: &Node, partition: u32, command: Command) -> Going {
    if node.engine.is_alone() {
        return Going::here(partition, Work::Write(command), None);
    }
    let leads_here = leader(node, partition) == node.engine.node_id();
    let first = leads_here.then(|| Work::Write(command.clone()));
    Going::maybe_here(partition, first, Asked::Write(command))
}

/// Has a partition's leader extend leases; under way as with `write`.
pub fn renew(node: &Node, partition: u32, leases: Vec<(u64, Option<Capacity>)>) -> Going {
    if node.engine.is_alone() {
        return Going::here(partition, Work::Renew(leases), None);
    }
    let leads_here = leader(node, partition) == node.engine.node_id();
    let first = leads_here.then(|| Work::Renew(leases.clone()));
    let lease = |(lease_id, free)| Lease { lease_id, free };
    let leases = leases.into_iter().map(lease).collect();
    Going::maybe_here(partition, first, Asked::Renew(RenewLeases { leases }))
}

/// Work on its way to a partition's leader.
pub struct Going {
    partition: u32,
    begun: Instant,
    pending: Option<runtime::Pending>,
    /// What this node refuses before it has begun can be tried elsewhere, so it is kept.
    kept: Option<Asked>,
}

impl Going {
    fn here(partition: u32, work: Work, kept: Option<Asked>) -> Self {
        Going {
            partition,
            begun: Instant::now(),
            pending: Some(runtime::ask(partition, work)),
            kept,
        }
    }

    fn maybe_here(partition: u32, first: Option<Work>, kept: Asked) -> Self {
        match first {
            Some(work) => Going::here(partition, work, Some(kept)),
            None => Going { partition, begun: Instant::now(), pending: None, kept: Some(kept) },
        }
    }

    /// Its answer.
    ///
    /// # Errors
    /// When no leader could be reached, or the outcome isn't known.
    pub async fn answer(self, node: &Node) -> Result<Answer, RpcError> {
        if let Some(pending) = self.pending {
            match (pending.await, &self.kept) {
                (Answer::Refused(refuse), Some(_)) if goes_elsewhere(node, refuse) => {}
                (answer, _) => return Ok(answer),
            }
        }
        let Some(work) = self.kept else { return Err(RpcError::outcome_unknown()) };
        // Every request's future has room for this: a box keeps that small.
        match Box::pin(ask_since(node, self.partition, work, self.begun)).await? {
            Done::Engine(answer) => Ok(answer),
            Done::Read(_) => Err(unexpected()),
        }
    }
}

/// Has a partition's leader do something, looking for it as long as it takes and is bearable.
///
/// # Errors
/// When no leader could be reached, or the outcome isn't known.
pub async fn ask(node: &Node, partition: u32, work: Asked) -> Result<Done, RpcError> {
    ask_since(node, partition, work, Instant::now()).await
}

/// The same for somebody who has waited since `begun`.
async fn ask_since(
    node: &Node,
    partition: u32,
    work: Asked,
    begun: Instant,
) -> Result<Done, RpcError> {
    let longest = Duration::from_millis(limits::ROUTE_WAIT_MS_MAX);
    let repeatable = !matches!(work, Asked::Write(_));
    let mut pause = Duration::from_millis(limits::ROUTE_PAUSE_MS_MIN);
    let (mut redirects, mut turn) = (0, 0_usize);
    loop {
        let left = longest.saturating_sub(begun.elapsed());
        if left.is_zero() || node.is_stopping() {
            return Err(RpcError::no_leader(partition, begun.elapsed().as_millis() as u64));
        }
        let limit = match repeatable {
            true => left,
            false => left.max(Duration::from_millis(limits::ROUTE_WRITE_MS_MIN)),
        };
        let target = match repeatable || !node.engine.holds(partition) {
            true => target(node, partition, turn),
            // A replica learns of a leader as soon as there is one. What is sent on a guess to
            // somebody who doesn't answer can't be refused any more: nobody knows what came of it.
            false => Some(leader(node, partition)).filter(|id| *id != 0),
        };
        let attempt = match target {
            None => Err(Failure::Refused(Refuse::NotLeader { leader: 0 })),
            Some(id) if id == node.engine.node_id() => here(node, partition, &work).await,
            Some(id) => elsewhere(node, id, partition, &work, limit).await,
        };
        let failure = match attempt {
            Ok(done) => {
                node.hints.set(partition, target.unwrap_or(0));
                return Ok(done);
            }
            Err(failure) => failure,
        };
        match failure {
            Failure::Refused(Refuse::NotLeader { leader }) => {
                let is_news = leader != 0 && Some(leader) != target;
                node.hints.set(partition, if is_news { leader } else { 0 });
                if is_news && redirects < limits::ROUTE_REDIRECTS_MAX {
                    redirects += 1;
                    continue;
                }
            }
            Failure::Refused(Refuse::Unknown { .. })
            | Failure::Unreachable { maybe_arrived: true }
                if !repeatable =>
            {
                return Err(RpcError::outcome_unknown());
            }
            Failure::Refused(
                Refuse::Unknown { .. }
                | Refuse::NotReady
                | Refuse::ShuttingDown
                | Refuse::StalenessExceeded,
            )
            | Failure::Unreachable { .. } => node.hints.set(partition, 0),
            Failure::Refused(refuse) => return Err(RpcError::refused(refuse)),
        }
        (redirects, turn) = (0, turn + 1);
        tokio::time::sleep(pause.min(longest.saturating_sub(begun.elapsed()))).await;
        pause = (pause * 2).min(Duration::from_millis(limits::ROUTE_PAUSE_MS_MAX));
    }
}

/// Whom to ask: the leader, or one of those who should know it, another one each turn.
fn target(node: &Node, partition: u32, turn: usize) -> Option<u64> {
    let known = leader(node, partition);
    if known != 0 {
        return Some(known);
    }
    let state = node.engine.system_state();
    let placement = system::placement(&state, partition)?;
    let reported = placement.reported.as_ref().map_or(&[][..], |replicas| &replicas.voters);
    let me = node.engine.node_id();
    let others: Vec<u64> = reported.iter().copied().filter(|id| *id != me).collect();
    others.get(turn % others.len().max(1)).copied()
}

async fn elsewhere(
    node: &Node,
    id: u64,
    partition: u32,
    work: &Asked,
    limit: Duration,
) -> Result<Done, Failure> {
    node.metrics.forwarded.fetch_add(1, Relaxed);
    let answer = remote::ask(node, id, partition, work, limit).await;
    if answer.is_err() {
        node.metrics.forward_failures.fetch_add(1, Relaxed);
    }
    answer
}

async fn here(node: &Node, partition: u32, work: &Asked) -> Result<Done, Failure> {
    match perform(node, partition, work.clone()).await {
        Ok(done) => Ok(done),
        Err(refuse) => Err(Failure::Refused(refuse)),
    }
}

/// Does work on this node, for a client of its own or for another node.
///
/// # Errors
/// Says why this node can't.
pub async fn perform(node: &Node, partition: u32, work: Asked) -> Result<Done, Refuse> {
    let work = match work {
        Asked::Read(query) => {
            return Ok(Done::Read(question::answer(node, partition, query).await?));
        }
        other => asked(other),
    };
    match runtime::ask(partition, work).await {
        Answer::Refused(refuse) => Err(refuse),
        answer => Ok(Done::Engine(answer)),
    }
}

fn unexpected() -> RpcError {
    use crate::status::Code;
    RpcError::new(Code::Internal, "INTERNAL", "the engine gave an answer to another question")
}
