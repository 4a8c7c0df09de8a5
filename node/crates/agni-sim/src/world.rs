//! A cluster, its clients and its misfortunes on one time line.

use crate::check::{Checked, Checker, Violation};
use crate::clients::{Clients, Mood, Request, Way};
use crate::clock::SimClock;
use crate::faults::Fault;
use crate::membership::Operator;
use crate::network::Network;
use crate::node::{Appending, CLUSTER_ID, NodeSettings, SimNode, Turn};
use crate::random::Random;
use crate::snapshots::Transfer;
use crate::watchers::{Place, Watchers};
use agni_core::clock::Clock as _;
use agni_core::proto::node::SystemState;
use agni_core::raft::core::Event;
use agni_core::raft::log_tail::TailLimits;
use agni_core::raft::state_check::StateNotice;
use agni_core::raft::work::{Answer, PeerMessage, Submission, Ticket, Work};
use agni_core::store::StoreLimits;
use agni_core::system::{self, Founder, SYSTEM_PARTITION};
use raft::eraftpb::MessageType;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What a run is like.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// How many nodes.
    pub nodes: usize,
    /// How many partitions.
    pub partitions: u32,
    /// How long faults go on, in microseconds.
    pub faults_us: u64,
    /// How long it is observed after the last one was healed, in microseconds.
    pub healed_us: u64,
    /// Whether leaders answer under their clock-bound lease.
    pub lease_reads: bool,
    /// Time between two comparisons of the replicas' states, in milliseconds, 0 for none; drawn
    /// where nothing is said.
    pub state_check_ms: Option<u64>,
    /// Whether replicas may differ for a while, if only they are equal at the end.
    pub may_differ: bool,
    /// Whether each event is printed.
    pub trace: bool,
}

impl Default for Scenario {
    fn default() -> Self {
        Scenario {
            nodes: 3,
            partitions: 2,
            faults_us: 25_000_000,
            healed_us: 25_000_000,
            lease_reads: true,
            state_check_ms: None,
            may_differ: false,
            trace: false,
        }
    }
}

/// What happens at a moment.
#[derive(Debug)]
pub enum What {
    /// A node's timer fires.
    Tick { node: usize, life: u64 },
    /// A message arrives.
    Deliver { from: usize, to: usize, message: PeerMessage },
    /// An append ends.
    Appended { node: usize, life: u64 },
    /// The snapshot thread of a node does a step.
    Work { node: usize, life: u64 },
    /// A piece of a snapshot is on its way.
    Piece(Box<Transfer>),
    /// The last piece of one has arrived.
    Arrived(Box<Transfer>),
    /// A sender learns how it ended.
    Sent { node: usize, life: u64, partition: u32, to: usize, ok: bool },
    /// A client does its next step.
    Client(usize),
    /// A watch takes what there is for it.
    Watch(usize),
    /// The operator does something.
    Operate,
    /// A dead node starts.
    Start(usize),
    /// A node stands still.
    Pause(usize),
    /// A paused node goes on.
    Resume(usize),
    /// A paused voter goes on, and hears no more of its leader.
    Awaken { leader: usize, voter: usize },
    /// A fault begins.
    Fault,
    /// The network, or one node's disk, is well again.
    Heal(Option<usize>),
    /// There is room on a node's disk again.
    MakeRoom(usize),
}

struct Item {
    at_us: u64,
    order: u64,
    what: What,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Item {}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.order).cmp(&(other.at_us, other.order))
    }
}

/// What a run did, for people who wonder whether it did anything.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Events on the time line.
    pub events: u64,
    /// Writes that were acknowledged.
    pub writes: u64,
    /// Linearizable reads that were answered.
    pub reads: u64,
    /// Of these, those under the clock-bound lease.
    pub lease_reads: u64,
    /// Reads that were answered with their age.
    pub stale_reads: u64,
    /// Removals and patches that were acknowledged.
    pub demands: u64,
    /// Writes whose demands were not met.
    pub demands_refused: u64,
    /// Renewals that were acknowledged.
    pub renewals: u64,
    /// Records that ran out.
    pub expired: u64,
    /// Faults.
    pub faults: u64,
    /// Highest term of any partition.
    pub term_max: u64,
    /// Snapshots that one node got from another.
    pub transfers: u64,
    /// What the operator asked for.
    pub orders: u64,
    /// Machines that ever ran.
    pub machines: u64,
    /// Of these, gone for ever.
    pub lost: u64,
    /// Events that watches were told of.
    pub watched: u64,
    /// Differences that they were told instead.
    pub differences: u64,
    /// Appends that a full disk refused.
    pub full: u64,
    /// Replicas that were found to be wrong and replaced.
    pub replaced: u64,
}

/// The whole world of a run.
pub struct World {
    pub(crate) scenario: Scenario,
    settings: NodeSettings,
    /// How much each node's clock gains or loses at most, in microseconds a second.
    pub(crate) drift_ppm_max: u64,
    /// What the cluster begins with.
    founding: Arc<SystemState>,
    pub(crate) now_us: u64,
    order: u64,
    queue: BinaryHeap<Reverse<Item>>,
    pub(crate) nodes: Vec<SimNode>,
    /// How long each node's disk takes for an append, at most.
    pub(crate) append_us_max: Vec<u64>,
    pub(crate) network: Network,
    pub(crate) random: Random,
    pub(crate) travel: Random,
    pub(crate) checker: Checker,
    pub(crate) clients: Clients,
    pub(crate) watchers: Watchers,
    pub(crate) operator: Operator,
    pub(crate) summary: Summary,
    /// The revisions that everybody must have reached at the end.
    pub(crate) settled: Vec<u64>,
    /// The terms that nobody may end any more.
    pub(crate) settled_terms: Vec<u64>,
    /// How far the system group had come when there was nothing more to say in it.
    pub(crate) settled_system: u64,
    pub(crate) mood: Mood,
    /// A leader, and the last voter that it sees.
    pub(crate) deserting: Option<(usize, usize)>,
}

/// An append on a disk that is well.
pub(crate) const APPEND_US: (u64, u64) = (100, 2_000);

/// What a bad clock gains or loses at most, in microseconds a second: two of them part by eight
/// percent, and the lease allows for ten.
const DRIFT_PPM_MAX: u64 = 40_000;

/// Small limits, so that in a short run logs are cut, snapshots needed and event logs outrun.
fn settings(seed: u64, scenario: &Scenario, random: &mut Random) -> NodeSettings {
    let Scenario { partitions, lease_reads, .. } = *scenario;
    let entries_max = random.between(5, 200);
    let tail =
        TailLimits { entries_max, catch_up_entries_max: entries_max + random.between(30, 300) };
    let store = StoreLimits {
        events_max: random.between(100, 800) as usize,
        tombstones_max: random.between(1, 100) as usize,
        ..StoreLimits::default()
    };
    let snapshot_wal_bytes = [4 << 10, 16 << 10, 64 << 10, u64::MAX][random.below(4) as usize];
    // Of the seed itself, so that what is drawn after it stays what it was.
    let state_check_ms = scenario.state_check_ms.unwrap_or(500 + seed % 2_500);
    NodeSettings { partitions, seed, lease_reads, store, tail, snapshot_wal_bytes, state_check_ms }
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, scenario: Scenario) -> Self {
        let mut random = Random::new(seed);
        let drift_ppm_max = if random.chance(300) { DRIFT_PPM_MAX } else { DRIFT_PPM_MAX / 8 };
        let nodes = (0..scenario.nodes).map(|position| {
            let clock = SimClock::any(drift_ppm_max, &mut random);
            SimNode::new(position as u64 + 1, clock)
        });
        let nodes: Vec<SimNode> = nodes.collect();
        let founder = |node: &SimNode| Founder {
            name: format!("node-{}", node.id),
            nonce: node.id.to_be_bytes().repeat(2),
            ..Founder::default()
        };
        let founders: Vec<Founder> = nodes.iter().map(founder).collect();
        let settings = settings(seed, &scenario, &mut random);
        let is_restless = random.chance(600);
        let replication = scenario.nodes as u32;
        let founding = system::found(CLUSTER_ID, scenario.partitions, replication, &founders);
        World {
            settings,
            drift_ppm_max,
            founding: Arc::new(founding),
            now_us: 0,
            order: 0,
            queue: BinaryHeap::new(),
            append_us_max: vec![APPEND_US.1; nodes.len()],
            nodes,
            network: Network::default(),
            travel: random.fork(),
            checker: Checker::new(scenario.partitions),
            clients: Clients::new(
                random.fork(),
                scenario.nodes,
                scenario.partitions,
                drift_ppm_max,
            ),
            watchers: Watchers::new(random.fork(), scenario.partitions),
            operator: Operator::new(random.fork(), is_restless, scenario.may_differ),
            summary: Summary::default(),
            settled: Vec::new(),
            settled_terms: Vec::new(),
            settled_system: 0,
            mood: Mood::Faulty,
            deserting: None,
            random,
            scenario,
        }
    }

    /// Lives through everything.
    pub fn run(mut self) -> Result<Summary, Violation> {
        for node in 0..self.nodes.len() {
            self.plan(0, What::Start(node));
        }
        for client in 0..self.clients.count() {
            self.plan(1_000_000 + client as u64 * 1_000, What::Client(client));
        }
        for watch in 0..self.watchers.count() {
            self.plan(1_000_000 + watch as u64 * 1_000, What::Watch(watch));
        }
        self.plan(3_000_000, What::Operate);
        self.plan(3_000_000, What::Fault);
        self.live_until(self.scenario.faults_us)?;
        self.heal_all()?;
        let healed_us = self.now_us;
        let end_us = healed_us + self.scenario.healed_us;
        let writable_us = healed_us + 5_000_000;
        self.live_until(writable_us)?;
        if let Err(mut violation) = self.clients.check_writable(healed_us, writable_us) {
            for group in 0..=self.scenario.partitions as usize {
                violation.message += &format!("; group {group}: {}", self.describe(group));
            }
            return Err(violation);
        }
        self.live_until(end_us - 4_000_000)?;
        self.settled_terms = self.terms();
        self.live_until(end_us - 2_000_000)?;
        self.mood = Mood::Quiet;
        self.live_until(end_us - 1_000_000)?;
        let partitions = 0..self.scenario.partitions as usize;
        self.settled = partitions.map(|p| self.checker.revision(p)).collect();
        self.settled_system = self.system_index();
        self.live_until(end_us)?;
        self.check_end()?;
        let seen = self.watchers.seen;
        (self.summary.watched, self.summary.differences) = (seen.events, seen.differences);
        self.summary.machines = self.nodes.len() as u64;
        self.summary.lost = self.nodes.iter().filter(|node| node.is_lost).count() as u64;
        Ok(self.summary)
    }

    pub(crate) fn plan(&mut self, in_us: u64, what: What) {
        self.order += 1;
        let item = Item { at_us: self.now_us + in_us, order: self.order, what };
        self.queue.push(Reverse(item));
    }

    fn live_until(&mut self, end_us: u64) -> Checked {
        while let Some(Reverse(item)) = self.queue.pop() {
            if item.at_us > end_us {
                self.queue.push(Reverse(item));
                break;
            }
            self.now_us = item.at_us;
            self.checker.now_us = item.at_us;
            for node in &self.nodes {
                node.clock.set(self.now_us);
            }
            self.summary.events += 1;
            if self.scenario.trace {
                eprintln!("{} {:?}", self.now_us, item.what);
            }
            self.happen(item.what)?;
        }
        self.now_us = end_us;
        Ok(())
    }

    fn happen(&mut self, what: What) -> Checked {
        let mut turn = Turn::default();
        match what {
            What::Tick { node, life } if self.nodes[node].lives == life => {
                self.plan(50_000, What::Tick { node, life });
                self.nodes[node].tick(&mut turn);
                self.turn(node, turn)
            }
            What::Appended { node, life } if self.nodes[node].lives == life => {
                if self.nodes[node].paused {
                    // The disk is done, but nobody looks.
                    self.plan(10_000, What::Appended { node, life });
                    return Ok(());
                }
                match self.nodes[node].appended(&mut turn) {
                    Appending::Done => {}
                    Appending::Full => {
                        self.summary.full += 1;
                        self.plan(100_000, What::Appended { node, life });
                    }
                    Appending::Failed(error) => {
                        if self.scenario.trace {
                            eprintln!("{} node {node} ends: {error}", self.now_us);
                        }
                        self.kill(node, false);
                        self.plan(500_000, What::Start(node));
                    }
                }
                self.turn(node, turn)
            }
            What::Work { node, life } if self.nodes[node].lives == life => {
                match self.nodes[node].paused {
                    true => self.plan(10_000, What::Work { node, life }),
                    false => self.nodes[node].work(&mut turn),
                }
                self.turn(node, turn)
            }
            What::Piece(transfer) => {
                self.piece(transfer);
                Ok(())
            }
            What::Arrived(transfer) => {
                self.arrived(&transfer);
                if self.travel.chance(self.network.twice_permille) {
                    let in_us = self.travel.between(1_000, 1_000_000);
                    self.plan(in_us, What::Arrived(transfer));
                }
                Ok(())
            }
            What::Sent { node, life, partition, to, ok } => {
                self.sent(node, life, partition, to, ok)
            }
            What::Watch(watch) => self.watch(watch),
            What::Operate => self.operate(),
            What::MakeRoom(node) => {
                self.nodes[node].disk.make_room();
                Ok(())
            }
            What::Tick { .. } | What::Appended { .. } | What::Work { .. } => Ok(()),
            What::Deliver { from, to, message } => {
                self.desert(to, &message)?;
                if self.nodes[to].life.is_none() {
                    let id = self.nodes[to].id;
                    self.nodes[from].event(Event::Unreachable(id), &mut turn);
                    return self.turn(from, turn);
                }
                self.nodes[to].event(Event::Messages(vec![message]), &mut turn);
                self.turn(to, turn)
            }
            What::Client(client) => self.client(client),
            What::Start(node) => self.start(node),
            What::Pause(node) => {
                self.pause(node);
                Ok(())
            }
            What::Awaken { leader, voter } => {
                self.network.cut(leader, voter);
                self.happen(What::Resume(voter))
            }
            What::Resume(node) => {
                if self.nodes[node].paused {
                    self.nodes[node].resume(&mut turn);
                }
                self.turn(node, turn)
            }
            What::Fault => self.fault(),
            What::Heal(None) => {
                self.deserting = None;
                self.network.heal();
                Ok(())
            }
            What::Heal(Some(node)) => {
                self.append_us_max[node] = APPEND_US.1;
                Ok(())
            }
        }
    }

    /// Carries out what a node's turn led to, after looking at the node.
    pub(crate) fn turn(&mut self, node: usize, turn: Turn) -> Checked {
        self.observe(node)?;
        for message in turn.messages {
            let to = message.message.to as usize - 1;
            if to >= self.nodes.len() {
                // A member whose machine was never switched on.
                continue;
            }
            for in_us in self.network.arrivals(node, to, &mut self.travel) {
                self.plan(in_us, What::Deliver { from: node, to, message: message.clone() });
            }
        }
        self.notice(node, turn.notices)?;
        if turn.append_begun {
            let in_us = self.travel.between(APPEND_US.0, self.append_us_max[node] + 1);
            let life = self.nodes[node].lives;
            self.plan(in_us, What::Appended { node, life });
        }
        if turn.work_begun {
            self.plan_work(node);
        }
        for transfer in turn.transfers {
            self.send_snapshot(node, transfer);
        }
        for (ticket, answer) in turn.answers {
            self.answer(node, ticket, answer)?;
        }
        Ok(())
    }

    /// A node says what came of a comparison of states: they must not differ.
    fn notice(&mut self, node: usize, notices: Vec<StateNotice>) -> Checked {
        for notice in notices {
            if self.scenario.trace {
                eprintln!("{} node {node}: {notice:?}", self.now_us);
            }
            let is_replaced = matches!(notice, StateNotice::IsReplaced { .. });
            self.summary.replaced += u64::from(is_replaced);
            if !self.scenario.may_differ {
                let message = format!("node {} says: {notice:?}", self.nodes[node].id);
                return Err(Violation { invariant: "I12", message });
            }
        }
        Ok(())
    }

    /// The snapshot thread of a node has something to do.
    pub(crate) fn plan_work(&mut self, node: usize) {
        let in_us = self.travel.between(200, 10_000);
        let life = self.nodes[node].lives;
        self.plan(in_us, What::Work { node, life });
    }

    fn observe(&mut self, node: usize) -> Checked {
        let id = self.nodes[node].id;
        let Some(life) = &mut self.nodes[node].life else { return Ok(()) };
        for (partition, cell) in life.cells.iter().enumerate() {
            self.checker.leader(partition, id, cell)?;
            let store = cell.store.read();
            self.checker.stands_at(partition, id, &store, self.scenario.may_differ)?;
            let term = cell.term.load(Relaxed);
            self.summary.term_max = self.summary.term_max.max(term);
            if partition == self.scenario.partitions as usize {
                if let Some(state) = store.system() {
                    self.checker.cluster(id, state.clone())?;
                }
                continue;
            }
            let seen = &mut life.seen_revision[partition];
            if *seen == store.revision() {
                continue;
            }
            let new = store.revision().checked_sub(*seen);
            let after = |revision| store.events_after(revision, usize::MAX).ok();
            // A log that is wrong about its beginning, or says something twice, is for the watches
            // to find.
            let events = after(*seen).filter(|events| Some(events.len() as u64) >= new);
            match events.or_else(|| after(0)).filter(|_| new.is_some()) {
                Some(events) => {
                    for event in events.filter(|event| event.revision > *seen) {
                        let was = self.checker.revision(partition);
                        self.checker.applied(partition, id, event, self.now_us)?;
                        let is_new = self.checker.revision(partition) > was;
                        let expired = event.record.is_none()
                            && event.kind == agni_core::proto::api::EventType::Expired;
                        self.summary.expired += u64::from(is_new && expired);
                    }
                }
                // It came as a snapshot, or was let go.
                None => self.checker.holds(partition, id, &store)?,
            }
            *seen = store.revision();
        }
        Ok(())
    }

    pub(crate) fn start(&mut self, node: usize) -> Checked {
        if self.nodes[node].life.is_some() || self.nodes[node].is_lost {
            return Ok(());
        }
        let is_founder = node < self.scenario.nodes;
        let founding = is_founder.then_some(&self.founding);
        match self.nodes[node].start(&self.settings, founding) {
            Ok(()) => {}
            Err(None) => {
                // Its disk is full.
                self.plan(500_000, What::Start(node));
                return Ok(());
            }
            Err(Some(message)) => return Err(Violation { invariant: "I1", message }),
        }
        let life = self.nodes[node].lives;
        self.plan(1_000, What::Tick { node, life });
        self.observe(node)
    }

    /// Another machine, switched off.
    pub(crate) fn add_machine(&mut self, node: SimNode) {
        self.nodes.push(node);
        self.append_us_max.push(APPEND_US.1);
        self.clients.set_nodes(self.nodes.len());
    }

    /// A watch takes what there is for it, where a replica is.
    fn watch(&mut self, watch: usize) -> Checked {
        let pause_us = self.watchers.pause_us(self.mood);
        self.plan(pause_us, What::Watch(watch));
        let partition = self.watchers.partition(watch);
        let Some(state) = self.newest_state() else { return Ok(()) };
        let mut places = Vec::new();
        for (node, machine) in self.nodes.iter().enumerate() {
            let held = machine
                .life
                .as_ref()
                .is_some_and(|life| !machine.paused && life.cells[partition].is_held.load(Relaxed));
            if held && self.takes_part(node, &state) {
                places.push(Place { node, life: machine.lives });
            }
        }
        let Some(place) = self.watchers.place(watch, &places) else { return Ok(()) };
        let Some(life) = self.nodes[place.node].life.as_ref() else { return Ok(()) };
        let store = life.cells[partition].store.read();
        self.watchers.look(watch, &store, &mut self.checker)
    }

    /// A process is stopped, if there is one.
    pub(crate) fn pause(&mut self, node: usize) {
        self.nodes[node].paused |= self.nodes[node].life.is_some();
    }

    pub(crate) fn kill(&mut self, node: usize, power: bool) {
        self.nodes[node].kill(power, &mut self.random);
    }

    fn client(&mut self, client: usize) -> Checked {
        let floor = |partition| self.checker.floor(partition);
        let request = self.clients.next(client, self.now_us, self.mood, floor);
        let pause_us = self.clients.pause_us(client);
        self.plan(pause_us, What::Client(client));
        let Some(Request { node, ticket, partition, work, way }) = request else {
            return Ok(());
        };
        if self.scenario.trace {
            eprintln!("{} client {client} asks node {node}, {ticket}: {work:?}", self.now_us);
        }
        if self.nodes[node].life.is_none() {
            self.clients.refused(ticket, 0, self.now_us);
            return Ok(());
        }
        match way {
            Way::Stale => return self.stale_read(node, ticket),
            Way::Lease if self.lease_read(node, ticket)? => return Ok(()),
            Way::Lease | Way::Driver => {}
        }
        let mut turn = Turn::default();
        let submission = Submission { ticket, partition, work };
        self.nodes[node].submit(submission, &mut turn);
        self.turn(node, turn)
    }

    /// Reads at once where the node leads for certain; answers whether it did.
    fn lease_read(&mut self, node: usize, ticket: Ticket) -> Result<bool, Violation> {
        let partition = self.clients.partition_of(ticket);
        let now_us = self.nodes[node].clock.boot_us();
        let Some(life) = self.nodes[node].life.as_ref() else { return Ok(false) };
        let cell = &life.cells[partition];
        cell.lease_is_used.store(true, Relaxed);
        let is_alone = cell.leads_alone();
        if self.nodes[node].paused || cell.read_as_leader(now_us).is_none() {
            return Ok(false);
        }
        // Who leads alone needs no lease.
        self.summary.lease_reads += u64::from(!is_alone);
        self.answer(node, ticket, Answer::Readable)?;
        Ok(true)
    }

    /// Reads what a node has, if it knows how old that is at most.
    fn stale_read(&mut self, node: usize, ticket: Ticket) -> Checked {
        let partition = self.clients.partition_of(ticket);
        let machine = &self.nodes[node];
        let now_us = machine.clock.boot_us();
        let cell = machine.life.as_ref().map(|life| &life.cells[partition]);
        let Some(cell) = cell.filter(|_| !machine.paused) else { return Ok(()) };
        cell.age_is_used.store(true, Relaxed);
        let complete_us = match cell.read_as_leader(now_us) {
            Some(_) => Some(self.now_us),
            None => cell.age_us(now_us).map(|age_us| machine.clock.world_us(now_us - age_us)),
        };
        let Some(complete_us) = complete_us.filter(|_| cell.is_held.load(Relaxed)) else {
            self.clients.refused(ticket, 0, self.now_us);
            return Ok(());
        };
        let floor = self.checker.floor_at(partition, complete_us);
        self.clients.is_as_old_as(ticket, complete_us, floor);
        self.answer(node, ticket, Answer::Readable)
    }

    fn answer(&mut self, node: usize, ticket: Ticket, answer: Answer) -> Checked {
        let Some(life) = self.nodes[node].life.as_ref() else { return Ok(()) };
        let now_ms = life.lease_clock.lease_ms();
        if self.scenario.trace {
            eprintln!("{} node {node} answers {ticket}: {answer:?}", self.now_us);
        }
        let partition = self.clients.partition_of(ticket);
        let store = life.cells[partition].store.read();
        let outcome = (node, &*store, now_ms);
        self.clients.answered(
            ticket,
            answer,
            outcome,
            self.now_us,
            &mut self.checker,
            &mut self.summary,
        )
    }

    pub(crate) fn do_fault(&mut self, fault: Fault) -> Checked {
        self.summary.faults += 1;
        fault.begin(self)
    }

    fn fault(&mut self) -> Checked {
        if self.mood != Mood::Faulty {
            return Ok(());
        }
        let fault = Fault::draw(self);
        if self.scenario.trace {
            eprintln!("{} {fault:?}", self.now_us);
        }
        self.do_fault(fault)?;
        let in_us = self.random.between(200_000, 2_500_000);
        self.plan(in_us, What::Fault);
        Ok(())
    }

    /// The last voter that a leader sees restarts just when it is asked for its vote.
    fn desert(&mut self, to: usize, message: &PeerMessage) -> Checked {
        let asked = message.message.get_msg_type() == MessageType::MsgRequestPreVote;
        match self.deserting {
            Some((leader, restarted)) if restarted == to && asked => {
                self.deserting = None;
                self.network.cut(leader, restarted);
                self.network.cut(restarted, leader);
                self.kill(restarted, false);
                self.start(restarted)
            }
            _ => Ok(()),
        }
    }

    /// Asks a node for snapshots of all that it holds.
    pub(crate) fn snapshot(&mut self, node: usize) -> Checked {
        for partition in (0..self.scenario.partitions).chain([SYSTEM_PARTITION]) {
            let mut turn = Turn::default();
            let submission = Submission { ticket: 0, partition, work: Work::Snapshot };
            self.nodes[node].submit(submission, &mut turn);
            self.turn(node, turn)?;
        }
        Ok(())
    }

    /// A node that leads a group; the system group stands behind the partitions.
    pub(crate) fn leader(&self, partition: usize) -> Option<usize> {
        let leads = |node: &SimNode| {
            let cell = node.life.as_ref().map(|life| &life.cells[partition]);
            cell.is_some_and(|cell| cell.is_current.load(Relaxed))
        };
        self.nodes.iter().position(leads)
    }

    /// Asks a node to hand over all that it leads.
    pub(crate) fn transfer(&mut self, from: usize, to: usize) -> Checked {
        for partition in (0..self.scenario.partitions).chain([SYSTEM_PARTITION]) {
            let work = Work::Transfer { to: self.nodes[to].id };
            let mut turn = Turn::default();
            // Ticket 0 is nobody's.
            self.nodes[from].submit(Submission { ticket: 0, partition, work }, &mut turn);
            self.turn(from, turn)?;
        }
        Ok(())
    }
}
