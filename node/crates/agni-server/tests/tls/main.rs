//! TLS from outside: who is let in and who is not, and files that change while a node runs.
#![allow(missing_docs)]

mod authority;
mod cluster;
mod connections;
#[path = "../support/mod.rs"]
mod support;

use agni_server::tls::{PeerName, Port, Reason, Reload, Tls};
use authority::{Authority, Files, Pair, TRUST_DOMAIN, connect};
use prost::Message;
use rcgen::{KeyPair, PKCS_ED25519};
use std::fmt::Debug;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use support::{Running, connect_on, frame, raw_call_on, register, start_with};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(10);
const NODE: &str = "/registry/node/1";
const AGENT: &str = "/t/default/agent/a";
const REGISTER: &str = "/agniregistry.api.v1.RegistryService/Register";

/// A server with a CA, a client that it lets in, and its files.
struct Secure {
    running: Running,
    authority: Authority,
    files: Files,
    agent: Pair,
    _folder: tempfile::TempDir,
}

impl Secure {
    fn start() -> Secure {
        let authority = Authority::new("root");
        let folder = tempfile::tempdir().expect("folder");
        let files = Files::new(folder.path(), &authority, &authority.leaf(NODE));
        let running = start_with(|config| config.tls = Some(files.config()));
        let agent = authority.leaf(AGENT);
        Secure { running, authority, files, agent, _folder: folder }
    }

    fn client(&self, protocol: &str) -> TlsConnector {
        self.authority.client(Some(&self.agent), protocol)
    }

    /// One request over HTTP/1 as a client that is let in, with the node's certificate.
    async fn get(&self, path: &str) -> (String, Vec<u8>) {
        let address = self.running.server.local_address();
        let mut stream = connect(address, &self.client("http/1.1")).await.expect("connect");
        let certificate = stream.get_ref().1.peer_certificates().expect("certificate")[0].to_vec();
        let answer = ask(&mut stream, "GET", path, "").await.expect("answer");
        (answer, certificate)
    }

    async fn metric(&self, name: &str) -> i64 {
        let (text, _) = self.get("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse().ok()).expect("metric")
    }

    async fn wait_for(&self, name: &str, least: i64) {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.metric(name).await < least {
            assert!(tokio::time::Instant::now() < deadline, "{name} did not reach {least}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// One HTTP/1 request, and all that is answered.
async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<String> {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("now")
}

#[tokio::test]
async fn a_good_certificate_is_served_over_both_protocols() {
    let secure = Secure::start();
    let address = secure.running.server.local_address();
    let stream = connect(address, &secure.client("h2")).await.expect("connect");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut sender = connect_on(stream).await;
    let body = frame(&register("g", "eu").encode_to_vec());
    let answer = raw_call_on(&mut sender, REGISTER, &[], body).await;
    assert_eq!(answer.grpc_status, Some(0));
    let stream = connect(address, &secure.client("http/1.1")).await.expect("connect");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let (answer, _) = secure.get("/v1/gateways/g").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let left = secure.metric("agni_tls_certificate_expiry_seconds").await;
    assert!((86_000..=86_400).contains(&left), "{left}");
    let stranger = connect(address, &secure.client("gopher")).await;
    assert!(stranger.is_err(), "an unknown protocol was served");
    assert!(secure.running.server.ready());
}

#[tokio::test]
async fn everybody_else_is_refused_and_counted_by_reason() {
    let secure = Secure::start();
    let (ours, foreign) = (&secure.authority, Authority::new("foreign"));
    let past = unix_now() - Duration::from_secs(1);
    let uris = |uris: &[&str]| {
        let uris: Vec<String> = uris.iter().map(|uri| (*uri).to_owned()).collect();
        ours.leaf_with("", move |wish| wish.uris = uris)
    };
    let cases = [
        ("no_certificate", None),
        ("expired", Some(ours.leaf_with(AGENT, |wish| wish.ends = past))),
        ("untrusted", Some(foreign.leaf(AGENT))),
        ("trust_domain", Some(uris(&["spiffe://us.example.org/t/default/agent/a"]))),
        ("identity", Some(uris(&[]))),
        ("identity", Some(uris(&["spiffe://eu.example.org/a", "spiffe://eu.example.org/b"]))),
        ("identity", Some(uris(&["https://eu.example.org/a"]))),
    ];
    let address = secure.running.server.local_address();
    for (reason, pair) in cases {
        let name = format!("agni_tls_handshake_failures_total{{reason=\"{reason}\"}}");
        let before = secure.metric(&name).await;
        let client = ours.client(pair.as_ref(), "http/1.1");
        // In TLS 1.3 a client learns of its refusal when it reads.
        let answer = match connect(address, &client).await {
            Ok(mut stream) => ask(&mut stream, "GET", "/healthz", "").await,
            Err(error) => Err(error),
        };
        assert!(!answer.is_ok_and(|text| text.contains("HTTP")), "{reason} was let in");
        secure.wait_for(&name, before + 1).await;
        assert_eq!(secure.metric(&name).await, before + 1);
    }
    let mut plain = TcpStream::connect(address).await.expect("connect");
    let answer = ask(&mut plain, "GET", "/healthz", "").await;
    assert!(!answer.is_ok_and(|text| text.contains("HTTP")), "plaintext was served");
    secure.wait_for("agni_tls_handshake_failures_total{reason=\"not_tls\"}", 1).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go() {
    let authority = Authority::new("root");
    let folder = tempfile::tempdir().expect("folder");
    let files = Files::new(folder.path(), &authority, &authority.leaf(NODE));
    let running = start_with(|config| {
        config.tls = Some(files.config());
        config.header_timeout_ms = 200;
    });
    let mut silent = TcpStream::connect(running.server.local_address()).await.expect("connect");
    let read = tokio::time::timeout(PATIENCE, silent.read(&mut [0; 16])).await;
    assert!(matches!(read.expect("in time"), Ok(0) | Err(_)));
}

#[tokio::test]
async fn files_are_rotated_under_an_open_watch() {
    let secure = Secure::start();
    let address = secure.running.server.local_address();
    let mut watch = connect(address, &secure.client("http/1.1")).await.expect("connect");
    watch.write_all(b"GET /v1/watch HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("write");
    read_until(&mut watch, "200 OK").await;
    let (_, before) = secure.get("/healthz").await;
    secure.files.replace(&secure.authority.leaf(NODE));
    secure.wait_for("agni_tls_reloads_total", 1).await;
    let (_, after) = secure.get("/healthz").await;
    assert_ne!(before, after, "a new handshake must see the new certificate");
    let mut writer = connect_on(connect(address, &secure.client("h2")).await.expect("new")).await;
    let body = frame(&register("after-rotation", "eu").encode_to_vec());
    assert_eq!(raw_call_on(&mut writer, REGISTER, &[], body).await.grpc_status, Some(0));
    read_until(&mut watch, "after-rotation").await;
    assert_eq!(secure.metric("agni_tls_reload_failures_total").await, 0);
}

async fn read_until(stream: &mut (impl AsyncRead + Unpin), what: &str) {
    let mut seen = String::new();
    while !seen.contains(what) {
        let mut some = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut some)).await;
        let read = read.unwrap_or_else(|_| panic!("{what} did not come: {seen}")).expect("read");
        assert!(read > 0, "the stream ended before {what}: {seen}");
        seen.push_str(&String::from_utf8_lossy(&some[..read]));
    }
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_old_ones() {
    let secure = Secure::start();
    let (_, before) = secure.get("/healthz").await;
    secure.files.write("tls.crt", "-----BEGIN CERTIFICATE-----\nrubbish\n");
    secure.wait_for("agni_tls_reload_failures_total", 1).await;
    // Many looks later it is still the one failure.
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(secure.get("/healthz").await.1, before);
    }
    assert_eq!(secure.metric("agni_tls_reload_failures_total").await, 1);
    secure.files.replace(&secure.authority.leaf(NODE));
    secure.wait_for("agni_tls_reloads_total", 1).await;
    assert_ne!(secure.get("/healthz").await.1, before);
}

#[test]
fn a_look_at_the_files_tells_new_from_broken_and_half_written() {
    let authority = Authority::new("root");
    let folder = tempfile::tempdir().expect("folder");
    let files = Files::new(folder.path(), &authority, &authority.leaf(NODE));
    let tls = Tls::load(&files.config()).expect("load");
    let failures = || tls.metrics.reload_failures.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(tls.reload_if_changed(), Reload::Unchanged);
    let new = authority.leaf(NODE);
    files.write("tls.key", &new.key);
    assert_eq!(tls.reload_if_changed(), Reload::Kept);
    assert_eq!(failures(), 0, "it may be in between");
    files.write("tls.crt", &new.certificate);
    assert_eq!(tls.reload_if_changed(), Reload::Taken);
    files.write("tls.key", &authority.leaf(NODE).key);
    for seen in [0, 1, 1] {
        assert_eq!((tls.reload_if_changed(), failures()), (Reload::Kept, seen));
    }
    files.replace(&authority.leaf("/registry/node/2"));
    assert_eq!((tls.reload_if_changed(), failures()), (Reload::Kept, 2), "another node's");
    std::fs::remove_file(files.config().trust_file).expect("remove");
    for _ in 0..2 {
        assert_eq!((tls.reload_if_changed(), failures()), (Reload::Kept, 3), "none");
    }
    files.write("ca.crt", &authority.pem);
    files.replace(&new);
    assert_eq!(tls.reload_if_changed(), Reload::Unchanged);
}

#[test]
fn a_secret_that_is_swapped_by_a_link_is_seen() {
    let authority = Authority::new("root");
    let folder = tempfile::tempdir().expect("folder");
    let path = |name: &str| folder.path().join(name);
    for version in ["v1", "v2"] {
        std::fs::create_dir(path(version)).expect("folder");
        Files::new(&path(version), &authority, &authority.leaf(NODE));
    }
    std::os::unix::fs::symlink("v1", path("data")).expect("link");
    let tls = Tls::load(&Files(path("data")).config()).expect("load");
    std::os::unix::fs::symlink("v2", path("new")).expect("link");
    std::fs::rename(path("new"), path("data")).expect("swap");
    assert_eq!(tls.reload_if_changed(), Reload::Taken);
    assert_eq!(tls.reload_if_changed(), Reload::Unchanged);
}

#[test]
fn a_start_names_the_file_at_fault() {
    let (ours, foreign) = (Authority::new("root"), Authority::new("foreign"));
    let past = unix_now() - Duration::from_secs(1);
    let good = ours.leaf(NODE);
    type Case<'a> = (&'a str, Box<dyn Fn(&Files) + 'a>);
    let cases: Vec<Case> = vec![
        (
            "tls.crt: expired",
            Box::new(|files| {
                files.replace(&ours.leaf_with(NODE, |wish| wish.ends = past));
            }),
        ),
        (
            "tls.crt: does not belong to the key",
            Box::new(|files| {
                files.write("tls.key", &ours.leaf(NODE).key);
            }),
        ),
        ("tls.crt: is not vouched for by", Box::new(|files| files.write("ca.crt", &foreign.pem))),
        (
            "tls.crt: is of the trust domain",
            Box::new(|files| {
                let uris = vec!["spiffe://us.example.org/registry/node/1".to_owned()];
                files.replace(&ours.leaf_with(NODE, |wish| wish.uris = uris));
            }),
        ),
        (
            "tls.crt: names spiffe://eu.example.org/t",
            Box::new(|files| {
                files.replace(&ours.leaf(AGENT));
            }),
        ),
        (
            "tls.crt: it names 0 URIs",
            Box::new(|files| {
                files.replace(&ours.leaf_with(NODE, |wish| wish.uris.clear()));
            }),
        ),
        ("tls.crt: holds no certificate", Box::new(|files| files.write("tls.crt", &good.key))),
        (
            "tls.key: holds no private key",
            Box::new(|files| {
                files.write("tls.key", &good.certificate);
            }),
        ),
        (
            "tls.key: has an Ed25519 key",
            Box::new(|files| {
                let key = KeyPair::generate_for(&PKCS_ED25519).expect("key");
                files.replace(&ours.leaf_with(NODE, |wish| wish.key = key));
            }),
        ),
        (
            "ca.crt: holds a certificate that is not a CA's",
            Box::new(|files| {
                files.write("ca.crt", &good.certificate);
            }),
        ),
        (
            "ca.crt: the trust bundle isn't there",
            Box::new(|files| {
                std::fs::remove_file(files.0.join("ca.crt")).expect("remove");
            }),
        ),
    ];
    for (said, break_it) in cases {
        let folder = tempfile::tempdir().expect("folder");
        let files = Files::new(folder.path(), &ours, &good);
        assert!(Tls::load(&files.config()).is_ok());
        break_it(&files);
        let error = Tls::load(&files.config()).err().expect(said);
        assert!(error.message.contains(said), "{} instead of {said}", error.message);
        assert!(error.message.contains("; ") && error.code.starts_with("IDENTITY_"));
        assert!(!error.message.contains("PRIVATE KEY"));
    }
}

/// A node's TLS, and the folder of its files.
fn node(authority: &Authority, name: &str) -> (Arc<Tls>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("folder");
    let pair = authority.leaf(&format!("/registry/node/{name}"));
    let files = Files::new(folder.path(), authority, &pair);
    (Tls::load(&files.config()).expect("load"), folder)
}

/// No node is expected in particular.
const ANY: &str = "";

/// A connection from one node to another: what each side says of it.
async fn meet(
    from: &Tls,
    to: &Tls,
    expected: &str,
) -> (Result<String, Reason>, Result<String, Reason>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address");
    let accepting = async {
        let (stream, _) = listener.accept().await.expect("accept");
        let secured = to.accept(stream, Port::Peer, PATIENCE).await.map_err(|r| r.reason)?;
        Ok(secured.identity.to_string())
    };
    let connecting = async {
        let stream = TcpStream::connect(address).await.expect("connect");
        let name = (expected != ANY).then(|| PeerName::new(expected).expect("name"));
        let secured = from.connect(stream, name.as_ref(), Port::Peer, PATIENCE).await;
        secured.map(|secured| secured.identity.to_string()).map_err(|refusal| refusal.reason)
    };
    tokio::join!(connecting, accepting)
}

fn refused<T: Debug>(result: Result<T, Reason>, reason: Reason) {
    assert_eq!(result.expect_err("it was let through"), reason);
}

#[tokio::test]
async fn nodes_know_each_other_by_their_ids() {
    let (ours, foreign) = (Authority::new("root"), Authority::new("foreign"));
    let (one, _one) = node(&ours, "1");
    let (two, _two) = node(&ours, "2");
    let (stranger, _stranger) = node(&foreign, "2");
    let id = |name: &str| Ok(format!("spiffe://{TRUST_DOMAIN}/registry/node/{name}"));
    assert_eq!(meet(&one, &two, "2").await, (id("2"), id("1")));
    assert_eq!(meet(&one, &two, ANY).await, (id("2"), id("1")));
    refused(meet(&one, &stranger, ANY).await.0, Reason::Untrusted);
    let (said, heard) = meet(&one, &two, "3").await;
    refused(said, Reason::WrongNode);
    refused(heard, Reason::RefusedByPeer);
    refused(meet(&one, &stranger, "2").await.0, Reason::Untrusted);
    let wrong = Reason::WrongNode as usize;
    let counted = one.metrics.handshake_failures[wrong].load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(counted, 1);
}

#[tokio::test]
async fn only_nodes_get_in_where_nodes_speak() {
    let authority = Authority::new("root");
    let (tls, _folder) = node(&authority, "1");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address");
    for (path, protocol, reason) in [
        (AGENT, "agni-peer/1", Reason::Identity),
        // A node's certificate with what is meant for the other port.
        ("/registry/node/2", "h2", Reason::Protocol),
    ] {
        let client = authority.client(Some(&authority.leaf(path)), protocol);
        let accepting = async {
            let (stream, _) = listener.accept().await.expect("accept");
            tls.accept(stream, Port::Peer, PATIENCE).await.map(|_| ()).map_err(|r| r.reason)
        };
        let (accepted, _) = tokio::join!(accepting, connect(address, &client));
        refused(accepted, reason);
    }
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_of_its_client() {
    let secure = Secure::start();
    let soon = unix_now() + Duration::from_secs(3);
    let pair = secure.authority.leaf_with(AGENT, |wish| wish.ends = soon);
    let client = secure.authority.client(Some(&pair), "http/1.1");
    let mut stream = connect(secure.running.server.local_address(), &client).await.expect("good");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("write");
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    read.expect("it stayed open").expect("read");
    assert!(all.starts_with(b"HTTP/1.1 200"), "it was served until then");
    assert!(unix_now() >= soon - Duration::from_secs(1), "it ended too early");
}
