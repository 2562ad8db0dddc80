//! Everything that reads bytes from outside, driven with millions of mutated and random inputs: no panic, bounded
//! memory, nothing accepted that breaks a rule, nothing changed on the way through.
//!
//! A run follows from its seed. `cargo test` runs a few seconds of it; `scripts/fuzz.sh` runs as much as it is told, in
//! an optimized build. Environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `KEVA_FUZZ_EXECUTIONS` | executions of all targets together |
//! | `KEVA_FUZZ_SEED` | where the generator starts; a failure prints the one that repeats it at once |

mod bytes;
mod config;
mod driver;
mod entries;
mod frame;
mod greeting;
#[path = "../support/http.rs"]
mod http;
mod http_connection;
mod payload;
mod snapshot;
mod storage;
#[path = "../support/mod.rs"]
mod support;
