//! The `thalweg` command: arguments, then one call into `process`.

fn main() {}
