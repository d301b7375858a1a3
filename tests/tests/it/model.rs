//! The protocol model reads the table of transitions that the code has.

use std::{fs, path::Path, process::Command};

#[test]
fn the_table_of_the_model_is_the_table_of_the_code() {
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("model/transitions.pml");
    let printed = Command::new(env!("CARGO_BIN_EXE_transitions")).output().unwrap();
    assert!(printed.status.success());
    assert!(
        fs::read(committed).unwrap() == printed.stdout,
        "stale; run: cargo run -p mailfleet-tests --bin transitions > tests/model/transitions.pml, and make model"
    );
}
