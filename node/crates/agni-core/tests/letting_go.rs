//! A replica that let go of its group, and what it still owes to it.

use agni_core::clock::{Clock, SystemClock};
use agni_core::lease::LeaseClock;
use agni_core::limits::{ELECTION_TICKS, TICK_MS};
use agni_core::metrics::EngineMetrics;
use agni_core::proto::node::{ReplicaSet, SnapshotHeader};
use agni_core::raft::cell::PartitionCell;
use agni_core::raft::group::{Group, GroupSettings, Snapshots, Turn};
use agni_core::raft::log_tail::{LogTail, TailLimits};
use agni_core::raft::recovery::{GroupRecovery, RecoverySettings};
use agni_core::raft::replicas::conf_state;
use agni_core::store::{Store, StoreLimits};
use agni_core::wal::Op;
use bytes::Bytes;
use raft::eraftpb::{HardState, Message, MessageType};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

fn settings() -> RecoverySettings {
    RecoverySettings {
        node_id: 2,
        now_ms: 0,
        founding: None,
        store: StoreLimits::default(),
        tail: TailLimits::default(),
    }
}

fn group_settings(started_us: u64, tail: TailLimits) -> GroupSettings {
    GroupSettings { partition: 0, node_id: 2, seed: 1, started_us, lease_reads: true, tail }
}

fn members() -> ReplicaSet {
    ReplicaSet { voters: vec![1, 2, 3], ..ReplicaSet::default() }
}

/// A group whose newest snapshot is of entry 5, and whose log has gone on to entry 8 before the
/// node let go of it.
fn let_go_at_8() -> GroupRecovery {
    let mut group = GroupRecovery::new(0, settings());
    let header = SnapshotHeader {
        partition: 0,
        index: 5,
        term: 1,
        revision: 4,
        replicas: Some(members()),
        ..SnapshotHeader::default()
    };
    group.snapshot_header(&header);
    for index in 4..=8 {
        group.entry(1, index, Op::NoOp, Bytes::new());
    }
    group.hard_state(1, 0, 8).unwrap();
    group.entry(1, 9, Op::NoOp, Bytes::new());
    group.discard();
    group.floor((1, 9));
    group.hard_state(3, 1, 0).unwrap();
    group
}

#[test]
fn a_group_that_was_let_go_is_blank_but_for_its_vote() {
    let group = let_go_at_8().finish().unwrap();
    assert_eq!((group.applied, group.tail.last(), group.store.applied()), (0, 0, (0, 0)));
    assert_eq!((group.tail.hard_state().term, group.tail.hard_state().vote), (3, 1));
    assert_eq!(group.tail.floor(), (1, 9));
}

#[test]
fn it_comes_back_by_a_snapshot_older_than_what_it_had() {
    let mut group = let_go_at_8();
    group.snapshot_mark(5, true);
    group.hard_state(3, 1, 5).unwrap();
    for index in 6..=10 {
        group.entry(if index < 9 { 1 } else { 3 }, index, Op::NoOp, Bytes::new());
    }
    group.hard_state(3, 1, 10).unwrap();
    let group = group.finish().unwrap();
    assert_eq!((group.applied, group.store.applied()), (10, (10, 3)));
}

#[test]
fn without_its_snapshot_it_does_not_start() {
    let mut group = let_go_at_8();
    group.snapshot_mark(30, true);
    let error = group.finish().err().expect("its state is missing");
    assert!(error.to_string().contains("snapshot of entry 30 is missing"), "{error}");
}

/// What a replica with this log answers to a candidate's request for its vote in term 9.
fn answer(tail: LogTail, log_term: u64, index: u64) -> Option<bool> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let clock = Arc::new(LeaseClock::new(clock));
    let started_us = 0;
    let applied = tail.last();
    let cell = Arc::new(PartitionCell::new(Store::new(0)));
    let tail_limits = TailLimits::default();
    let settings = group_settings(started_us, tail_limits);
    let mut group = Group::new(settings, tail, applied, Snapshots::default(), cell).unwrap();
    let mut message = Message { to: 2, from: 1, term: 9, log_term, index, ..Message::default() };
    message.set_msg_type(MessageType::MsgRequestVote);
    group.step(message, started_us + ELECTION_TICKS as u64 * TICK_MS * 1000);
    let mut turn = Turn::default();
    group.advance(&mut turn, &EngineMetrics::default(), &clock);
    let answers = turn.promises.iter().map(|promise| !promise.message.reject);
    answers.last()
}

fn tail(last: u64, floor: (u64, u64)) -> LogTail {
    let members = if last == 0 { ReplicaSet::default() } else { members() };
    let mut tail = LogTail::new(conf_state(&members), last, u64::from(last > 0));
    let commit = last;
    tail.set_hard_state(HardState { term: 1, commit, ..HardState::default() });
    tail.set_floor(floor);
    tail
}

#[test]
fn it_votes_for_nobody_who_has_less_than_it_once_had() {
    assert_eq!(answer(tail(5, (0, 0)), 1, 6), Some(true), "it never let go of anything");
    assert_eq!(answer(tail(5, (1, 9)), 1, 6), None, "entries 7 to 9 would be forgotten");
    assert_eq!(answer(tail(5, (1, 9)), 1, 9), Some(true));
    assert_eq!(answer(tail(5, (1, 9)), 2, 7), Some(true), "a later leader's log");
    assert_eq!(answer(tail(0, (1, 9)), 1, 6), None);
    assert_eq!(answer(tail(0, (0, 0)), 1, 6), None, "who has nothing has no say");
}

#[test]
fn it_does_not_stand_before_it_is_back_where_it_was() {
    for (floor, stands) in [((0, 0), true), ((1, 5), true), ((1, 9), false)] {
        let cell = Arc::new(PartitionCell::new(Store::new(0)));
        let limits = TailLimits::default();
        let settings = group_settings(0, limits);
        let mut group =
            Group::new(settings, tail(5, floor), 5, Snapshots::default(), cell).unwrap();
        (0..3 * ELECTION_TICKS as u64).for_each(|tick| group.tick(tick * TICK_MS * 1000));
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut turn = Turn::default();
        group.advance(&mut turn, &EngineMetrics::default(), &LeaseClock::new(clock));
        let asked = turn
            .messages
            .iter()
            .chain(&turn.promises)
            .any(|sent| sent.message.get_msg_type() == MessageType::MsgRequestPreVote);
        assert_eq!(asked, stands, "floor {floor:?}");
    }
}

/// It may come back with a snapshot older than that.
#[test]
fn how_young_its_state_was_is_forgotten() {
    let cell = Arc::new(PartitionCell::new(Store::new(0)));
    let settings = group_settings(0, TailLimits::default());
    let tail = tail(5, (0, 0));
    let mut group = Group::new(settings, tail, 5, Snapshots::default(), cell.clone()).unwrap();
    cell.complete_at_us.store(1_000, Relaxed);
    assert_eq!(cell.age_us(3_000), Some(2_000));
    group.discard(&mut Turn::default());
    assert_eq!(cell.age_us(3_000), None);
}
