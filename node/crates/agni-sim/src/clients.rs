//! Clients of the cluster: writers and readers, owners that keep their leases alive, and owners
//! that stop.

use crate::check::{Checked, Checker, Violation};
use crate::demands::{Demand, Hearsay};
use crate::random::Random;
use crate::world::Summary;
use agni_core::key::KeyRef;
use agni_core::proto::api::{Kind, Spec};
use agni_core::proto::node::{Command, Put, command::Operation};
use agni_core::raft::work::{Answer, Priority, Refuse, Ticket, Work};
use agni_core::store::{Outcome, Store};
use bytes::Bytes;
use prost::Message as _;
use std::collections::BTreeMap;

/// The leases' time to live, in milliseconds.
const TTL_MS: i64 = 4_000;
/// A dead record is gone that long after its promise ended, at the latest: twice its time to live
/// and a failover, and the mass-expiry guard's patience.
pub const ZOMBIE_US: u64 = 2 * TTL_MS as u64 * 1000 + 3_000_000;
/// A client that waits longer asks somebody else.
const PATIENCE_US: u64 = 400_000;
const KEYS: u64 = 6;

/// One request of a client.
#[derive(Debug)]
pub struct Request {
    /// The node that is asked.
    pub node: usize,
    /// Names the request.
    pub ticket: Ticket,
    /// The partition.
    pub partition: u32,
    /// What it is asked.
    pub work: Work,
    /// How it may be answered.
    pub way: Way,
}

/// Who may answer a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The driver.
    Driver,
    /// The node at once, under the clock-bound lease; else the driver.
    Lease,
    /// Any node at once, with the age of what it shows.
    Stale,
}

/// What the world is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Faults go on.
    Faulty,
    /// All is well.
    Healed,
    /// All is well, and nobody writes any more.
    Quiet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kindness {
    /// Writes and reads where it believes the leader to be.
    Worker,
    /// Writes and reads, and asks anybody: so somebody finds a new leader at once.
    Wanderer,
    /// Keeps its record alive.
    Keeper,
    /// Stops renewing after a while, and starts over with a new record.
    Quitter,
}

#[derive(Debug)]
struct Client {
    kindness: Kindness,
    busy: Option<(Ticket, u64)>,
    life: u64,
    lease: Option<u64>,
    renewals_left: u64,
    partition: usize,
    /// Nodes that were no help since the last one that was.
    misses: u32,
    /// Which node was tried last, while it looks for a leader.
    search: usize,
    /// Where it believes each partition's leader to be.
    leaders: Vec<usize>,
}

#[derive(Debug)]
struct Asked {
    client: usize,
    partition: usize,
    key: String,
    demand: Demand,
    way: Way,
    floor: u64,
    called_us: u64,
}

/// All clients.
#[derive(Debug)]
pub struct Clients {
    random: Random,
    nodes: usize,
    partitions: usize,
    clients: Vec<Client>,
    asked: BTreeMap<Ticket, Asked>,
    hearsay: Hearsay,
    next_ticket: Ticket,
    last_write_us: Vec<u64>,
    /// What the clocks may differ over a lease, in microseconds.
    drift_us: u64,
}

fn canonical(key: &str) -> KeyRef<'_> {
    KeyRef { namespace: "default", kind: Kind::Gateway, name: key }
}

fn key_bytes(key: &str) -> Bytes {
    canonical(key).to_message().encode_to_vec().into()
}

impl Clients {
    /// As many as make a run interesting.
    pub fn new(random: Random, nodes: usize, partitions: u32, drift_ppm_max: u64) -> Self {
        use Kindness::{Keeper, Quitter, Wanderer, Worker};
        let kinds = [Worker, Worker, Worker, Wanderer, Keeper, Keeper, Quitter, Quitter];
        let partitions = partitions as usize;
        let client = |(position, kindness)| Client {
            kindness,
            busy: None,
            life: 0,
            lease: None,
            misses: 0,
            search: 0,
            renewals_left: 0,
            partition: position % partitions,
            leaders: vec![position % nodes; partitions],
        };
        Clients {
            random,
            nodes,
            partitions,
            clients: kinds.into_iter().enumerate().map(client).collect(),
            asked: BTreeMap::new(),
            hearsay: Hearsay::default(),
            next_ticket: 0,
            last_write_us: vec![0; partitions],
            // A tenth of a percent of the time to live is rounded away.
            drift_us: TTL_MS as u64 * (drift_ppm_max + 1_000) / 1_000,
        }
    }

    /// There are so many machines now.
    pub fn set_nodes(&mut self, nodes: usize) {
        self.nodes = nodes;
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.clients.len()
    }

    /// How long a client waits before its next step.
    pub fn pause_us(&mut self, client: usize) -> u64 {
        match self.clients[client].kindness {
            Kindness::Worker | Kindness::Wanderer => self.random.between(2_000, 60_000),
            Kindness::Keeper if self.clients[client].misses > 0 => {
                self.random.between(10_000, 60_000)
            }
            _ => self.random.between(60_000, 250_000),
        }
    }

    /// The partition that a request is about.
    pub fn partition_of(&self, ticket: Ticket) -> usize {
        self.asked.get(&ticket).map_or(0, |asked| asked.partition)
    }

    /// A client's next request, if it has one to make.
    pub fn next(
        &mut self,
        client: usize,
        now_us: u64,
        mood: Mood,
        floor: impl Fn(usize) -> u64,
    ) -> Option<Request> {
        let works = matches!(self.clients[client].kindness, Kindness::Worker | Kindness::Wanderer);
        if mood == Mood::Quiet && works {
            return None;
        }
        if let Some((ticket, since_us)) = self.clients[client].busy {
            if now_us < since_us + PATIENCE_US {
                return None;
            }
            // It stays unknown; its answer may still come, and is then as true as any other.
            let partition = self.partition_of(ticket);
            self.missed(client, partition, 0);
            self.clients[client].busy = None;
        }
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let (key, partition, work, way) = match self.clients[client].kindness {
            Kindness::Worker | Kindness::Wanderer => self.work(ticket),
            Kindness::Keeper => self.keep(client, ticket),
            Kindness::Quitter => self.keep_for_a_while(client, ticket, mood == Mood::Faulty)?,
        };
        let (demand, floor) = (Demand::of(&work), floor(partition));
        let asked = Asked { client, partition, key, demand, way, floor, called_us: now_us };
        self.asked.insert(ticket, asked);
        self.clients[client].busy = Some((ticket, now_us));
        let node = match self.clients[client].kindness {
            _ if way == Way::Stale => self.random.below(self.nodes as u64) as usize,
            Kindness::Wanderer => self.random.below(self.nodes as u64) as usize,
            _ => self.clients[client].leaders[partition],
        };
        Some(Request { node, ticket, partition: partition as u32, work, way })
    }

    fn work(&mut self, ticket: Ticket) -> (String, usize, Work, Way) {
        let partition = self.random.below(self.partitions as u64) as usize;
        let key = format!("p{partition}-k{}", self.random.below(KEYS));
        match self.random.below(14) {
            0..=4 => {
                let work = put(&key, ticket, 0);
                (key, partition, work, Way::Driver)
            }
            5 | 6 => {
                let work = self.hearsay.demand(canonical(&key), &spec(ticket), &mut self.random);
                (key, partition, work, Way::Driver)
            }
            7..=10 => (key, partition, Work::Read(Priority::Register), Way::Lease),
            11 | 12 => (key, partition, Work::Read(Priority::Register), Way::Driver),
            _ => (key, partition, Work::Read(Priority::Register), Way::Stale),
        }
    }

    fn lease_key(&self, client: usize) -> String {
        format!("c{client}-{}", self.clients[client].life)
    }

    fn keep(&mut self, client: usize, ticket: Ticket) -> (String, usize, Work, Way) {
        let key = self.lease_key(client);
        let partition = self.clients[client].partition;
        let work = match self.clients[client].lease {
            Some(lease) => Work::Renew(vec![(lease, None)]),
            None => put(&key, ticket, TTL_MS),
        };
        (key, partition, work, Way::Driver)
    }

    fn keep_for_a_while(
        &mut self,
        client: usize,
        ticket: Ticket,
        faulty: bool,
    ) -> Option<(String, usize, Work, Way)> {
        let quits = self.clients[client].lease.is_some() && self.clients[client].renewals_left == 0;
        if quits {
            self.clients[client].life += 1;
            self.clients[client].lease = None;
        }
        if self.clients[client].lease.is_none() {
            self.clients[client].renewals_left = self.random.below(8);
            if !faulty {
                return None;
            }
        }
        self.clients[client].renewals_left = self.clients[client].renewals_left.saturating_sub(1);
        Some(self.keep(client, ticket))
    }

    /// A request was refused by a node that can't help; `leader` is its hint, 0 for none.
    pub fn refused(&mut self, ticket: Ticket, leader: u64, _now_us: u64) {
        let Some(asked) = self.asked.remove(&ticket) else { return };
        self.done(asked.client, ticket);
        self.missed(asked.client, asked.partition, leader);
    }

    /// A node was no help. A client follows its hint, but then looks everywhere in turn: a node
    /// that was removed, or slept, may point to where nobody is any more.
    fn missed(&mut self, client: usize, partition: usize, hint: u64) {
        let nodes = self.nodes;
        let client = &mut self.clients[client];
        client.misses += 1;
        if hint != 0 && client.misses % 3 == 1 {
            client.leaders[partition] = hint as usize - 1;
            return;
        }
        client.search = (client.search + 1) % nodes;
        client.leaders[partition] = client.search;
    }

    fn done(&mut self, client: usize, ticket: Ticket) {
        if self.clients[client].busy.is_some_and(|(busy, _)| busy == ticket) {
            self.clients[client].busy = None;
        }
    }

    /// A request is answered by what was complete at this time at least, and what had been told by
    /// then.
    pub fn is_as_old_as(&mut self, ticket: Ticket, complete_us: u64, floor: u64) {
        if let Some(asked) = self.asked.get_mut(&ticket) {
            asked.called_us = asked.called_us.min(complete_us);
            asked.floor = asked.floor.min(floor);
        }
    }

    /// An answer has come. `seen` is the node, its store at this moment, and its time.
    pub fn answered(
        &mut self,
        ticket: Ticket,
        answer: Answer,
        seen: (usize, &Store, u64),
        now_us: u64,
        checker: &mut Checker,
        summary: &mut Summary,
    ) -> Checked {
        if let Answer::Refused(refuse) = &answer {
            let leader = match refuse {
                Refuse::NotLeader { leader } | Refuse::Unknown { leader } => *leader,
                _ => 0,
            };
            self.refused(ticket, leader, now_us);
            return Ok(());
        }
        let Some(asked) = self.asked.remove(&ticket) else { return Ok(()) };
        self.done(asked.client, ticket);
        let (node, store, now_ms) = seen;
        if asked.way == Way::Stale {
            summary.stale_reads += 1;
            return self
                .read(&asked, store, now_ms, now_us, checker)
                .map_err(|violation| Violation { invariant: "I3", message: violation.message });
        }
        self.clients[asked.client].leaders[asked.partition] = node;
        self.clients[asked.client].misses = 0;
        match answer {
            Answer::Written { outcome: Outcome::Put { revision, lease_id, .. }, .. } => {
                summary.writes += 1;
                self.last_write_us[asked.partition] = now_us;
                self.wrote(&asked, revision, lease_id, now_us, checker)
            }
            Answer::Written { outcome: Outcome::Patched { revision }, .. }
            | Answer::Written { outcome: Outcome::Deleted { revision, existed: true }, .. } => {
                summary.demands += 1;
                self.demanded(&asked, revision, checker)
            }
            Answer::Written { outcome: Outcome::Deleted { .. }, .. } => {
                self.hearsay.saw(&asked.key, None);
                Ok(())
            }
            Answer::Written { outcome: Outcome::Refused(refusal), .. } => {
                summary.demands_refused += 1;
                self.hearsay.refused(&asked.key, &refusal);
                Ok(())
            }
            Answer::Readable => {
                summary.reads += 1;
                self.read(&asked, store, now_ms, now_us, checker)
            }
            Answer::Renewed { lost, .. } => {
                summary.renewals += 1;
                self.renewed(&asked, &lost, now_us, checker)
            }
            // A repeated registration that meets the removal of its predecessor.
            _ => Ok(()),
        }
    }

    fn demanded(&mut self, asked: &Asked, revision: u64, checker: &mut Checker) -> Checked {
        let key = key_bytes(&asked.key);
        let changed = checker.changed(asked.partition, asked.floor, revision, &key)?;
        self.hearsay.saw(&asked.key, changed.now.record.as_deref());
        asked.demand.check(&changed)
    }

    fn wrote(
        &mut self,
        asked: &Asked,
        revision: u64,
        lease_id: u64,
        now_us: u64,
        checker: &mut Checker,
    ) -> Checked {
        let key = key_bytes(&asked.key);
        let spec = &asked.demand.spec;
        let changed = checker.wrote(asked.partition, asked.floor, revision, &key, spec)?;
        self.hearsay.saw(&asked.key, changed.now.record.as_deref());
        asked.demand.check(&changed)?;
        // A late answer may be about an earlier record of this client.
        let is_current = asked.key == self.lease_key(asked.client);
        let client = &mut self.clients[asked.client];
        if lease_id == 0 || client.lease.is_some() || !is_current {
            return Ok(());
        }
        if now_us > asked.called_us + TTL_MS as u64 * 500 {
            // Too late to rely on it.
            client.life += 1;
            return Ok(());
        }
        client.lease = Some(lease_id);
        self.promise(asked, now_us, checker);
        Ok(())
    }

    fn promise(&self, asked: &Asked, now_us: u64, checker: &mut Checker) {
        let is_kept = self.clients[asked.client].kindness == Kindness::Keeper;
        let until_us = asked.called_us + TTL_MS as u64 * 1000 - self.drift_us;
        checker.promised(&key_bytes(&asked.key), now_us, until_us, is_kept);
    }

    fn renewed(
        &mut self,
        asked: &Asked,
        lost: &[u64],
        now_us: u64,
        checker: &mut Checker,
    ) -> Checked {
        let client = &mut self.clients[asked.client];
        if lost.is_empty() {
            self.promise(asked, now_us, checker);
            return Ok(());
        }
        if client.kindness == Kindness::Keeper {
            let message = format!("the lease of {} was lost though it was kept alive", asked.key);
            return Err(Violation { invariant: "I28", message });
        }
        if client.lease.is_some_and(|lease| lost.contains(&lease)) {
            (client.lease, client.life) = (None, client.life + 1);
        }
        Ok(())
    }

    fn read(
        &mut self,
        asked: &Asked,
        store: &Store,
        now_ms: u64,
        now_us: u64,
        checker: &mut Checker,
    ) -> Checked {
        for client in 0..self.clients.len() {
            let key = self.lease_key(client);
            let promised = self.clients[client].partition == asked.partition
                && checker.is_promised(&key_bytes(&key), asked.called_us, now_us);
            if promised && store.get(&canonical(&key), now_ms).is_none() {
                let message = format!("{key} is promised to be alive, but was not found");
                return Err(Violation { invariant: "I6", message });
            }
        }
        let view = store.get(&canonical(&asked.key), now_ms);
        let record = view.as_ref().map(|view| view.record);
        if asked.way != Way::Stale {
            self.hearsay.saw(&asked.key, record.map(|record| &record[..]));
        }
        let key = key_bytes(&asked.key);
        checker.read(asked.partition, asked.floor, store.revision(), &key, record)
    }

    /// After the healing every partition takes writes again.
    pub fn check_writable(&self, healed_us: u64, now_us: u64) -> Checked {
        for (partition, last_us) in self.last_write_us.iter().enumerate() {
            if *last_us < healed_us {
                let message =
                    format!("partition {partition} took no write in {} µs", now_us - healed_us);
                return Err(Violation { invariant: "I27", message });
            }
        }
        Ok(())
    }
}

fn spec(value: u64) -> Spec {
    let (region, owner) = ("eu".to_owned(), format!("owner-{value}-"));
    Spec { region, owner, ..Spec::default() }
}

fn put(key: &str, value: u64, ttl_ms: i64) -> Work {
    let spec = spec(value);
    let put = Put {
        key: Some(canonical(key).to_message()),
        spec: spec.encode_to_vec().into(),
        ttl_ms,
        ..Put::default()
    };
    Work::Write(Command { proposed_unix_ms: 0, operation: Some(Operation::Put(put)) })
}
