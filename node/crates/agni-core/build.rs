//! Generates the messages of the public API and of the node from `proto/`, without a protoc binary.

use std::path::PathBuf;

const FILES: [&str; 9] = [
    "agniregistry/api/v1/types.proto",
    "agniregistry/api/v1/registry.proto",
    "agniregistry/api/v1/cluster.proto",
    "agniregistry/node/v1/system.proto",
    "agniregistry/node/v1/command.proto",
    "agniregistry/node/v1/wal.proto",
    "agniregistry/node/v1/snapshot.proto",
    "agniregistry/node/v1/peer.proto",
    "agniregistry/node/v1/ask.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../../proto");
    for file in FILES {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let descriptors = protox::compile(FILES, [&root])?;
    // Services are left out: the server crate generates them over these messages.
    prost_build::Config::new().bytes(["."]).btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
