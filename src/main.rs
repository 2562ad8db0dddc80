//! The `keva` program.

fn main() {}
