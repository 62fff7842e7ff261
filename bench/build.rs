//! Generates the peers that the benches compare with: prost with `Bytes`, and buffa's views. The
//! messages are those of `proto/`; well-known types are replaced by equal ones of our own, so that
//! no further crate is needed for them.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

const WELL_KNOWN: &str = r#"syntax = "proto3";
package wkt;
message Duration { int64 seconds = 1; int32 nanos = 2; }
message Timestamp { int64 seconds = 1; int32 nanos = 2; }
message Any { string type_url = 1; bytes value = 2; }
message Status { int32 code = 1; string message = 2; repeated Any details = 3; }
"#;

const REPLACED: &[(&str, &str)] = &[
    (
        "import \"google/protobuf/duration.proto\";",
        "import \"wkt.proto\";",
    ),
    (
        "import \"google/protobuf/timestamp.proto\";",
        "import \"wkt.proto\";",
    ),
    ("import \"google/rpc/status.proto\";", ""),
    ("import \"prism/options.proto\";", ""),
    ("google.protobuf.", "wkt."),
    ("google.rpc.", "wkt."),
];

const FILES: &[&str] = &["prism/common/v1/common.proto", "prism/keyvalue/v1/keyvalue.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=../proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let root = out.join("proto");
    copy_protos(&root)?;
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_imports(true);
    compiler.open_files(FILES.iter().map(|file| root.join(file)))?;

    let prost = out.join("prost_bytes");
    fs::create_dir_all(&prost)?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .bytes(".")
        .out_dir(&prost)
        .include_file("mod.rs")
        .compile_fds(compiler.file_descriptor_set())?;

    let tonic = out.join("tonic");
    fs::create_dir_all(&tonic)?;
    tonic_prost_build::configure()
        .build_client(false)
        .out_dir(&tonic)
        .include_file("mod.rs")
        .compile_fds(compiler.file_descriptor_set())?;

    let descriptors = out.join("views.fds");
    fs::write(&descriptors, compiler.encode_file_descriptor_set())?;
    let buffa = out.join("buffa");
    fs::create_dir_all(&buffa)?;
    buffa_build::Config::new()
        .descriptor_set(&descriptors)
        .files(&["wkt.proto", FILES[0], FILES[1]])
        .out_dir(&buffa)
        .include_file("mod.rs")
        .compile()?;
    Ok(())
}

fn copy_protos(root: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(root)?;
    fs::write(root.join("wkt.proto"), WELL_KNOWN)?;
    for file in FILES {
        let mut text = without_options(&fs::read_to_string(Path::new("../proto").join(file))?);
        for (from, to) in REPLACED {
            text = text.replace(from, to);
        }
        let target = root.join(file);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(target, text)?;
    }
    Ok(())
}

/// The proto without the options of its methods, which the peers do not use.
fn without_options(text: &str) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in text.lines() {
        inside |= line.trim_start().starts_with("option (prism.call)");
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
        inside &= !line.ends_with("};");
    }
    kept
}
