//! Leases through the store: deadlines, renewals, removal in batches, draining, the guard.

use super::*;
use crate::lease::{GuardSettings, MassExpiry};
use crate::proto::node::ReplicaSet;

#[test]
fn a_lease_is_over_at_its_deadline_for_readers_and_renewals() {
    let mut driver = Driver::unguarded();
    let lease = lease_of(&driver.put("a", "eu", 10_000));
    driver.now += 9_999;
    assert_eq!(driver.get("a").unwrap().lease_remaining_ms, Some(1));
    assert!(driver.renew(lease));
    driver.now += 10_000;
    assert!(driver.get("a").is_none());
    assert!(driver.names(&Filter::default()).is_empty());
    assert!(!driver.renew(lease), "a renewal at the deadline is too late");
    assert_eq!(driver.store.len(), 1, "its removal is yet to be applied");
    assert_eq!(driver.expire(10), 1);
    assert_eq!(driver.store.len(), 0);
    let kind = driver.store.events_after(1, 9).unwrap().next().unwrap().kind;
    assert_eq!(kind, EventType::Expired);
    assert!(!driver.renew(lease));
}

#[test]
fn nothing_goes_early_and_renewals_cost_no_entry_in_the_wheel() {
    let mut driver = Driver::unguarded();
    let lease = lease_of(&driver.put("a", "eu", 1_000));
    for _ in 0..100_000 {
        driver.now += 7;
        assert!(driver.renew(lease));
        assert_eq!(driver.expire(10), 0);
    }
    assert!(driver.get("a").is_some());
    driver.now += 1_049;
    assert_eq!(driver.expire(10), 1, "within one tick of its deadline");
}

#[test]
fn a_removal_is_answered_once_and_again_after_a_while_or_a_failure() {
    let mut driver = Driver::unguarded();
    driver.put("a", "eu", 1_000);
    driver.now += 1_100;
    let due = driver.take_due(driver.now, 10);
    assert_eq!(due.len(), 1);
    assert!(driver.take_due(driver.now + 1_900, 10).is_empty());
    assert_eq!(driver.take_due(driver.now + 2_000, 10), due);
    driver.store.expiry_failed(&due);
    assert_eq!(driver.take_due(driver.now + 2_001, 10), due);
}

#[test]
fn a_repeat_is_not_acknowledged_while_the_removal_is_in_flight_but_a_change_saves_the_record() {
    let mut driver = Driver::unguarded();
    driver.put("a", "eu", 1_000);
    driver.put("b", "eu", 1_000);
    driver.now += 1_100;
    let leases = driver.take_due(driver.now, 10);
    assert_eq!(driver.put("a", "eu", 1_000), Outcome::Refused(Refusal::Expiring));
    assert!(matches!(driver.put("b", "us", 1_000), Outcome::Put { created: false, .. }));
    let outcome = driver.apply(Operation::Expire(Expire { proposer_term: 1, leases, claim: None }));
    assert_eq!(outcome, Outcome::Expired { removed: 1, spared: 1 });
    assert!(driver.get("a").is_none() && driver.get("b").is_some());
    driver.now += 2_000;
    assert_eq!(driver.expire(10), 1, "and its lease still runs out");
}

#[test]
fn a_repeat_before_anything_is_proposed_renews_even_an_overdue_record() {
    let mut driver = Driver::unguarded();
    driver.put("a", "eu", 1_000);
    driver.now += 1_500;
    assert!(driver.get("a").is_none());
    assert!(matches!(driver.put("a", "eu", 1_000), Outcome::Put { revision: 1, .. }));
    assert!(driver.get("a").is_some());
    assert_eq!(driver.expire(10), 0);
}

#[test]
fn an_expiry_of_another_term_or_of_an_earlier_life_removes_nothing() {
    let mut driver = Driver::unguarded();
    driver.put("a", "eu", 1_000);
    driver.now += 1_100;
    let leases = driver.take_due(driver.now, 10);
    let old = Expire { proposer_term: 2, leases: leases.clone(), claim: None };
    assert_eq!(driver.apply(Operation::Expire(old)), Outcome::Expired { removed: 0, spared: 1 });
    driver.delete("a");
    driver.put("a", "eu", 1_000);
    let late = Expire { proposer_term: 1, leases, claim: None };
    assert_eq!(driver.apply(Operation::Expire(late)), Outcome::Expired { removed: 0, spared: 1 });
    assert!(driver.get("a").is_some());
    let wild = ExpiredLease { slot: u32::MAX, ..ExpiredLease::default() };
    let outcome = driver.apply(Operation::Expire(Expire {
        proposer_term: 1,
        leases: vec![wild],
        claim: None,
    }));
    assert_eq!(outcome, Outcome::Expired { removed: 0, spared: 1 });
}

#[test]
fn another_incarnation_has_another_lease() {
    let mut driver = Driver::unguarded();
    let first = lease_of(&driver.put("a", "eu", 1_000));
    let again = Put { incarnation: 5, ..put("a", &spec("eu"), 1_000) };
    let second = lease_of(&driver.apply(Operation::Put(again)));
    assert_ne!(first, second);
    assert!(!driver.renew(first));
    assert!(driver.renew(second));
    assert_eq!(driver.store.lease_count(), 1);
    let stale = Put { incarnation: 4, ..put("a", &spec("eu"), 1_000) };
    let refusal = Refusal::StaleIncarnation { stored: 5 };
    assert_eq!(driver.apply(Operation::Put(stale)), Outcome::Refused(refusal));
}

#[test]
fn a_hundred_thousand_leases_that_stop_at_once_are_removed_in_batches() {
    let mut driver = Driver::unguarded();
    for number in 0..100_000 {
        driver.put(&format!("n{number}"), "eu", 10_000);
    }
    driver.now += 10_000;
    assert!(driver.names(&Filter::default()).is_empty(), "expired for readers at once");
    driver.now += 50;
    let mut removed = 0;
    for _ in 0..100 {
        let batch = driver.expire(1_000);
        assert!(batch <= 1_000);
        removed += batch;
    }
    assert_eq!((removed, driver.store.len()), (100_000, 0));
}

fn drain(driver: &mut Driver, name: &str, drain_ms: i64) -> Outcome {
    let drain = Drain {
        key: Some(key(name)),
        drain_ms,
        successor: "b".into(),
        deadline_unix_ms: 7 + drain_ms,
        ..Drain::default()
    };
    driver.apply(Operation::Drain(drain))
}

#[test]
fn draining_ends_by_itself_renewed_or_not_and_a_registration_ends_it() {
    let mut driver = Driver::unguarded();
    driver.put("without", "eu", 0);
    let lease = lease_of(&driver.put("leased", "eu", 60_000));
    driver.put("back", "eu", 0);
    for name in ["without", "leased", "back"] {
        drain(&mut driver, name, 5_000);
        assert_eq!(driver.get(name).unwrap().status, Status::Draining);
    }
    driver.put("back", "eu", 0);
    driver.now += 4_999;
    assert!(driver.renew(lease));
    assert!(driver.get("without").is_some() && driver.get("leased").is_some());
    driver.now += 1;
    assert!(driver.get("without").is_none() && driver.get("leased").is_none());
    driver.now += 50;
    assert_eq!(driver.expire(10), 2);
    assert_eq!(driver.get("back").unwrap().status, Status::Alive);
}

#[test]
fn after_a_restart_every_lease_and_draining_has_its_full_time_once() {
    let mut driver = Driver::unguarded();
    let lease = lease_of(&driver.put("a", "eu", 10_000));
    driver.put("d", "eu", 0);
    drain(&mut driver, "d", 5_000);
    driver.now += 4_000;
    let mut cursor = driver.store.begin_snapshot();
    let block = driver.store.snapshot_block(&mut cursor, usize::MAX).unwrap();
    let header = cursor.header([0; 16], ReplicaSet::default());
    let mut driver = Driver::unguarded();
    driver.store.restore_header(&header);
    driver.store.restore_block(block).unwrap();
    let later = 50;
    assert!(driver.take_due(later, 10).is_empty(), "nothing is due before the leases are granted");
    driver.store.grant_all(later);
    let view = |store: &Store, name: &str, now| {
        store.get(&KeyRef::of(&key(name)), now).map(|view| view.status)
    };
    assert_eq!(view(&driver.store, "d", later + 4_999), Some(Status::Draining));
    assert_eq!(view(&driver.store, "d", later + 5_000), None);
    assert_eq!(view(&driver.store, "a", later + 9_999), Some(Status::Alive));
    assert_eq!(view(&driver.store, "a", later + 10_000), None);
    assert_eq!(driver.take_due(later + 5_050, 10).len(), 1);
    assert_eq!(driver.store.renew(lease, None, later + 5_050), Some(10_000), "its time to live");
    assert_eq!(driver.take_due(later + 14_000, 10).len(), 1, "only the draining one, again");
}

#[test]
fn load_is_kept_beside_the_record_until_it_goes() {
    let mut driver = Driver::unguarded();
    let lease = lease_of(&driver.put("a", "eu", 60_000));
    let free = Capacity { cpu: 1.0, ..Capacity::default() };
    assert!(driver.store.renew(lease, Some(&free), driver.now).is_some());
    driver.now += 500;
    assert_eq!(driver.get("a").unwrap().load, Some((free, 500)));
    let want = |cpu| Filter {
        min_free: Some(Capacity { cpu, ..Capacity::default() }),
        ..Filter::default()
    };
    assert_eq!(driver.names(&want(1.0)), ["a"]);
    assert!(driver.names(&want(1.5)).is_empty());
    driver.delete("a");
    driver.put("a", "eu", 60_000);
    assert_eq!(driver.get("a").unwrap().load, None);
    assert_eq!(driver.names(&want(2.0)), ["a"], "by its capacity where nothing was reported");
}

/// Looks as often as the engine does, up to a time.
fn go_on_until(driver: &mut Driver, until: u64) -> u32 {
    let mut gone = 0;
    while driver.now < until {
        driver.now = (driver.now + 50).min(until);
        gone += driver.expire(10_000);
    }
    gone
}

#[test]
fn a_region_that_goes_silent_at_once_is_suspect_and_slowly_removed() {
    let mut driver = Driver::new();
    let begun = driver.now;
    let mut leases = Vec::new();
    for number in 0..5_000 {
        leases.push(lease_of(&driver.put(&format!("eu{number}"), "eu", 10_000)));
    }
    let lone = lease_of(&driver.put("us", "us", 10_000));
    go_on_until(&mut driver, begun + 5_000);
    assert!(driver.renew(lone));
    assert_eq!(go_on_until(&mut driver, begun + 9_980), 0);
    assert_eq!(driver.store.suspect_domains(), 1, "known before the first of them is due");
    assert_eq!(driver.get("eu0").unwrap().status, Status::Alive);
    driver.now = begun + 10_000;
    assert_eq!(driver.get("eu0").unwrap().status, Status::Suspect, "before anybody has looked");
    assert!(driver.renew(leases[0]), "and a renewal at that moment is taken");
    assert_eq!(go_on_until(&mut driver, begun + 10_050), 0);
    assert_eq!(driver.get("eu1").unwrap().status, Status::Suspect);
    assert!(driver.get("eu1").unwrap().lease_remaining_ms.unwrap() <= 0);
    assert_eq!(driver.get("us").unwrap().status, Status::Alive);
    for lease in &leases[..1_000] {
        assert!(driver.renew(*lease), "a suspect may come back");
    }
    assert_eq!(driver.get("eu1").unwrap().status, Status::Alive);
    let (held_until, mut gone) = (begun + 20_000, 0);
    while driver.store.suspect_domains() > 0 {
        for lease in leases[..1_000].iter().chain([&lone]) {
            assert!(driver.renew(*lease));
        }
        let removed = driver.expire(10_000);
        assert!(removed == 0 || driver.now >= held_until);
        assert!(removed <= 100, "at 1,000 a second");
        gone += removed;
        driver.now += 50;
        assert!(driver.now < held_until + 6_000, "it leaves by itself");
    }
    assert_eq!((gone, driver.store.len()), (4_000, 1_001));
}

#[test]
fn a_fleet_whose_renewals_were_spread_is_held_from_its_first_deadline_on() {
    let mut driver = Driver::new();
    let begun = driver.now;
    let leases: Vec<u64> =
        (0..50).map(|number| lease_of(&driver.put(&format!("eu{number}"), "eu", 30_000))).collect();
    // Each renewed once more within the third of its time that the server asks for.
    for (number, lease) in leases.iter().enumerate() {
        driver.now = begun + number as u64 * 200;
        assert!(driver.renew(*lease));
    }
    assert_eq!(go_on_until(&mut driver, begun + 41_000), 0, "none of them is gone");
    let suspects = (0..50)
        .filter(|number| driver.get(&format!("eu{number}")).unwrap().status == Status::Suspect);
    assert_eq!(suspects.count(), 50);
    assert_eq!(go_on_until(&mut driver, begun + 80_000), 50, "and they go in the end");
    assert_eq!(driver.store.suspect_domains(), 0);
}

#[test]
fn one_or_two_of_fifty_run_out_at_their_deadline() {
    let mut driver = Driver::new();
    let begun = driver.now;
    let leases: Vec<u64> =
        (0..50).map(|number| lease_of(&driver.put(&format!("eu{number}"), "eu", 10_000))).collect();
    for second in 1..10 {
        go_on_until(&mut driver, begun + second * 1_000);
        assert!(leases[2..].iter().all(|lease| driver.renew(*lease)));
    }
    driver.now = begun + 10_000;
    assert!(driver.get("eu0").is_none() && driver.get("eu1").is_none());
    assert!(!driver.renew(leases[0]));
    assert_eq!(go_on_until(&mut driver, begun + 10_100), 2);
}

#[test]
fn what_is_behind_one_gateway_is_held_although_its_region_lives() {
    let mut driver = Driver::new();
    let begun = driver.now;
    let mut living = Vec::new();
    for number in 0..100 {
        let behind = if number < 6 { "silent" } else { "alive" };
        let spec = Spec { gateway: behind.into(), ..spec("eu") };
        let put = put(&format!("n{number}"), &spec, 10_000);
        let lease = lease_of(&driver.apply(Operation::Put(put)));
        if number >= 6 {
            living.push(lease);
        }
    }
    for second in 1..12 {
        assert_eq!(go_on_until(&mut driver, begun + second * 1_000), 0);
        assert!(living.iter().all(|lease| driver.renew(*lease)));
    }
    assert_eq!(driver.store.suspect_domains(), 1);
    assert_eq!(driver.get("n5").unwrap().status, Status::Suspect);
    assert_eq!(driver.get("n6").unwrap().status, Status::Alive);
}

#[test]
fn partitions_are_judged_together() {
    let mut guard = MassExpiry::new(GuardSettings::default());
    let mut stores: Vec<Store> = (0..16).map(Store::new).collect();
    for (number, store) in stores.iter_mut().enumerate() {
        let operation = Some(Operation::Put(put(&format!("n{number}"), &spec("eu"), 10_000)));
        store.apply(1, 1, &Command { operation, proposed_unix_ms: 7 }, 0);
    }
    let mut news = Vec::new();
    for now in (0..=12_000).step_by(50) {
        guard.look(now, &mut |look| stores.iter_mut().for_each(&mut *look), &mut news);
        assert!(stores.iter_mut().all(|store| store.take_due(now, 10).is_empty()));
    }
    assert!(stores.iter().all(|store| store.suspect_domains() == 1));
    let told: Vec<String> = news.iter().map(|each| each.to_string()).collect();
    assert_eq!(told, ["region eu: 16 of 16 leases are silent"]);
    assert!(news[0].has_begun());
}

#[test]
fn suspects_are_ranked_behind_whoever_is_alive() {
    let mut driver = Driver::new();
    for number in 0..100 {
        driver.put(&format!("eu{number}"), "eu", 1_000);
    }
    driver.put("us", "us", 60_000);
    let now = driver.now + 1_100;
    go_on_until(&mut driver, now);
    let agents = Filter { kind: Kind::Agent as i32, ..Filter::default() };
    let filter = CompiledFilter::for_discover(&agents).unwrap();
    let mut state = 7;
    let mut rng = move || crate::random::next(&mut state);
    let sample = driver.store.sample(&filter, 10, &mut rng, driver.now);
    assert_eq!((sample.matched, sample.instances.len()), (101, 10));
    let request = RankRequest { region: "eu", limit: 10, choices: 2 };
    let ranked = rank(sample.instances, &request, &mut rng);
    assert_eq!(name_of(&ranked[0].0.record), "us");
    assert!(ranked[1..].iter().all(|(_, score)| score.total == 0.0 && score.region_match == 1.0));
}

#[test]
fn a_draining_record_goes_in_time_even_from_a_held_region() {
    let mut driver = Driver::new();
    for number in 0..100 {
        driver.put(&format!("n{number}"), "eu", 1_000);
    }
    drain(&mut driver, "n0", 1_500);
    let begun = driver.now;
    assert_eq!(go_on_until(&mut driver, begun + 1_100), 0);
    assert_eq!(driver.store.suspect_domains(), 1);
    assert_eq!(go_on_until(&mut driver, begun + 1_550), 1);
    assert!(driver.get("n0").is_none() && driver.get("n1").is_some());
}

#[test]
fn followers_that_never_ask_what_is_due_hold_no_growing_wheel() {
    let mut driver = Driver::unguarded();
    for round in 0..20_000 {
        driver.put("a", "eu", if round % 2 == 0 { 86_400_000 } else { 1_000 + (20_000 - round) });
        driver.delete("a");
    }
    assert!(driver.store.memory_bytes() < 8 << 20, "{}", driver.store.memory_bytes());
}
