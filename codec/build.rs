//! Compiles `proto/` without protoc: prost types for the cold paths, and the descriptor set for reflection and JSON.

use std::{env, error::Error, fs, path::PathBuf};

const FILES: &[&str] = &[
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "grpc/health/v1/health.proto",
    "grpc/reflection/v1/reflection.proto",
    "prism/admin/v1/dead_letters.proto",
    "prism/admin/v1/namespaces.proto",
    "prism/common/v1/common.proto",
    "prism/keyvalue/v1/keyvalue.proto",
    "prism/options.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from("../proto");
    println!("cargo:rerun-if-changed=../proto");
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(FILES.iter().map(|file| root.join(file)))?;
    // Encoded by protox, not by prost-types, which would lose the custom options.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("prism.fds"), compiler.encode_file_descriptor_set())?;
    let mut config = prost_build::Config::new();
    config.include_file("proto.rs");
    config.compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}
