//! Nodes among each other: each is the one that its certificate names, or nobody.

use super::authority::{Authority, Files, Pair, connect};
use super::{PATIENCE, ask, support};
use agni_core::proto::node::{ClusterMember, JoinRequest, RaftBatch, RaftFrame};
use agni_server::peer::ClusterConfig;
use agni_server::{Server, ServerConfig, ServerError};
use prost::Message as _;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

const NAMES: [&str; 3] = ["a", "b", "c"];
/// A disk that a build has just filled takes seconds to make each log's beginning safe.
const FOUNDED_WITHIN: Duration = Duration::from_secs(60);

struct Nodes {
    directory: tempfile::TempDir,
    authority: Authority,
    ports: Vec<String>,
}

impl Nodes {
    fn new() -> Nodes {
        let directory = tempfile::tempdir().expect("directory");
        let ports = NAMES.iter().map(|_| support::free_address()).collect();
        Nodes { directory, authority: Authority::new("root"), ports }
    }

    fn leaf(&self, name: &str) -> Pair {
        self.authority.leaf(&format!("/registry/node/{name}"))
    }

    /// A node's settings, with a certificate that may be another's.
    fn config(&self, index: usize, pair: &Pair) -> ServerConfig {
        let name = NAMES[index];
        let folder = self.directory.path().join(format!("files-{name}"));
        std::fs::create_dir_all(&folder).expect("folder");
        let mut config = support::config(&self.directory);
        config.engine.data_dir = self.directory.path().join(name);
        config.runtimes = 1;
        config.tls = Some(Files::new(Path::new(&folder), &self.authority, pair).config());
        config.cluster = Some(ClusterConfig {
            name: name.to_owned(),
            listen: self.ports[index].clone(),
            seeds: self.ports.clone(),
            ..ClusterConfig::default()
        });
        config
    }

    /// Starts those; each waits for its cluster for so long.
    fn start(
        &self,
        configs: Vec<ServerConfig>,
        patience: Duration,
    ) -> Vec<Result<Server, ServerError>> {
        let starting: Vec<_> = configs
            .into_iter()
            .map(|config| {
                std::thread::spawn(move || {
                    let began = Instant::now();
                    Server::start_while(config, &|| began.elapsed() < patience)
                })
            })
            .collect();
        starting.into_iter().map(|thread| thread.join().expect("start")).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_prove_who_they_are_replicate() {
    let nodes = Nodes::new();
    let configs = (0..3).map(|index| nodes.config(index, &nodes.leaf(NAMES[index]))).collect();
    let servers = tokio::task::block_in_place(|| nodes.start(configs, FOUNDED_WITHIN));
    let servers: Vec<Server> = servers.into_iter().map(|server| server.expect("server")).collect();
    let client = nodes.authority.client(Some(&nodes.authority.leaf("/operator")), "http/1.1");
    let body = r#"{"name":"g","region":"eu","gateway_ip":"10.0.0.1","gateway_port":1}"#;
    for (index, server) in servers.iter().enumerate() {
        let mut stream = connect(server.local_address(), &client).await.expect("connect");
        let answer = ask(&mut stream, "POST", "/v1/gateways", body).await.expect("answer");
        let expected = if index == 0 { "HTTP/1.1 201" } else { "HTTP/1.1 200" };
        assert!(answer.starts_with(expected), "node {index}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_shows_anothers_certificate_is_nobody() {
    let nodes = Nodes::new();
    // The third one is configured as c, and shows the certificate of a node x.
    let pairs = [nodes.leaf("a"), nodes.leaf("b"), nodes.leaf("x")];
    let configs = (0..3).map(|index| nodes.config(index, &pairs[index])).collect();
    let patience = Duration::from_secs(3);
    let servers = tokio::task::block_in_place(|| nodes.start(configs, patience));
    assert!(servers.iter().all(Result::is_err), "a cluster was founded with an impostor");
}

const JOIN: &str = "/agniregistry.node.v1.PeerService/Join";
const RAFT: &str = "/agniregistry.node.v1.PeerService/Raft";
const PERMISSION_DENIED: Option<i32> = Some(7);

/// Three nodes that run, and whoever has a certificate of theirs.
struct Established {
    nodes: Nodes,
    servers: Vec<Server>,
}

impl Established {
    fn new() -> Established {
        let nodes = Nodes::new();
        let configs = (0..3).map(|index| nodes.config(index, &nodes.leaf(NAMES[index]))).collect();
        let servers = tokio::task::block_in_place(|| nodes.start(configs, FOUNDED_WITHIN));
        let servers = servers.into_iter().map(|server| server.expect("server")).collect();
        Established { nodes, servers }
    }

    async fn get(&self, index: usize, path: &str) -> String {
        let operator = self.nodes.authority.leaf("/operator");
        let client = self.nodes.authority.client(Some(&operator), "http/1.1");
        let address = self.servers[index].local_address();
        let mut stream = connect(address, &client).await.expect("connect");
        let answer = ask(&mut stream, "GET", path, "").await.expect("answer");
        answer.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }

    /// A metric's value on the first node.
    async fn metric(&self, name: &str) -> f64 {
        let page = self.get(0, "/metrics").await;
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    /// The members' identities by their names.
    async fn members(&self) -> Value {
        let body = self.get(0, "/v1/members").await;
        serde_json::from_str(&body).expect("json")
    }

    async fn identity(&self, name: &str) -> u64 {
        let members = self.members().await;
        let found = members["members"].as_array().expect("members").iter().find_map(|member| {
            (member["name"] == name).then(|| member["node_id"].as_str().expect("id").to_owned())
        });
        found.expect("a member").parse().expect("a number")
    }

    /// Calls a node's peer port with the certificate of the node `name`.
    async fn call(&self, name: &str, index: usize, path: &str, body: &[u8]) -> Option<i32> {
        let client = self.nodes.authority.client(Some(&self.nodes.leaf(name)), "agni-peer/1");
        let address = self.nodes.ports[index].parse().expect("address");
        let stream = connect(address, &client).await.expect("connect");
        let mut sender = support::connect_on(stream).await;
        support::raw_call_on(&mut sender, path, &[], support::frame(body)).await.grpc_status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_takes_the_place_of_a_node_that_is_down() {
    let mut established = Established::new();
    let before = established.identity("c").await;
    let server = established.servers.remove(2);
    tokio::task::block_in_place(|| server.stop());
    let member =
        ClusterMember { name: "c".into(), nonce: vec![7; 16].into(), ..ClusterMember::default() };
    let mut request = JoinRequest { member: Some(member), ..JoinRequest::default() };
    for carried in [false, true] {
        let mut body = request.encode_to_vec();
        if carried {
            // As if a member had carried it on, which made the name not matter once.
            body.extend_from_slice(&[0x10, 1]);
        }
        for (name, index) in [("x", 0), ("x", 1), ("a", 1), ("b", 0), ("b", 1)] {
            let status = established.call(name, index, JOIN, &body).await;
            assert_eq!(status, PERMISSION_DENIED, "as {name} at {index}");
        }
    }
    assert_eq!(established.identity("c").await, before);
    let refused = "agni_tls_handshake_failures_total{reason=\"wrong_node\"}";
    assert!(established.metric(refused).await >= 4.0);
    // Under its own name anybody with a node's certificate may come.
    request.member.as_mut().expect("member").name = "x".into();
    let deadline = Instant::now() + PATIENCE;
    while established.call("x", 0, JOIN, &request.encode_to_vec()).await != Some(0) {
        assert!(Instant::now() < deadline, "nobody is let in");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_speaks_for_itself_alone() {
    let established = Established::new();
    let status: Value =
        serde_json::from_str(&established.get(0, "/v1/status").await).expect("json");
    let cluster_id = status["cluster_id"].as_str().expect("cluster_id");
    let cluster_id = u128::from_str_radix(cluster_id, 16).expect("hexadecimal").to_be_bytes();
    let (b, c) = (established.identity("b").await, established.identity("c").await);
    let to = established.identity("a").await;
    // A heartbeat of a term that nobody has reached would depose every leader.
    let lie = RaftFrame { partition: 0, kind: 8, from: c, to, term: 9_999, ..RaftFrame::default() };
    let batch = |from| RaftBatch {
        from,
        cluster_id: cluster_id.to_vec().into(),
        frames: vec![lie.clone()],
        peer_address: String::new(),
    };
    let as_c = batch(c).encode_to_vec();
    assert_eq!(established.call("b", 0, RAFT, &as_c).await, PERMISSION_DENIED);
    let refused = established.metric("agni_peer_refused_total").await;
    let logged = "agni_tls_handshake_failures_total{reason=\"wrong_node\"}";
    let seen = established.metric(logged).await;
    assert!(refused >= 1.0 && seen >= 1.0);
    // As itself, with a message of somebody else: that one is dropped, and told of.
    let as_b = batch(b).encode_to_vec();
    assert_eq!(established.call("b", 0, RAFT, &as_b).await, Some(0));
    assert!(established.metric("agni_peer_refused_total").await > refused);
    assert!(established.metric(logged).await > seen);
    let term = established.metric("agni_term{partition=\"0\"}").await;
    assert!(term < 9_999.0, "the message was taken");
}
