//! Compiles the API files without a system `protoc`, and keeps their descriptors for server reflection.

use prost::Message;
use std::{env, error::Error, fs, path::PathBuf};

const ROOT: &str = "../../proto";
const FILES: [&str; 11] = [
    "mailfleet/v1/analytics.proto",
    "mailfleet/v1/delivery.proto",
    "mailfleet/v1/domain.proto",
    "mailfleet/v1/endpoint.proto",
    "mailfleet/v1/error.proto",
    "mailfleet/v1/inbound.proto",
    "mailfleet/v1/mail.proto",
    "mailfleet/v1/queue.proto",
    "mailfleet/v1/suppression.proto",
    "mailfleet/v1/template.proto",
    "mailfleet/v1/tenant.proto",
];

#[expect(clippy::disallowed_methods, reason = "a build script is told by cargo through its environment")]
fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    let set = protox::compile(FILES, [ROOT])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("mailfleet_descriptor.bin"), set.encode_to_vec())?;
    // A raw mail stays in the buffer that it was received in. Maps are sorted, so that equal messages have equal
    // encodings: the digest of an idempotent call is taken from it.
    tonic_prost_build::configure().bytes(".mailfleet.v1").btree_map(".mailfleet.v1").compile_fds(set)?;
    Ok(())
}
