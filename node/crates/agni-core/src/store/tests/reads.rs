//! Reads: shared bytes, filters, pages while writes go on, discovery.

use super::*;
use crate::proto::api::ExclusionReason;

fn all() -> CompiledFilter {
    CompiledFilter::new(&Filter::default()).unwrap()
}

/// xorshift: uniform enough, and the same in every run.
fn random() -> impl FnMut() -> u64 {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[test]
fn reads_hand_out_the_stored_allocation() {
    let mut driver = Driver::new();
    driver.put("a", "eu", 0);
    let stored = driver.store.slots.get(0).unwrap().as_ptr();
    assert_eq!(driver.get("a").unwrap().record.as_ptr(), stored);
    assert_eq!(driver.get("a").unwrap().to_owned().record.as_ptr(), stored);
    let page = driver.store.list(&all(), ListPosition::default(), 9, 9_999, driver.now).unwrap();
    assert_eq!(page.instances[0].record.as_ptr(), stored);
    let sample = driver.store.sample(&all(), 1, &mut random(), driver.now);
    assert_eq!(sample.instances[0].record.as_ptr(), stored);
    let event = driver.store.events_after(0, 1).unwrap().next().unwrap();
    assert_eq!(event.record.as_ref().unwrap().as_ptr(), stored);
    let mut cursor = driver.store.begin_snapshot();
    let block = driver.store.snapshot_block(&mut cursor, 9).unwrap();
    assert_eq!(block.records[0].record.as_ptr(), stored);
}

#[test]
fn pages_end_at_their_limits_and_never_stand_still() {
    let mut driver = Driver::new();
    for number in 0..10 {
        driver.put(&format!("n{number}"), "eu", 0);
    }
    let page = |at, limit, bytes| driver.store.list(&all(), at, limit, bytes, driver.now).unwrap();
    let first = page(ListPosition::default(), 4, 1 << 20);
    assert_eq!((first.instances.len(), first.next, first.revision), (4, Some(3), 10));
    let at = ListPosition { revision: Some(10), after_slot: Some(3) };
    assert_eq!(page(at, 6, 1 << 20).next, None, "exactly full is the last");
    assert_eq!(page(at, 6, 1).instances.len(), 1, "one record even where it is too large");
    let end = ListPosition { revision: None, after_slot: Some(u32::MAX) };
    assert_eq!(page(end, 6, 1).instances.len(), 0);
    let future = ListPosition { revision: Some(11), after_slot: None };
    assert!(driver.store.list(&all(), future, 1, 1, driver.now).is_err());
}

#[test]
fn each_part_of_a_filter_counts() {
    let mut driver = Driver::new();
    let full = Spec {
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        gateway: "g".into(),
        ..spec("eu")
    };
    driver.apply(Operation::Put(put("full", &full, 0)));
    driver.put("plain", "us", 0);
    let labels = |value: &str| Filter {
        labels: [("tier".to_owned(), value.to_owned())].into(),
        ..Filter::default()
    };
    let cpu = |cpu| Filter {
        min_capacity: Some(Capacity { cpu, ..Capacity::default() }),
        ..Filter::default()
    };
    assert_eq!(driver.names(&labels("gold")), ["full"]);
    assert_eq!(driver.names(&labels("")), ["full"]);
    assert!(driver.names(&labels("silver")).is_empty());
    assert_eq!(driver.names(&cpu(2.0)), ["full", "plain"]);
    assert!(driver.names(&cpu(2.0 + 1e-12)).is_empty(), "beyond single precision");
    let filter = |change: fn(&mut Filter)| {
        let mut filter = Filter::default();
        change(&mut filter);
        filter
    };
    assert_eq!(driver.names(&filter(|f| f.gateway = "g".into())), ["full"]);
    assert_eq!(driver.names(&filter(|f| f.name_prefix = "pl".into())), ["plain"]);
    assert_eq!(driver.names(&filter(|f| f.regions = vec!["eu".into(), "us".into()])).len(), 2);
    assert!(driver.names(&filter(|f| f.kind = Kind::Gateway as i32)).is_empty());
    assert!(driver.names(&filter(|f| f.namespace = "other".into())).is_empty());
    assert_eq!(driver.names(&filter(|f| f.namespace = "*".into())).len(), 2);
    assert!(driver.names(&filter(|f| f.statuses = vec![Status::Draining as i32])).is_empty());
}

#[test]
fn a_sample_is_random_distinct_and_counts_all() {
    let mut driver = Driver::new();
    for number in 0..1_000 {
        driver.put(&format!("n{number}"), if number % 10 == 0 { "eu" } else { "us" }, 0);
    }
    let mut rng = random();
    let mut seen = std::collections::HashSet::new();
    for _ in 0..400 {
        let sample = driver.store.sample(&all(), 10, &mut rng, driver.now);
        assert_eq!((sample.matched, sample.instances.len()), (1_000, 10));
        let names: std::collections::HashSet<_> =
            sample.instances.iter().map(|instance| name_of(&instance.record)).collect();
        assert_eq!(names.len(), 10);
        seen.extend(names);
    }
    assert!(seen.len() > 950, "{} of 1,000 in 4,000 draws", seen.len());
    let eu = all().narrowed_to("eu").unwrap();
    let sample = driver.store.sample(&eu, 50, &mut rng, driver.now);
    assert_eq!((sample.matched, sample.instances.len()), (100, 50));
    assert!(eu.narrowed_to("us").is_none());
}

#[test]
fn discovery_counts_and_draws_without_those_that_drain_or_are_overdue() {
    let mut driver = Driver::unguarded();
    for number in 0..100 {
        driver.put(&format!("n{number}"), "eu", if number < 5 { 1_000 } else { 0 });
    }
    for number in 90..100 {
        let key = Some(key(&format!("n{number}")));
        driver.apply(Operation::Drain(Drain { key, drain_ms: 60_000, ..Drain::default() }));
    }
    driver.now += 1_100;
    assert_eq!(driver.take_due(driver.now, 100).len(), 5);
    let filter = Filter { kind: Kind::Agent as i32, ..Filter::default() };
    let looking = Filter { name_prefix: "n".into(), ..filter.clone() };
    let mut rng = random();
    for filter in [filter, looking] {
        let filter = CompiledFilter::for_discover(&filter).unwrap();
        let sample = driver.store.sample(&filter, 20, &mut rng, driver.now);
        assert_eq!((sample.matched, sample.instances.len()), (85, 20));
        assert!(sample.instances.iter().all(|instance| instance.status == Status::Alive));
    }
}

/// Of 100,000 leases that ended at once, drawing found only those for the two seconds until they
/// were removed, and discovery answered nobody.
#[test]
fn who_is_alive_is_drawn_among_many_that_ran_out() {
    let mut driver = Driver::unguarded();
    for number in 0..10_000 {
        driver.put(&format!("n{number}"), "eu", 1_000);
    }
    driver.put("stays", "eu", 0);
    driver.now += 1_100;
    let sample = driver.store.sample(&all(), 10, &mut random(), driver.now);
    let names: Vec<_> = sample.instances.iter().map(|instance| name_of(&instance.record)).collect();
    assert_eq!((sample.matched, names), (1, vec!["stays".to_owned()]));
}

fn candidate(region: &str, free_cpu: Option<f64>) -> InstanceOwned {
    let record =
        record::encode(&KeyRef::of(&key("n")), &spec(region).encode_to_vec(), &Default::default());
    let free = |cpu| Capacity { cpu, bandwidth: 10.0, memory: 100.0, storage: 100.0 };
    InstanceOwned {
        record,
        status: Status::Alive,
        lease_remaining_ms: None,
        load: free_cpu.map(|cpu| (free(cpu), 0)),
    }
}

#[test]
fn rank_prefers_the_region_then_what_is_free_and_spreads() {
    let candidates =
        vec![candidate("us", Some(2.0)), candidate("eu", Some(0.5)), candidate("eu", Some(1.5))];
    let request = RankRequest { region: "eu", limit: 3, choices: 16 };
    let ranked = rank(candidates.clone(), &request, &mut random());
    let shares: Vec<_> = ranked.iter().map(|(_, s)| (s.region_match, s.free_capacity)).collect();
    assert_eq!(shares, [(1.0, 0.75), (1.0, 0.25), (0.0, 1.0)]);
    for (_, score) in &ranked {
        let sum = 0.5 * score.region_match + 0.4 * score.free_capacity + 0.1 * score.freshness;
        assert!((score.total - sum).abs() < 1e-12);
    }
    let mut rng = random();
    let mut freest = 0;
    for _ in 0..1_000 {
        let request = RankRequest { region: "eu", limit: 1, choices: 1 };
        let ranked = rank(candidates.clone(), &request, &mut rng);
        assert_eq!(ranked[0].1.region_match, 1.0);
        freest += u32::from(ranked[0].1.free_capacity == 0.75);
    }
    assert!((400..600).contains(&freest), "one choice spreads evenly: {freest}");
    assert!(rank(Vec::new(), &request, &mut rng).is_empty());
}

#[test]
fn what_is_missing_is_explained() {
    let mut driver = Driver::new();
    driver.put("a", "eu", 1_000);
    let explain = |driver: &Driver, name: &str, change: fn(&mut Filter)| {
        let mut filter = Filter { kind: Kind::Agent as i32, ..Filter::default() };
        change(&mut filter);
        let filter = CompiledFilter::for_discover(&filter).unwrap();
        let key = key(name);
        driver.store.explain(&KeyRef::of(&key), &filter, driver.now).map(|(reason, _)| reason)
    };
    let amount = Some(Capacity { memory: 101.0, ..Capacity::default() });
    assert_eq!(explain(&driver, "a", |_| ()), None);
    let reason = explain(&driver, "x", |_| ());
    assert_eq!(reason, Some(ExclusionReason::NotRegistered));
    let reason = explain(&driver, "a", |f| f.regions = vec!["us".into()]);
    assert_eq!(reason, Some(ExclusionReason::Region));
    let reason = explain(&driver, "a", |f| drop(f.labels.insert("k".into(), "v".into())));
    assert_eq!(reason, Some(ExclusionReason::Labels));
    let mut filter = Filter { kind: 2, min_capacity: amount, ..Filter::default() };
    let of = |filter: &Filter| {
        let filter = CompiledFilter::for_discover(filter).unwrap();
        driver.store.explain(&KeyRef::of(&key("a")), &filter, driver.now).unwrap()
    };
    assert_eq!(of(&filter), (ExclusionReason::Capacity, "memory is 100, below 101".to_owned()));
    (filter.min_capacity, filter.min_free) = (None, amount);
    assert_eq!(of(&filter).0, ExclusionReason::FreeCapacity);
    driver.now += 1_000;
    assert_eq!(explain(&driver, "a", |_| ()), Some(ExclusionReason::Expired));
    driver.put("d", "eu", 0);
    let drain = Drain { key: Some(key("d")), drain_ms: 9_000, ..Drain::default() };
    driver.apply(Operation::Drain(drain));
    assert_eq!(explain(&driver, "d", |_| ()), Some(ExclusionReason::Draining));
    assert!(CompiledFilter::for_discover(&Filter::default()).is_err(), "the kind must be given");
}
