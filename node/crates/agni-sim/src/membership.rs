//! The operator: lets nodes in and out, says where partitions are wanted, and replaces machines
//! that are gone for ever. It only asks; what becomes of it, it sees in the system group's state.

use crate::check::{Checked, Violation};
use crate::clients::Mood;
use crate::clock::SimClock;
use crate::node::{SimNode, Turn};
use crate::random::Random;
use crate::world::{What, World};
use agni_core::proto::node::system_command::Operation;
use agni_core::proto::node::{
    AddMember, ClusterMember, Command, MemberState, RemoveMember, ReplicaSet, SetDraining,
    SetWanted, SystemCommand, SystemState, command,
};
use agni_core::raft::work::{Submission, Work};
use agni_core::system::{self, SYSTEM_PARTITION, takes_part};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Members at a time, at most.
const MEMBERS_MAX: usize = 6;
/// And at least, unless machines are lost.
const MEMBERS_MIN: usize = 3;

/// What the operator has in mind.
#[derive(Debug)]
pub struct Operator {
    random: Random,
    /// Whether it changes anything of its own accord.
    pub is_restless: bool,
    /// Whether it is content with one or two replicas. No machine is lost then: an order for fewer
    /// replicas may be under way unseen, and the lost one be half of what is left.
    pub is_frugal: bool,
    names: u64,
    /// A node that was asked for: its name and nonce.
    joining: Option<(String, Vec<u8>)>,
    /// A member that is to go.
    leaving: Option<u64>,
}

impl Operator {
    /// An operator with nothing to do yet. Where replicas may differ none is frugal: one or two
    /// have no majority that could settle it.
    pub fn new(mut random: Random, is_restless: bool, may_differ: bool) -> Self {
        let is_frugal = random.chance(400) && !may_differ;
        Operator { random, is_restless, is_frugal, names: 0, joining: None, leaving: None }
    }

    fn new_member(&mut self, name: Option<String>) -> Operation {
        if self.joining.is_none() {
            self.names += 1;
            let name = name.unwrap_or_else(|| format!("later-{}", self.names));
            self.joining = Some((name, format!("nonce-{:010}", self.names).into_bytes()));
        }
        let (name, nonce) = self.joining.clone().unwrap_or_default();
        let member = ClusterMember {
            peer_address: format!("{name}:1"),
            name,
            nonce: nonce.into(),
            ..ClusterMember::default()
        };
        Operation::AddMember(AddMember { member: Some(member) })
    }

    /// Some of these nodes, in any order.
    fn some(&mut self, mut nodes: Vec<u64>, count: usize) -> Vec<u64> {
        for position in (1..nodes.len()).rev() {
            let other = self.random.below(position as u64 + 1) as usize;
            nodes.swap(position, other);
        }
        nodes.truncate(count);
        nodes
    }

    fn is_enough(&self, nodes: &[u64]) -> bool {
        nodes.len() >= if self.is_frugal { 1 } else { MEMBERS_MIN }
    }

    /// Anything that may be done to a sound cluster.
    fn whim(&mut self, state: &SystemState, lost: &[u64]) -> Option<Operation> {
        let fit: Vec<u64> = system::present(state)
            .filter(|member| member.state() == MemberState::Active)
            .map(|member| member.node_id)
            .filter(|id| !lost.contains(id) && self.leaving != Some(*id))
            .collect();
        let present = system::present(state).count();
        match self.random.below(12) {
            0..=5 if !fit.is_empty() => {
                let partition = self.random.below(u64::from(state.partition_count)) as u32;
                let count = [3, 3, 3, 4, 5, 1, 2];
                let count = count[self.random.below(if self.is_frugal { 7 } else { 5 }) as usize];
                let version = state.partitions[partition as usize].wanted_version;
                let expected_version = self.random.chance(500).then_some(version);
                let nodes = self.some(fit, count);
                if !self.is_enough(&nodes) {
                    return None;
                }
                Some(Operation::SetWanted(SetWanted { partition, nodes, expected_version }))
            }
            6 | 7 if present < MEMBERS_MAX => Some(self.new_member(None)),
            8 | 9 if present > MEMBERS_MIN && self.leaving.is_none() => {
                self.leaving = self.some(fit, 1).first().copied();
                None
            }
            10 => {
                let all: Vec<u64> = system::present(state).map(|member| member.node_id).collect();
                let node_id = self.some(all, 1)[0];
                let drained = system::member(state, node_id)
                    .is_some_and(|member| member.state() == MemberState::Draining);
                let draining = !drained;
                Some(Operation::SetDraining(SetDraining { node_id, draining }))
            }
            _ => None,
        }
    }

    /// The next step of letting a member go: its partitions first.
    fn let_go(&mut self, state: &SystemState, lost: &[u64], leaving: u64) -> Option<Operation> {
        if !system::member(state, leaving).is_some_and(takes_part) {
            self.leaving = None;
            return None;
        }
        let Some(placement) = state.partitions.iter().find(|p| p.wanted.contains(&leaving)) else {
            return Some(Operation::RemoveMember(RemoveMember { node_id: leaving }));
        };
        let others = system::present(state).map(|member| member.node_id);
        let others: Vec<u64> = others
            .filter(|id| *id != leaving && !lost.contains(id) && !placement.wanted.contains(id))
            .collect();
        let successor = self.some(others, 1).first().copied();
        let nodes: Vec<u64> = placement
            .wanted
            .iter()
            .filter_map(|id| if *id == leaving { successor } else { Some(*id) })
            .collect();
        if !self.is_enough(&nodes) {
            self.leaving = None;
            return None;
        }
        let (partition, expected_version) = (placement.partition, Some(placement.wanted_version));
        Some(Operation::SetWanted(SetWanted { partition, nodes, expected_version }))
    }
}

impl World {
    /// The operator looks at the cluster, and does one thing.
    pub(crate) fn operate(&mut self) -> Checked {
        let pause_us = self.operator.random.between(150_000, 1_500_000);
        self.plan(pause_us, What::Operate);
        let Some(leader) = self.leader(self.scenario.partitions as usize) else { return Ok(()) };
        let life = self.nodes[leader].life.as_ref();
        let Some(state) = life.and_then(|life| life.system()) else { return Ok(()) };
        self.switch_on(&state);
        let Some(operation) = self.decide(&state) else { return Ok(()) };
        if self.scenario.trace {
            eprintln!("{} operator asks node {leader}: {operation:?}", self.now_us);
        }
        self.summary.orders += 1;
        let command = SystemCommand { author_epoch: 0, operation: Some(operation) };
        let operation = Some(command::Operation::System(command));
        let work = Work::Write(Command { proposed_unix_ms: 0, operation });
        let mut turn = Turn::default();
        // Ticket 0 is nobody's: the state will tell.
        let submission = Submission { ticket: 0, partition: SYSTEM_PARTITION, work };
        self.nodes[leader].submit(submission, &mut turn);
        self.turn(leader, turn)
    }

    /// Members whose machines have never run begin to.
    fn switch_on(&mut self, state: &SystemState) {
        let newest = state.members.iter().map(|member| member.node_id).max().unwrap_or(0);
        while (self.nodes.len() as u64) < newest {
            let id = self.nodes.len() as u64 + 1;
            let clock = SimClock::any(self.drift_ppm_max, &mut self.operator.random);
            clock.set(self.now_us);
            self.add_machine(SimNode::new(id, clock));
            self.plan(1_000, What::Start(id as usize - 1));
        }
        let nonce = self.operator.joining.as_ref().map(|(_, nonce)| nonce.clone());
        if state.members.iter().any(|member| Some(&member.nonce[..]) == nonce.as_deref()) {
            self.operator.joining = None;
        }
    }

    fn decide(&mut self, state: &SystemState) -> Option<Operation> {
        let lost: Vec<u64> = self.nodes.iter().filter(|n| n.is_lost).map(|n| n.id).collect();
        let gone = system::present(state).find(|member| lost.contains(&member.node_id));
        if let Some(gone) = gone {
            // Another machine takes its place, under its name.
            let other = self.operator.joining.as_ref().is_some_and(|(name, _)| *name != gone.name);
            if other {
                self.operator.joining = None;
            }
            return Some(self.operator.new_member(Some(gone.name.clone())));
        }
        if let Some(leaving) = self.operator.leaving {
            return self.operator.let_go(state, &lost, leaving);
        }
        if self.mood != Mood::Faulty || !self.operator.is_restless {
            return None;
        }
        self.operator.whim(state, &lost)
    }

    /// Whether a group is where it is wanted, as its leader and all who hold it see it.
    fn check_placed(&self, partition: usize, state: &SystemState) -> Result<(), String> {
        let voters = self.leader(partition).map(|leader| self.replicas(leader, partition).voters);
        let Some(current) = voters else { return Err("nobody leads it".into()) };
        let (mut voters, learners) = match state.partitions.get(partition) {
            Some(placement) => (placement.wanted.clone(), Vec::new()),
            None => system::wanted_system_replicas(state, &current),
        };
        voters.sort_unstable();
        let wanted = ReplicaSet { voters, learners, ..ReplicaSet::default() };
        for id in wanted.voters.iter().chain(&wanted.learners) {
            let node = *id as usize - 1;
            if self.nodes.get(node).is_none_or(|node| node.life.is_none()) {
                return Err(format!("node {id} is down"));
            }
            let there = self.replicas(node, partition);
            if there != wanted {
                return Err(format!("it is wanted at {wanted:?}, but node {id} sees {there:?}"));
            }
        }
        Ok(())
    }

    fn replicas(&self, node: usize, partition: usize) -> ReplicaSet {
        let life = self.nodes[node].life.as_ref();
        life.map(|life| life.replicas(partition)).unwrap_or_default()
    }

    /// Whether a machine may be lost for ever: nothing is on the move, and nothing was lost before
    /// that isn't made up for.
    pub(crate) fn may_lose(&self, node: usize) -> bool {
        let Some(state) = self.newest_state() else { return false };
        let present = |id: u64| system::member(&state, id).is_some_and(takes_part);
        let all_up = self.nodes.iter().all(|n| match n.is_lost {
            true => !present(n.id),
            false => n.life.is_some() || !present(n.id),
        });
        let groups = 0..=self.scenario.partitions as usize;
        let safe = |group: usize| {
            let voters = self.leader(group).map(|leader| self.replicas(leader, group).voters);
            self.check_placed(group, &state).is_ok() && voters.is_some_and(|v| v.len() >= 3)
        };
        all_up && present(self.nodes[node].id) && groups.clone().all(safe)
    }

    /// What the system group has come to, as far as any node knows.
    pub(crate) fn newest_state(&self) -> Option<Arc<SystemState>> {
        let states = self.nodes.iter().filter_map(|node| node.life.as_ref()?.system());
        let reported = |state: &SystemState| -> u64 {
            state.partitions.iter().map(|placement| placement.reported_index).sum()
        };
        states.max_by_key(|state| (state.version, reported(state)))
    }

    /// Whether a node is a member still.
    pub(crate) fn takes_part(&self, node: usize, state: &SystemState) -> bool {
        system::member(state, self.nodes[node].id).is_some_and(takes_part)
    }

    /// At the end every group is where it is wanted, and nowhere else.
    pub(crate) fn check_members(&self) -> Checked {
        let failed = |message: String| Err(Violation { invariant: "I27 placement", message });
        let Some(state) = self.newest_state() else { return failed("no system state".into()) };
        for partition in 0..=self.scenario.partitions as usize {
            if let Err(what) = self.check_placed(partition, &state) {
                return failed(format!("group {partition}: {what}; {}", self.describe(partition)));
            }
        }
        for placement in &state.partitions {
            if placement.reached_version != placement.wanted_version {
                return failed(format!("nobody says that it is reached: {placement:?}"));
            }
        }
        for (position, node) in self.nodes.iter().enumerate() {
            let Some(life) = node.life.as_ref().filter(|_| self.takes_part(position, &state))
            else {
                continue;
            };
            if life.system().is_none_or(|known| *known != *state) {
                let group = self.describe(self.scenario.partitions as usize);
                return failed(format!("node {} knows of an older cluster: {group}", node.id));
            }
            for placement in &state.partitions {
                let cell = &life.cells[placement.partition as usize];
                let wanted = placement.wanted.contains(&node.id);
                if cell.is_held.load(Relaxed) != wanted {
                    let (id, partition) = (node.id, placement.partition);
                    let what = format!("node {id} holds partition {partition}: {}", !wanted);
                    return failed(format!("{what}; {}", self.describe(partition as usize)));
                }
            }
        }
        Ok(())
    }
}
