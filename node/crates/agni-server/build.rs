//! Generates the services over the messages of `agni-core`, and the descriptors for reflection.

use std::path::PathBuf;

const FILES: [&str; 2] =
    ["agniregistry/api/v1/registry.proto", "agniregistry/api/v1/cluster.proto"];

const NODE_FILES: [&str; 2] = ["agniregistry/node/v1/peer.proto", "agniregistry/node/v1/ask.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?).join("../../../proto");
    // What nodes say to each other is nobody else's, so reflection doesn't show it. It comes first,
    // because it imports the public API, whose services are then written anew.
    for file in NODE_FILES {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(false).open_files(NODE_FILES)?;
    tonic_prost_build::configure()
        .extern_path(".agniregistry.api.v1", "::agni_core::proto::api")
        .extern_path(".agniregistry.node.v1", "::agni_core::proto::node")
        .compile_fds(compiler.file_descriptor_set())?;
    for file in FILES {
        println!("cargo:rerun-if-changed={}", root.join(file).display());
    }
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(false).open_files(FILES)?;
    // `compile_fds` ignores `file_descriptor_set_path`, so reflection's set is written here.
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .extern_path(".agniregistry.api.v1", "::agni_core::proto::api")
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
