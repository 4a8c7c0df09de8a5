//! Several servers that are one registry.

mod support;

use agni_core::env::RealDisk;
use agni_core::proto::api::{self, WatchPhase};
use agni_core::proto::node::SnapshotFooter;
use agni_core::snapshot::{self, SnapshotItem, SnapshotWriter};
use agni_server::peer::ClusterConfig;
use agni_server::services::registry_service_client::RegistryServiceClient;
use agni_server::{Server, ServerConfig};
use prost::Message as _;
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Long enough for an election on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Cluster {
    directory: tempfile::TempDir,
    seeds: Vec<String>,
    ports: Vec<String>,
    servers: Vec<Option<Server>>,
    /// What a test wants to be different, by node.
    tune: Tune,
}

type Tune = Box<dyn Fn(usize, &mut ServerConfig) + Send>;

impl Cluster {
    /// Founds a cluster of so many.
    fn found(count: usize) -> Cluster {
        Cluster::found_with(count, Box::new(|_, _| ()))
    }

    fn found_with(count: usize, tune: Tune) -> Cluster {
        let directory = tempfile::tempdir().expect("directory");
        let seeds: Vec<String> = (0..count).map(|_| support::free_address()).collect();
        let ports = seeds.clone();
        let mut cluster = Cluster { directory, seeds, ports, servers: Vec::new(), tune };
        let configs: Vec<_> = (0..count).map(|index| cluster.config(index)).collect();
        let starting: Vec<_> = configs
            .into_iter()
            .map(|config| std::thread::spawn(|| Server::start(config).expect("server")))
            .collect();
        let servers = starting.into_iter().map(|thread| Some(thread.join().expect("start")));
        cluster.servers = servers.collect();
        cluster.wait_until("every node is ready", |cluster| {
            cluster.running().iter().all(|server| server.ready())
        });
        cluster
    }

    fn data_dir(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("n{index}"))
    }

    fn config(&self, index: usize) -> ServerConfig {
        let mut config = support::config(&self.directory);
        config.engine.data_dir = self.data_dir(index);
        config.runtimes = 1;
        config.engine.state_check_ms = 200;
        config.cluster = Some(ClusterConfig {
            name: format!("n{index}"),
            listen: self.ports[index].clone(),
            seeds: self.seeds.clone(),
            ..ClusterConfig::default()
        });
        (self.tune)(index, &mut config);
        config
    }

    fn running(&self) -> Vec<&Server> {
        self.servers.iter().flatten().collect()
    }

    fn address(&self, index: usize) -> SocketAddr {
        self.servers[index].as_ref().expect("it runs").local_address()
    }

    fn stop(&mut self, index: usize) {
        let server = self.servers[index].take().expect("it runs");
        server.stop();
    }

    fn start(&mut self, index: usize) {
        let server = Server::start(self.config(index)).expect("server");
        self.servers[index] = Some(server);
    }

    /// Another node, which was no founder.
    fn join(&mut self) -> usize {
        let index = self.ports.len();
        self.ports.push(support::free_address());
        self.servers.push(None);
        self.start(index);
        index
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&Cluster) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until these are the replicas of every partition: the old ones are out everywhere, so
    /// the loss of another node leaves a majority.
    fn wait_until_all_vote(&self, wanted: &[&str]) {
        self.wait_until("the new one votes in place of the old one", |cluster| {
            let (_, routing) = cluster.http(0, "GET", "/v1/routing", "");
            let partitions = routing["partitions"].as_array().expect("partitions");
            partitions.iter().all(|partition| {
                let replicas = partition["replica_ids"].as_array().expect("ids");
                let mut ids: Vec<&str> = replicas.iter().filter_map(Value::as_str).collect();
                ids.sort_unstable();
                ids == wanted
            })
        });
    }

    fn http(&self, index: usize, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, _, body) = support::http_raw(self.address(index), method, path, body, "");
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// Registers a gateway, again where the leader was lost on the way: it is the same each time.
    fn register(&self, index: usize, name: &str) {
        let body = json!({
            "name": name, "region": "eu", "gateway_ip": "10.0.0.1", "gateway_port": 4000
        });
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (status, answer) = self.http(index, "POST", "/v1/gateways", &body.to_string());
            if matches!(status, 200 | 201) {
                return;
            }
            assert!(status == 503 && Instant::now() < deadline, "{status} {answer}");
        }
    }

    fn names(&self, index: usize, query: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut token = String::new();
        loop {
            let path = format!("/v1/gateways?page_size=7&page_token={token}{query}");
            let (status, page) = self.http(index, "GET", &path, "");
            assert_eq!(status, 200, "{page}");
            for instance in page["instances"].as_array().expect("instances") {
                names.push(instance["name"].as_str().expect("name").to_owned());
            }
            token = page["next_page_token"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                names.sort();
                return names;
            }
        }
    }

    /// A counter, of all nodes together.
    fn count(&self, metric: &str) -> u64 {
        let count = |index| {
            let (_, _, text) = support::http_raw(self.address(index), "GET", "/metrics", "", "");
            let line = text.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<u64>().ok()).expect("a number")
        };
        (0..self.servers.len()).map(count).sum()
    }

    /// The sum of a metric's values on a node.
    fn metric(&self, index: usize, name: &str) -> f64 {
        let (_, _, page) = support::http_raw(self.address(index), "GET", "/metrics", "", "");
        let values = page.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// What each partition of a node is at, and the hash of its state there.
    fn states(&self, index: usize) -> Vec<(Value, Value)> {
        let (_, status) = self.http(index, "GET", "/v1/status", "");
        let partitions = status["partitions"].as_array().expect("partitions");
        partitions.iter().map(|p| (p["applied_index"].clone(), p["state_hash"].clone())).collect()
    }

    /// What a node holds itself, without asking anybody.
    fn records(&self, index: usize) -> u64 {
        let (_, status) = self.http(index, "GET", "/v1/status", "");
        let partitions = status["partitions"].as_array().expect("partitions");
        partitions.iter().map(|p| p["records"].as_u64().expect("records")).sum()
    }
}

#[test]
fn any_node_takes_any_request_and_all_show_the_same() {
    let cluster = Cluster::found(3);
    let mut expected = Vec::new();
    for number in 0..30 {
        let name = format!("g{number:02}");
        cluster.register(number % 3, &name);
        expected.push(name);
    }
    for index in 0..3 {
        assert_eq!(cluster.names(index, ""), expected, "node {index}");
        let (status, one) = cluster.http(index, "GET", "/v1/gateways/g07", "");
        assert_eq!((status, &one["region"]), (200, &json!("eu")));
        let (status, found) = cluster.http(index, "GET", "/v1/discover?kind=gateway", "");
        assert_eq!((status, found["matched"].as_u64()), (200, Some(30)));
        let (_, routing) = cluster.http(index, "GET", "/v1/routing", "");
        assert_eq!(routing["members"].as_array().map(Vec::len), Some(3));
        let (_, members) = cluster.http(index, "GET", "/v1/members", "");
        let states: Vec<_> = (0..3).map(|i| members["members"][i]["state"].clone()).collect();
        assert_eq!(states, ["active"; 3]);
        let led = members["placements"].as_array().expect("placements").iter();
        assert!(led.clone().all(|p| p["leader_id"] != "0" && p["wanted"].as_array().is_some()));
        assert_eq!(led.count(), routing["partitions"].as_array().expect("partitions").len());
    }
    let (status, refused) = cluster.http(1, "GET", "/v1/gateways/nobody", "");
    assert_eq!((status, &refused["error"]["reason"]), (404, &json!("NOT_FOUND")));
    let taken = r#"{"name":"g01","region":"us","gateway_ip":"10.0.0.1","gateway_port":1,
        "expected_revision":0}"#;
    for index in 0..3 {
        let (status, refused) = cluster.http(index, "POST", "/v1/gateways", taken);
        assert_eq!((status, &refused["error"]["reason"]), (409, &json!("ALREADY_EXISTS")));
    }
}

#[test]
fn one_node_of_three_may_be_gone_and_catches_up() {
    let mut cluster = Cluster::found(3);
    cluster.register(0, "before");
    for gone in 0..3 {
        cluster.stop(gone);
        let other = (gone + 1) % 3;
        for number in 0..10 {
            cluster.register(other, &format!("while-{gone}-is-gone-{number}"));
        }
        assert_eq!(cluster.names(other, "").len(), 1 + 10 * (gone + 1));
        cluster.start(gone);
        let all = 1 + 10 * (gone as u64 + 1);
        cluster.wait_until("it has caught up", |cluster| cluster.records(gone) == all);
    }
}

#[test]
fn a_wiped_node_comes_back_as_a_new_member_in_its_old_place() {
    let mut cluster = Cluster::found(3);
    for number in 0..20 {
        cluster.register(0, &format!("g{number}"));
    }
    cluster.stop(2);
    std::fs::remove_dir_all(cluster.data_dir(2)).expect("wipe");
    cluster.start(2);
    cluster.wait_until("it holds everything again", |cluster| cluster.records(2) == 20);
    let (_, status) = cluster.http(2, "GET", "/v1/status", "");
    assert_eq!(status["node_id"], json!("4"), "an identity is never given twice");
    cluster.wait_until_all_vote(&["1", "2", "4"]);
    cluster.stop(0);
    cluster.register(2, "after");
    assert_eq!(cluster.names(1, "").len(), 21);
}

#[test]
fn without_lease_reads_a_quorum_is_asked_for_each_read_and_renewal() {
    const READS: u64 = 40;
    const RENEWALS: u64 = 20;
    for lease_reads in [true, false] {
        let cluster = Cluster::found_with(
            3,
            Box::new(move |_, config| config.engine.lease_reads = lease_reads),
        );
        let body = json!({
            "name": "g", "region": "eu", "gateway_ip": "10.0.0.1", "gateway_port": 1,
            "ttl_ms": 60_000
        });
        let (status, made) = cluster.http(0, "POST", "/v1/gateways", &body.to_string());
        assert!(matches!(status, 200 | 201), "{made}");
        let renewal = json!({ "lease_ids": [made["lease_id"]] }).to_string();
        let before = cluster.count("agni_quorum_rounds_total");
        for _ in 0..READS {
            let (status, one) = cluster.http(1, "GET", "/v1/gateways/g?consistency=leader", "");
            assert_eq!((status, &one["region"]), (200, &json!("eu")));
        }
        for _ in 0..RENEWALS {
            let (status, renewed) = cluster.http(2, "POST", "/v1/leases/renew", &renewal);
            assert_eq!((status, &renewed["renewed"]), (200, &json!(1)), "{renewed}");
        }
        let rounds = cluster.count("agni_quorum_rounds_total") - before;
        match lease_reads {
            // They came one after the other, so none of them shared a round.
            false => assert!(rounds >= READS + RENEWALS, "{rounds} rounds"),
            true => assert!(rounds < READS + RENEWALS, "{rounds} rounds"),
        }
    }
}

/// The call is made without a clock of its own: the server is the one that looks at it.
#[tokio::test(flavor = "multi_thread")]
async fn a_write_is_given_up_when_its_callers_time_is_over() {
    let mut cluster = tokio::task::block_in_place(|| Cluster::found(3));
    let address = cluster.address(0).to_string();
    let path = "/agniregistry.api.v1.RegistryService/Register";
    let body = |name| support::frame(&support::register(name, "eu").encode_to_vec());
    let made = support::raw_call(&address, path, &[("grpc-timeout", "10S")], body("first")).await;
    assert_eq!(made.grpc_status, Some(0), "time enough changes nothing: {:?}", made.reason);
    // Nobody is left who could acknowledge it.
    tokio::task::block_in_place(|| {
        cluster.stop(1);
        cluster.stop(2);
    });
    let began = Instant::now();
    let answer = support::raw_call(&address, path, &[("grpc-timeout", "50m")], body("late")).await;
    assert_eq!(answer.reason.as_deref(), Some("DEADLINE_EXCEEDED"));
    assert!(began.elapsed() >= Duration::from_millis(50));
    let (_, _, page) = tokio::task::block_in_place(|| {
        support::http_raw(cluster.address(0), "GET", "/metrics", "", "")
    });
    assert!(page.contains(r#"method="Register",code="DEADLINE_EXCEEDED"} 1"#), "{page}");
    tokio::task::block_in_place(|| {
        cluster.start(1);
        cluster.register(0, "later");
    });
}

/// Flips a bit in the middle of what a log says.
fn damage(data_dir: &Path) {
    let segments = std::fs::read_dir(data_dir.join("wal")).expect("log");
    let paths = segments.map(|entry| entry.expect("entry").path());
    let first = paths.filter(|path| path.extension().is_some_and(|e| e == "wal")).min();
    let path = first.expect("a segment");
    let mut bytes = std::fs::read(&path).expect("segment");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("something was written");
    bytes[end / 2] ^= 0x10;
    std::fs::write(&path, bytes).expect("damage");
}

#[test]
fn a_node_whose_log_is_damaged_keeps_it_aside_and_joins_anew() {
    let mut cluster = Cluster::found(3);
    for number in 0..20 {
        cluster.register(0, &format!("g{number}"));
    }
    cluster.stop(2);
    damage(&cluster.data_dir(2));
    let mut careful = cluster.config(2);
    careful.cluster.as_mut().expect("cluster").rejoin_after_damage = false;
    let refused = Server::start(careful).err().expect("it was told to refuse");
    assert_eq!(refused.code, "CORRUPT", "{}", refused.message);
    let kept = cluster.data_dir(2).join("damaged-1");
    assert!(!kept.exists());
    cluster.start(2);
    cluster.wait_until("it holds everything again", |cluster| cluster.records(2) == 20);
    let (_, status) = cluster.http(2, "GET", "/v1/status", "");
    assert_eq!(status["node_id"], json!("4"), "it is another member");
    assert!(kept.join("node.meta").exists() && kept.join("wal").exists());
    cluster.wait_until_all_vote(&["1", "2", "4"]);
    cluster.stop(0);
    cluster.register(2, "after");
    assert_eq!(cluster.names(1, "").len(), 21);
    // From here on it is a node like any other.
    cluster.stop(2);
    cluster.start(0);
    cluster.start(2);
    cluster.wait_until("it has caught up", |cluster| cluster.records(2) == 21);
}

#[test]
fn nodes_that_are_all_damaged_found_nothing_new() {
    let mut cluster = Cluster::found(3);
    cluster.register(0, "g");
    for index in 0..3 {
        cluster.stop(index);
        damage(&cluster.data_dir(index));
    }
    let began = Instant::now();
    let starting: Vec<_> = (0..3)
        .map(|index| {
            let config = cluster.config(index);
            std::thread::spawn(move || {
                Server::start_while(config, &|| began.elapsed() < Duration::from_secs(3))
            })
        })
        .collect();
    for thread in starting {
        let ended = thread.join().expect("no panic").err().expect("there is nobody to join");
        assert_eq!(ended.code, "INTERRUPTED");
    }
    for index in 0..3 {
        assert!(cluster.data_dir(index).join("damaged-1/wal").exists(), "nothing is lost");
    }
}

#[test]
fn a_node_joins_and_serves_what_it_does_not_hold() {
    let mut cluster = Cluster::found(3);
    for number in 0..20 {
        cluster.register(0, &format!("g{number:02}"));
    }
    let fourth = cluster.join();
    cluster.register(fourth, "g20");
    assert_eq!(cluster.records(fourth), 0, "nothing was moved there");
    assert_eq!(cluster.names(fourth, "").len(), 21);
    assert_eq!(cluster.names(fourth, "&consistency=stale").len(), 21);
    let (status, found) = cluster.http(fourth, "GET", "/v1/discover?kind=gateway", "");
    assert_eq!((status, found["matched"].as_u64()), (200, Some(21)));
    // The same name twice is a mistake: the one that lives keeps it.
    let mut double = cluster.config(0);
    double.engine.data_dir = cluster.directory.path().join("double");
    if let Some(settings) = &mut double.cluster {
        settings.listen = support::free_address();
    }
    let began = Instant::now();
    let refused = Server::start_while(double, &|| began.elapsed() < Duration::from_secs(2));
    assert_eq!(refused.err().map(|error| error.code), Some("INTERRUPTED".to_owned()));
    assert_eq!(cluster.names(0, "").len(), 21);
}

#[test]
fn without_a_majority_only_stale_reads_go_on_and_say_how_old_they_are() {
    let mut cluster = Cluster::found(3);
    cluster.register(0, "g");
    cluster.wait_until("the last node has it", |cluster| cluster.records(2) == 1);
    let age = |cluster: &Cluster| -> Option<u64> {
        let path = "/v1/gateways/g?consistency=stale";
        let (status, head, _) = support::http_raw(cluster.address(2), "GET", path, "", "");
        assert_eq!(status, 200, "{head}");
        let line = head.lines().find(|line| line.starts_with("x-agni-age-ms: "))?;
        line.split(' ').nth(1)?.trim().parse().ok()
    };
    // Each follower knows that it is up to date, and how well.
    let fresh = "/v1/gateways/g?consistency=stale&max_staleness_ms=2000";
    cluster.wait_until("the last node knows its age", |cluster| {
        age(cluster).is_none_or(|age| age < 2_000)
    });
    assert_eq!(cluster.http(2, "GET", fresh, "").0, 200);
    cluster.stop(0);
    cluster.stop(1);
    let parted = Instant::now();
    cluster.wait_until("nobody is believed to lead", |cluster| {
        let (status, answer) = cluster.http(2, "GET", "/v1/gateways/g", "");
        status == 503 && answer["error"]["reason"] == json!("NO_LEADER")
    });
    let body = r#"{"name":"h","region":"eu","gateway_ip":"10.0.0.1","gateway_port":1}"#;
    let (status, refused) = cluster.http(2, "POST", "/v1/gateways", body);
    assert_eq!((status, &refused["error"]["reason"]), (503, &json!("NO_LEADER")));
    let old = age(&cluster).expect("an age");
    let least = parted.elapsed().as_millis() as u64 - 1_000;
    assert!(old >= least, "{old} ms is younger than the last leader, {least} ms ago");
    let (status, refused) = cluster.http(2, "GET", fresh, "");
    assert_eq!(status, 503, "{refused}");
    assert_eq!(cluster.names(2, "&consistency=stale"), ["g"]);
}

/// What a watch has shown: names in the order in which they came, and the last token.
struct Seen {
    watch: tonic::Streaming<api::WatchResponse>,
    names: Vec<String>,
    token: bytes::Bytes,
}

impl Seen {
    async fn open(address: SocketAddr, request: api::WatchRequest) -> Seen {
        let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
        let channel = channel.expect("address").connect().await.expect("connect");
        let watch = RegistryServiceClient::new(channel).watch(request).await.expect("watch");
        Seen { watch: watch.into_inner(), names: Vec::new(), token: bytes::Bytes::new() }
    }

    /// Reads until so many changes were shown, and if asked the end of what was there before.
    async fn read_until(&mut self, count: usize, phase: Option<WatchPhase>) {
        let mut open = phase;
        while self.names.len() < count || open.is_some() {
            let message = tokio::time::timeout(PATIENCE, self.watch.message()).await;
            let message = message.expect("in time").expect("message").expect("more");
            if Some(message.phase()) == open {
                open = None;
            }
            if !message.resume_token.is_empty() {
                self.token = message.resume_token;
            }
            let keys = message.events.into_iter().filter_map(|event| event.key);
            self.names.extend(keys.map(|key| key.name));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_what_its_node_does_not_hold_and_goes_on_elsewhere() {
    let mut cluster = tokio::task::spawn_blocking(|| Cluster::found(3)).await.expect("found");
    for number in 0..20 {
        cluster.register(0, &format!("before-{number}"));
    }
    let fourth = tokio::task::block_in_place(|| cluster.join());
    let current = api::WatchRequest { include_current: true, ..api::WatchRequest::default() };
    let mut seen = Seen::open(cluster.address(fourth), current).await;
    seen.read_until(20, Some(WatchPhase::Synced)).await;
    for number in 0..30 {
        cluster.register(number % 4, &format!("while-{number}"));
    }
    seen.read_until(50, None).await;
    assert_eq!(seen.names.len(), 50);
    assert_eq!(seen.names.iter().collect::<BTreeSet<_>>().len(), 50, "each once");
    // The token is as good at a node that holds everything, and the other way round.
    for (index, round) in [(1, 0), (fourth, 1), (2, 2)] {
        let resume =
            api::WatchRequest { resume_token: seen.token.clone(), ..api::WatchRequest::default() };
        for number in 0..5 {
            cluster.register(0, &format!("after-{round}-{number}"));
        }
        seen = Seen::open(cluster.address(index), resume).await;
        seen.read_until(5, None).await;
        let expected: BTreeSet<String> = (0..5).map(|n| format!("after-{round}-{n}")).collect();
        assert_eq!(seen.names.iter().cloned().collect::<BTreeSet<_>>(), expected);
        assert_eq!(seen.names.len(), 5, "none twice");
    }
}

/// Takes the first record out of each snapshot of a directory; the files stay as valid as they
/// were. Answers how many it took.
fn forget_a_record_each(dir: &Path) -> u64 {
    let mut taken = 0;
    for files in snapshot::list(dir).expect("snapshots").into_values() {
        let path = dir.join(&files[0].file);
        let (mut header, mut blocks) = (None, Vec::new());
        let mut visit = |item: SnapshotItem| {
            match item {
                SnapshotItem::Header(found) => header = Some(found),
                SnapshotItem::Block(block) => blocks.push(block),
            }
            Ok(())
        };
        snapshot::read(&path, &mut visit).expect("valid");
        let header = header.expect("a header");
        let mut writer = SnapshotWriter::create(RealDisk::shared(), dir, &header).expect("a file");
        let mut footer = SnapshotFooter::default();
        for (position, mut block) in blocks.into_iter().enumerate() {
            if position == 0 && !block.records.is_empty() {
                block.records.remove(0);
                taken += 1;
            }
            footer.records += block.records.len() as u64;
            footer.tombstones += block.tombstones.len() as u64;
            writer.write_block(&block).expect("a block");
        }
        writer.finish(&footer).expect("the end");
    }
    taken
}

#[test]
fn a_replica_that_holds_something_else_is_found_and_replaced() {
    let mut cluster = Cluster::found(3);
    let names: Vec<String> = (0..60).map(|number| format!("g{number:02}")).collect();
    names.iter().for_each(|name| cluster.register(0, name));
    cluster.wait_until("node 2 has all", |cluster| cluster.records(2) == 60);
    let (status, taken) = cluster.http(2, "POST", "/v1/snapshots", "{}");
    assert_eq!(status, 200, "{taken}");
    cluster.stop(2);
    let lost = forget_a_record_each(&cluster.data_dir(2).join("snapshots"));
    assert!(lost > 1);
    cluster.start(2);
    // Nothing is wrong with its files, so only the others can tell.
    cluster.wait_until("it is found", |cluster| {
        cluster.register(0, "h");
        cluster.metric(2, "agni_state_mismatches_total") >= lost as f64
    });
    cluster.wait_until("it is replaced", |cluster| {
        let all = cluster.states(0);
        all == cluster.states(1) && all == cluster.states(2)
    });
    for index in 0..3 {
        assert_eq!(cluster.metric(index, "agni_state_suspect"), 0.0, "node {index}");
    }
    assert!(cluster.metric(0, "agni_state_checked_index") > 0.0);
    let stale = cluster.names(2, "&consistency=stale");
    assert!(names.iter().all(|name| stale.contains(name)));
}

/// Carries connections on to `to`, and breaks each that has brought so many bytes there. Answers
/// where it listens, and how many it has broken.
fn breaking_way(to: String, bytes_max: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    let broken = Arc::new(AtomicUsize::new(0));
    let count = broken.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let Ok(server) = TcpStream::connect(&to) else { continue };
            let (mut from, mut into) = (client.try_clone().expect("clone"), server);
            let mut back = into.try_clone().expect("clone");
            let mut client = client;
            let count = count.clone();
            std::thread::spawn(move || {
                let (mut buffer, mut carried) = ([0; 16 << 10], 0);
                while let Ok(read @ 1..) = from.read(&mut buffer) {
                    carried += read;
                    if carried > bytes_max {
                        count.fetch_add(1, Relaxed);
                        break;
                    }
                    if into.write_all(&buffer[..read]).is_err() {
                        break;
                    }
                }
                let _ = from.shutdown(Shutdown::Both);
                let _ = into.shutdown(Shutdown::Both);
            });
            std::thread::spawn(move || std::io::copy(&mut back, &mut client));
        }
    });
    (address, broken)
}

/// Text that doesn't pack well.
fn noise(state: &mut u64, length: usize) -> String {
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut letter = || letters[agni_core::random::next(state) as usize % letters.len()] as char;
    (0..length).map(|_| letter()).collect()
}

#[test]
fn a_snapshot_that_breaks_at_each_piece_goes_on_where_it_broke() {
    const PIECE: usize = 256 << 10;
    const RATE: u64 = 1 << 20;
    let ports: Arc<parking_lot::Mutex<String>> = Arc::default();
    let way = ports.clone();
    let tune = move |index: usize, config: &mut ServerConfig| {
        config.engine.partitions = 1;
        config.engine.state_check_ms = 0;
        if let Some(cluster) = &mut config.cluster {
            cluster.snapshot_bytes_per_s = RATE;
            if index == 2 {
                way.lock().clone_into(&mut cluster.address);
            }
        }
    };
    let mut cluster = Cluster::found_with(3, Box::new(tune));
    let mut state = 7;
    for number in 0..700 {
        let labels: Vec<String> =
            (0..12).map(|n| format!("\"l{n}\":\"{}\"", noise(&mut state, 200))).collect();
        let body = format!(
            "{{\"name\":\"g{number}\",\"region\":\"eu\",\"gateway_ip\":\"10.0.0.1\",\
             \"gateway_port\":1,\"labels\":{{{}}}}}",
            labels.join(",")
        );
        let (status, answer) = cluster.http(0, "POST", "/v1/gateways", &body);
        assert!(matches!(status, 200 | 201), "{answer}");
    }
    cluster.stop(2);
    std::fs::remove_dir_all(cluster.data_dir(2)).expect("wipe");
    // A piece and a half pass each time; what else goes this way is little.
    let (address, broken) = breaking_way(cluster.ports[2].clone(), PIECE * 3 / 2);
    *ports.lock() = address;
    // Whoever was stopped may have led.
    cluster.register(0, "last");
    let term = |cluster: &Cluster| cluster.metric(0, "agni_term");
    let (before, seen) = (term(&cluster), Cell::new(0.0));
    let begun = Instant::now();
    cluster.start(2);
    cluster.wait_until("it holds everything again", |cluster| {
        let now = term(cluster);
        let is_whole = cluster.records(2) == 701;
        if !is_whole {
            // Once it is, it may be given the leadership.
            seen.set(now);
        }
        is_whole
    });
    let took = begun.elapsed();
    let files = snapshot::list(&cluster.data_dir(2).join("snapshots")).expect("snapshots");
    let path = cluster.data_dir(2).join("snapshots").join(&files[&0][0].file);
    let bytes = std::fs::metadata(path).expect("a file").len();
    assert!(bytes > 4 * PIECE as u64, "{bytes} bytes are too few to break often");
    assert!(broken.load(Relaxed) as u64 >= bytes / (PIECE as u64 * 2), "{broken:?} breaks");
    // From the beginning each time it would never have come to an end.
    let metric = "agni_peer_snapshot_bytes_received_total";
    let (_, _, page) = support::http_raw(cluster.address(2), "GET", "/metrics", "", "");
    let received = page.lines().find_map(|line| line.strip_prefix(metric)?.trim().parse().ok());
    let received: f64 = received.expect("a figure");
    // The system group's came, too; nothing that had arrived was sent again.
    assert!(received <= bytes as f64 + PIECE as f64, "{received} of {bytes} bytes");
    let least = Duration::from_secs_f64((bytes - PIECE as u64) as f64 / RATE as f64);
    assert!(took >= least, "{bytes} bytes in {took:?} are too many a second");
    assert_eq!(seen.get(), before, "heartbeats were late");
}
