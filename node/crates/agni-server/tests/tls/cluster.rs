//! Nodes among each other: each is the one that its certificate names, or nobody.

use super::authority::{Authority, Files, Pair, connect};
use super::{PATIENCE, ask, support};
use agni_server::peer::ClusterConfig;
use agni_server::{Server, ServerConfig};
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

const NAMES: [&str; 3] = ["a", "b", "c"];

struct Nodes {
    directory: tempfile::TempDir,
    authority: Authority,
    ports: Vec<String>,
}

impl Nodes {
    fn new() -> Nodes {
        let free = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
            listener.local_addr().expect("address").to_string()
        };
        let directory = tempfile::tempdir().expect("directory");
        let ports = NAMES.iter().map(|_| free()).collect();
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
    fn start(&self, configs: Vec<ServerConfig>, patience: Duration) -> Vec<Option<Server>> {
        let starting: Vec<_> = configs
            .into_iter()
            .map(|config| {
                std::thread::spawn(move || {
                    let began = Instant::now();
                    Server::start_while(config, &|| began.elapsed() < patience).ok()
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
    let servers = tokio::task::block_in_place(|| nodes.start(configs, PATIENCE));
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
    assert!(servers.iter().all(Option::is_none), "a cluster was founded with an impostor");
}
