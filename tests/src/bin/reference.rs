//! Writes `proto/README.md` anew.

use std::{fs, path::Path};

fn main() -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/README.md");
    Ok(fs::write(path, mailfleet_tests::reference::page()?)?)
}
