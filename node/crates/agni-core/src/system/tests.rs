//! What may and may not be done to a cluster.

use super::*;
use crate::proto::node::system_command::Operation;
use crate::proto::node::{
    AddMember, RemoveMember, ReplicaSet, ReportReplicas, SetDraining, SetWanted, SystemCommand,
};
use proptest::prelude::*;

fn founder(name: &str, zone: &str) -> Founder {
    Founder {
        name: name.into(),
        peer_address: format!("{name}:7401"),
        client_address: format!("{name}:7400"),
        zone: zone.into(),
        nonce: name.bytes().cycle().take(16).collect(),
        ..Founder::default()
    }
}

fn three() -> SystemState {
    let founders = [founder("a", "z1"), founder("b", "z2"), founder("c", "z3")];
    found([7; 16], 8, 3, &founders)
}

fn command(operation: Operation) -> SystemCommand {
    SystemCommand { author_epoch: 0, operation: Some(operation) }
}

fn joiner(name: &str, nonce: u8) -> Operation {
    let member = ClusterMember {
        name: name.into(),
        peer_address: format!("{name}:7401"),
        nonce: vec![nonce; 16].into(),
        ..ClusterMember::default()
    };
    Operation::AddMember(AddMember { member: Some(member) })
}

fn done(state: &mut SystemState, operation: Operation) -> SystemOutcome {
    apply(state, &command(operation)).expect("accepted")
}

fn refused(state: &mut SystemState, operation: Operation) -> &'static str {
    let before = state.clone();
    let reason = apply(state, &command(operation)).expect_err("refused").reason;
    assert_eq!(*state, before, "a refused command changes nothing");
    reason
}

#[test]
fn a_new_cluster_holds_every_partition_on_all_its_founders() {
    let state = three();
    assert_eq!(state.next_node_id, 4);
    for placement in &state.partitions {
        assert_eq!(placement.reported.as_ref().unwrap().voters, [1, 2, 3]);
    }
    assert_eq!(founding_replicas(&state, SYSTEM_PARTITION).voters, [1, 2, 3]);
}

#[test]
fn a_repeated_join_answers_the_same_identity_and_no_identity_comes_twice() {
    let mut state = three();
    assert_eq!(done(&mut state, joiner("d", 9)).node_id, 4);
    let version = state.version;
    assert_eq!(done(&mut state, joiner("d", 9)).node_id, 4);
    assert_eq!(state.version, version);
    done(&mut state, Operation::RemoveMember(RemoveMember { node_id: 4 }));
    assert_eq!(refused(&mut state, joiner("d", 9)), "MEMBER_LEFT");
    assert_eq!(done(&mut state, joiner("d", 10)).node_id, 5);
}

#[test]
fn a_node_whose_directory_is_gone_takes_the_place_of_its_old_self() {
    let mut state = three();
    let node_id = done(&mut state, joiner("b", 42)).node_id;
    assert_eq!(node_id, 4);
    assert_eq!(member(&state, 4).unwrap().replaces, 2);
    assert_eq!(member(&state, 2).unwrap().state(), MemberState::Left);
    for placement in &state.partitions {
        assert!(placement.wanted.contains(&4) && !placement.wanted.contains(&2));
        assert_eq!(placement.wanted_version, state.version);
    }
    assert_eq!(wanted_system_replicas(&state, &[1, 2, 3]), (vec![1, 3, 4], vec![]));
}

#[test]
fn a_node_that_holds_something_is_not_let_go() {
    let mut state = three();
    let remove = || Operation::RemoveMember(RemoveMember { node_id: 3 });
    assert_eq!(refused(&mut state, remove()), "MEMBER_IN_USE");
    for partition in 0..8 {
        let set = SetWanted { partition, nodes: vec![1, 2], expected_version: Some(1) };
        done(&mut state, Operation::SetWanted(set));
    }
    assert_eq!(refused(&mut state, remove()), "MEMBER_IN_USE");
    for partition in 0..8 {
        let replicas = Some(ReplicaSet { voters: vec![1, 2], ..ReplicaSet::default() });
        let report = ReportReplicas { partition, replicas, index: 50, ..Default::default() };
        done(&mut state, Operation::ReportReplicas(report));
    }
    done(&mut state, remove());
    assert_eq!(member(&state, 3).unwrap().state(), MemberState::Left);
    let version = state.version;
    done(&mut state, remove());
    assert_eq!(state.version, version, "a repeated removal is none");
}

#[test]
fn who_has_been_succeeded_changes_nothing_any_more() {
    let mut state = three();
    let drain = |author_epoch, draining| SystemCommand {
        author_epoch,
        operation: Some(Operation::SetDraining(SetDraining { node_id: 1, draining })),
    };
    apply(&mut state, &drain(5, true)).expect("accepted");
    assert_eq!(apply(&mut state, &drain(4, false)).expect_err("old").reason, "EPOCH_OUTDATED");
    assert_eq!(member(&state, 1).unwrap().state(), MemberState::Draining);
    apply(&mut state, &drain(5, false)).expect("the same author goes on");
}

#[test]
fn an_older_report_never_replaces_a_newer_one() {
    let mut state = three();
    let report = |index, voters: &[u64]| {
        let replicas = Some(ReplicaSet { voters: voters.to_vec(), ..ReplicaSet::default() });
        let report = ReportReplicas { partition: 0, replicas, index, ..Default::default() };
        Operation::ReportReplicas(report)
    };
    done(&mut state, report(20, &[1, 2]));
    done(&mut state, report(10, &[1, 2, 3]));
    assert_eq!(state.partitions[0].reported.as_ref().unwrap().voters, [1, 2]);
    let version = state.version;
    done(&mut state, report(30, &[1, 2]));
    assert_eq!((state.partitions[0].reported_index, state.version), (30, version));
}

fn to(nodes: &[u64]) -> Operation {
    let nodes = nodes.to_vec();
    Operation::SetWanted(SetWanted { partition: 0, nodes, expected_version: None })
}

fn reached(index: u64, voters: &[u64], reached_version: Option<u64>) -> Operation {
    let replicas = Some(ReplicaSet { voters: voters.to_vec(), ..ReplicaSet::default() });
    let report = ReportReplicas { partition: 0, replicas, index, reached_version };
    Operation::ReportReplicas(report)
}

#[test]
fn a_move_that_is_taken_back_is_over_when_its_leader_says_so() {
    let mut state = three();
    let versions = |state: &SystemState| {
        (state.partitions[0].wanted_version, state.partitions[0].reached_version)
    };
    assert_eq!(versions(&state), (1, 1), "a cluster begins where it is wanted");
    done(&mut state, to(&[1, 2]));
    done(&mut state, to(&[1, 2, 3]));
    let reported = state.partitions[0].reported.clone().unwrap();
    assert_eq!(reported.voters, [1, 2, 3], "what was reported is what is wanted");
    assert_eq!(versions(&state), (3, 1));
    done(&mut state, reached(9, &[1, 2], Some(2)));
    assert_eq!(versions(&state), (3, 2));
    done(&mut state, reached(20, &[1, 2, 3], Some(0)));
    assert_eq!(versions(&state), (3, 2), "it may leave again");
    let version = state.version;
    done(&mut state, reached(20, &[1, 2, 3], Some(3)));
    assert_eq!(versions(&state), (3, 3), "the same replicas, and there to stay");
    done(&mut state, reached(20, &[1, 2, 3], Some(2)));
    done(&mut state, reached(10, &[1, 2], Some(9)));
    assert_eq!(versions(&state), (3, 3), "what is older says nothing");
    assert_eq!(state.version, version, "other versions count on alike");
}

#[test]
fn another_order_of_the_same_nodes_is_reached_at_once() {
    let mut state = three();
    let mut turned = state.partitions[0].wanted.clone();
    turned.reverse();
    done(&mut state, to(&turned));
    let placement = &state.partitions[0];
    assert_eq!((placement.wanted_version, placement.reached_version), (2, 2));
    done(&mut state, to(&[3, 1]));
    done(&mut state, to(&[1, 3]));
    assert_eq!(state.partitions[0].reached_version, 2, "it was on its way");
}

#[test]
fn a_leader_that_does_not_say_what_it_has_reached_is_not_waited_for() {
    let mut state = three();
    done(&mut state, to(&[1, 2]));
    done(&mut state, reached(9, &[1, 2], None));
    assert_eq!(state.partitions[0].reached_version, 0);
    done(&mut state, reached(9, &[1, 2], Some(2)));
    done(&mut state, reached(9, &[1, 2], None));
    assert_eq!(state.partitions[0].reached_version, 2, "nothing new");
}

#[test]
fn wrong_placements_are_refused() {
    let mut state = three();
    let set = |partition, nodes: &[u64], expected_version| {
        Operation::SetWanted(SetWanted { partition, nodes: nodes.to_vec(), expected_version })
    };
    assert_eq!(refused(&mut state, set(0, &[], None)), "INVALID_FIELD");
    assert_eq!(refused(&mut state, set(0, &[1, 1], None)), "INVALID_FIELD");
    assert_eq!(refused(&mut state, set(0, &[1, 9], None)), "INVALID_FIELD");
    assert_eq!(refused(&mut state, set(8, &[1], None)), "INVALID_FIELD");
    assert_eq!(refused(&mut state, set(0, &[1, 2], Some(7))), "VERSION_MISMATCH");
}

#[test]
fn voters_of_the_system_group_are_odd_spread_and_stay_where_they_are() {
    let founders: Vec<Founder> = ["a", "b", "c", "d", "e", "f"]
        .iter()
        .zip(["z1", "z1", "z2", "z2", "z3", "z3"])
        .map(|(name, zone)| founder(name, zone))
        .collect();
    let state = |count: usize| found([7; 16], 1, 3, &founders[..count]);
    assert_eq!(wanted_system_replicas(&state(1), &[]), (vec![1], vec![]));
    assert_eq!(wanted_system_replicas(&state(2), &[]), (vec![1], vec![2]));
    assert_eq!(wanted_system_replicas(&state(4), &[]), (vec![1, 2, 3], vec![4]));
    assert_eq!(wanted_system_replicas(&state(6), &[]).0.len(), 5);
    let spread = found([7; 16], 1, 3, &[&founders[..2], &founders[2..5]].concat()[..]);
    let mut drained = spread.clone();
    apply(
        &mut drained,
        &command(Operation::SetDraining(SetDraining { node_id: 1, draining: true })),
    )
    .expect("accepted");
    assert_eq!(wanted_system_replicas(&drained, &[1, 2, 3, 4, 5]).0, [1, 2, 3, 4, 5]);
    let four = state(4);
    assert_eq!(wanted_system_replicas(&four, &[2, 3, 4]).0, [2, 3, 4], "votes don't move");
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let node = 0_u64..8;
    prop_oneof![
        (0_u8..5, 1_u8..9).prop_map(|(name, nonce)| joiner(&format!("n{name}"), nonce)),
        (node.clone(), any::<bool>()).prop_map(|(node_id, draining)| Operation::SetDraining(
            SetDraining { node_id, draining }
        )),
        node.clone().prop_map(|node_id| Operation::RemoveMember(RemoveMember { node_id })),
        (0_u32..5, proptest::collection::vec(node.clone(), 0..4)).prop_map(|(partition, nodes)| {
            Operation::SetWanted(SetWanted { partition, nodes, expected_version: None })
        }),
        (0_u32..5, proptest::collection::vec(node, 1..4), 1_u64..100, any::<bool>()).prop_map(
            |(partition, voters, index, is_old)| {
                let replicas = Some(ReplicaSet { voters, ..ReplicaSet::default() });
                let reached_version = (!is_old).then_some(0);
                let report = ReportReplicas { partition, replicas, index, reached_version };
                Operation::ReportReplicas(report)
            }
        ),
    ]
}

proptest! {
    #[test]
    fn whatever_is_asked_the_state_stays_sound(
        operations in proptest::collection::vec((0_u64..4, any_operation()), 0..60)
    ) {
        let mut state = found([7; 16], 4, 3, &[founder("a", ""), founder("b", "")]);
        for (author_epoch, operation) in operations {
            let before = state.clone();
            let command = SystemCommand { author_epoch, operation: Some(operation) };
            if apply(&mut state, &command).is_err() {
                prop_assert_eq!(&state, &before);
            }
            prop_assert!(state.version >= before.version && state.version <= before.version + 1);
            prop_assert!(state.next_node_id >= before.next_node_id);
            prop_assert!(present(&state).count() >= 1);
            let mut names: Vec<&str> = present(&state).map(|m| m.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            prop_assert_eq!(names.len(), present(&state).count(), "one present node a name");
            for placement in &state.partitions {
                prop_assert!(!placement.wanted.is_empty());
                for id in &placement.wanted {
                    prop_assert!(member(&state, *id).is_some_and(takes_part));
                }
                prop_assert!(placement.reached_version <= placement.wanted_version);
            }
            let (voters, learners) = wanted_system_replicas(&state, &[]);
            prop_assert!(voters.len() % 2 == 1);
            prop_assert_eq!(voters.len() + learners.len(), present(&state).count());
        }
    }
}
