//! Letting a node in: the leader of the system group writes it down for all. Any other member
//! says who leads, and the node asks there itself: whoever lets it in sees its certificate, and no
//! member can speak for another node.

use super::face::Face;
use super::links::Links;
use crate::limits;
use crate::runtime::ask as ask_engine;
use agni_core::engine::{Engine, Seed};
use agni_core::proto::node::command::Operation;
use agni_core::proto::node::system_command::Operation as SystemOperation;
use agni_core::proto::node::{
    AddMember, ClusterMember, Command, JoinRequest, JoinResponse, SystemCommand, UpdateMember,
};
use agni_core::raft::work::{Answer, Refuse, Work};
use agni_core::store::{Outcome, Refusal};
use agni_core::system::{self, SYSTEM_PARTITION};
use tonic::{Code, Status};

/// Asks whoever listens at an address to be let in.
///
/// # Errors
/// Says what stands against it.
pub async fn ask(face: &Face, address: &str) -> Result<Seed, String> {
    let known = face.engine().map(Engine::cluster_id).or(face.config.cluster_id);
    let cluster_id = known.map(Vec::from).unwrap_or_default();
    let request = JoinRequest { member: Some(face.member()), cluster_id: cluster_id.into() };
    let mut address = address.to_owned();
    for _ in 0..=limits::JOIN_HOPS_MAX {
        let mut client = face.client(&address, None).await?;
        let answer = crate::dial::answer(client.join(request.clone())).await?.into_inner();
        let JoinResponse { node_id, state, leader_address } = answer;
        if let Some(state) = state {
            return Ok(Seed { node_id, is_founding: false, state });
        }
        if leader_address.is_empty() {
            return Err("the answer lacks the cluster's state".to_owned());
        }
        address = leader_address;
    }
    Err("nobody leads the system group for certain, try again".to_owned())
}

/// Lets a node in, or says who can.
///
/// # Errors
/// As the one who asks should see it.
pub async fn admit(
    face: &Face,
    engine: &Engine,
    links: &Links,
    request: JoinRequest,
) -> Result<JoinResponse, Status> {
    let other = !request.cluster_id.is_empty() && request.cluster_id[..] != engine.cluster_id();
    if other {
        return Err(Status::failed_precondition("this is another cluster; look at the addresses"));
    }
    let leader = engine.leader_of(SYSTEM_PARTITION);
    if leader != engine.node_id() {
        let address = links.address(leader).ok_or_else(|| {
            Status::unavailable("nobody leads the system group at present, try again")
        })?;
        return Ok(JoinResponse { leader_address: address, ..JoinResponse::default() });
    }
    let member = request.member.ok_or_else(|| Status::invalid_argument("member is missing"))?;
    keep_the_living(face, engine, &member).await?;
    let add = AddMember { member: Some(member.clone()) };
    let node_id = write(SystemOperation::AddMember(add)).await?;
    let known = engine.system_state();
    let moved = system::member(&known, node_id).is_some_and(|known| {
        (&known.name, &known.client_address, &known.peer_address, &known.zone)
            != (&member.name, &member.client_address, &member.peer_address, &member.zone)
    });
    if moved {
        let update = UpdateMember {
            node_id,
            client_address: member.client_address,
            peer_address: member.peer_address,
            zone: member.zone,
            name: member.name,
        };
        write(SystemOperation::UpdateMember(update)).await?;
    }
    let state = engine.system_state().as_ref().clone();
    Ok(JoinResponse { node_id, state: Some(state), leader_address: String::new() })
}

/// A member of the same name is replaced only when its data is gone: two nodes that were given one
/// name by mistake must not push each other out.
async fn keep_the_living(
    face: &Face,
    engine: &Engine,
    newcomer: &ClusterMember,
) -> Result<(), Status> {
    let state = engine.system_state();
    let namesake = system::present(&state)
        .find(|known| known.name == newcomer.name && known.nonce != newcomer.nonce);
    let Some(known) = namesake else { return Ok(()) };
    let lives = known.node_id == engine.node_id()
        || face.greet(&known.peer_address).await.is_ok_and(|answer| answer.nonce == known.nonce);
    match lives {
        false => Ok(()),
        true => Err(Status::already_exists(format!(
            "the name {} belongs to node {} at {}, which is alive; use another name",
            known.name, known.node_id, known.peer_address
        ))),
    }
}

/// Replicates a change of the system state; answers the node that it was about.
async fn write(operation: SystemOperation) -> Result<u64, Status> {
    let system = SystemCommand { author_epoch: 0, operation: Some(operation) };
    let command = Command { proposed_unix_ms: 0, operation: Some(Operation::System(system)) };
    match ask_engine(SYSTEM_PARTITION, Work::Write(command)).await {
        Answer::Written { outcome: Outcome::System(outcome), .. } => Ok(outcome.node_id),
        Answer::Written { outcome: Outcome::Refused(Refusal::System(refusal)), .. } => {
            Err(Status::new(Code::FailedPrecondition, refusal.message))
        }
        Answer::Refused(Refuse::NotLeader { .. }) => {
            Err(Status::unavailable("the leader of the system group changed, try again"))
        }
        Answer::Refused(refuse) => {
            Err(Status::unavailable(format!("not possible now: {refuse:?}")))
        }
        _ => Err(Status::internal("unexpected answer")),
    }
}
