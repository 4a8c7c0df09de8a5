//! Leases through the store: deadlines, renewals, removal in batches, draining, the guard.

use super::*;
use crate::proto::node::{ExpiredLease, ReplicaSet};

fn unguarded() -> Driver {
    let settings = LeaseSettings { guard: false, ..LeaseSettings::default() };
    Driver::with(settings, StoreLimits::default())
}

#[test]
fn a_lease_is_over_at_its_deadline_for_readers_and_renewals() {
    let mut driver = unguarded();
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
    let mut driver = unguarded();
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
    let mut driver = unguarded();
    driver.put("a", "eu", 1_000);
    driver.now += 1_100;
    let due = driver.store.take_due(driver.now, 10);
    assert_eq!(due.len(), 1);
    assert!(driver.store.take_due(driver.now + 1_900, 10).is_empty());
    assert_eq!(driver.store.take_due(driver.now + 2_000, 10), due);
    driver.store.expiry_failed(&due);
    assert_eq!(driver.store.take_due(driver.now + 2_001, 10), due);
}

#[test]
fn a_repeat_is_not_acknowledged_while_the_removal_is_in_flight_but_a_change_saves_the_record() {
    let mut driver = unguarded();
    driver.put("a", "eu", 1_000);
    driver.put("b", "eu", 1_000);
    driver.now += 1_100;
    let leases = driver.store.take_due(driver.now, 10);
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
    let mut driver = unguarded();
    driver.put("a", "eu", 1_000);
    driver.now += 1_500;
    assert!(driver.get("a").is_none());
    assert!(matches!(driver.put("a", "eu", 1_000), Outcome::Put { revision: 1, .. }));
    assert!(driver.get("a").is_some());
    assert_eq!(driver.expire(10), 0);
}

#[test]
fn an_expiry_of_another_term_or_of_an_earlier_life_removes_nothing() {
    let mut driver = unguarded();
    driver.put("a", "eu", 1_000);
    driver.now += 1_100;
    let leases = driver.store.take_due(driver.now, 10);
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
    let mut driver = unguarded();
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
    let mut driver = unguarded();
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
    let mut driver = unguarded();
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
    let mut driver = unguarded();
    let lease = lease_of(&driver.put("a", "eu", 10_000));
    driver.put("d", "eu", 0);
    drain(&mut driver, "d", 5_000);
    driver.now += 4_000;
    let mut cursor = driver.store.begin_snapshot();
    let block = driver.store.snapshot_block(&mut cursor, usize::MAX).unwrap();
    let mut store = Store::with_settings(3, LeaseSettings { guard: false, ..Default::default() });
    store.restore_header(&cursor.header([0; 16], ReplicaSet::default()));
    store.restore_block(block).unwrap();
    driver.store.end_snapshot(cursor);
    let later = 50;
    assert!(store.take_due(later, 10).is_empty(), "nothing is due before the leases are granted");
    store.grant_all(later);
    let view = |store: &Store, name: &str, now| {
        store.get(&KeyRef::of(&key(name)), now).map(|view| view.status)
    };
    assert_eq!(view(&store, "d", later + 4_999), Some(Status::Draining));
    assert_eq!(view(&store, "d", later + 5_000), None);
    assert_eq!(view(&store, "a", later + 9_999), Some(Status::Alive));
    assert_eq!(view(&store, "a", later + 10_000), None);
    assert_eq!(store.take_due(later + 5_050, 10).len(), 1);
    assert_eq!(store.renew(lease, None, later + 5_050), Some(10_000), "its time to live");
    assert_eq!(store.take_due(later + 14_000, 10).len(), 1, "only the draining one, again");
}

#[test]
fn load_is_kept_beside_the_record_until_it_goes() {
    let mut driver = unguarded();
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

#[test]
fn a_region_that_goes_silent_at_once_is_suspect_and_slowly_removed() {
    let mut driver = Driver::new();
    let mut leases = Vec::new();
    for number in 0..5_000 {
        leases.push(lease_of(&driver.put(&format!("eu{number}"), "eu", 10_000)));
    }
    let lone = lease_of(&driver.put("us", "us", 10_000));
    driver.now += 5_000;
    assert!(driver.renew(lone));
    driver.now += 5_050;
    assert_eq!(driver.expire(10_000), 0);
    assert_eq!(driver.store.suspect_domains(), 1);
    assert_eq!(driver.get("eu0").unwrap().status, Status::Suspect);
    assert!(driver.get("eu0").unwrap().lease_remaining_ms.unwrap() <= 0);
    assert_eq!(driver.get("us").unwrap().status, Status::Alive);
    for lease in &leases[..1_000] {
        assert!(driver.renew(*lease), "a suspect may come back");
    }
    assert_eq!(driver.get("eu0").unwrap().status, Status::Alive);
    let (held_until, mut gone) = (driver.now + 10_000, 0);
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
fn a_draining_record_goes_in_time_even_from_a_held_region() {
    let mut driver = Driver::new();
    for number in 0..100 {
        driver.put(&format!("n{number}"), "eu", 1_000);
    }
    drain(&mut driver, "n0", 1_500);
    driver.now += 1_100;
    assert_eq!(driver.expire(1_000), 0);
    assert_eq!(driver.store.suspect_domains(), 1);
    driver.now += 450;
    assert_eq!(driver.expire(1_000), 1);
    assert!(driver.get("n0").is_none() && driver.get("n1").is_some());
}

#[test]
fn followers_that_never_ask_what_is_due_hold_no_growing_wheel() {
    let mut driver = unguarded();
    for round in 0..20_000 {
        driver.put("a", "eu", if round % 2 == 0 { 86_400_000 } else { 1_000 + (20_000 - round) });
        driver.delete("a");
    }
    assert!(driver.store.memory_bytes() < 8 << 20, "{}", driver.store.memory_bytes());
}
