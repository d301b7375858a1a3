//! The mailfleet executable.
fn main() {}
