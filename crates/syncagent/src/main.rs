//! The `syncagent` binary.
fn main() {}
