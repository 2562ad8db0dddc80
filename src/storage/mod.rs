//! The log and the hard state on disk.
//!
//! ```text
//!  LogStorage ─┬─ HardStateFile     term, vote, start counter: two copies in one file
//!              ├─ Log ── Segment    preallocated files of records; a record is an entry with a chained checksum
//!              ├─ recovery, cases   what is believed after a crash, as tables
//!              └─ Directory, Region the files: real ones (DataDir, MappedFile) or a simulated disk
//! ```
//!
//! Files in the working directory:
//!
//! | name | content |
//! |---|---|
//! | `LOCK` | locked by the running process; its number |
//! | `keva.id` | whose directory this is, as text |
//! | `hard-state` | the hard state, twice |
//! | `seg-<number>.log` | segments of the log |
//! | `*.tmp` | files that are not whole yet |
//!
//! How it holds together:
//! - A file gets its final name only when it is whole and durable, and the name is made durable before anything relies
//!   on it.
//! - The log is only ever appended to. Removing its end means beginning a new segment that declares the rest void.
//! - A segment is wholly durable before the next one is made; so only the last one can have a torn tail.
//! - A turn's entries cost one write and one `fdatasync`; the hard state is written only when it changes, and when a new
//!   segment was begun, so that a segment that disappears is missed.
//! - After the first failed write or sync nothing is written any more: the process stops and recovers.
//!
//! What this leaves out: snapshots and the removal of the log's beginning, re-use of old segment files, a handler for
//! SIGBUS (see [`region`]), and repair of damage from other nodes.

mod cases;
mod check;
mod data_dir;
mod directory;
mod hard_state;
mod identity;
mod inventory;
mod log;
mod log_storage;
mod open;
mod record;
mod recovery;
pub mod region;
mod rehearsal;
mod scrub;
mod segment;
mod set_aside;
mod snapshot;
mod snapshot_draft;
mod snapshot_recovery;
mod snapshots;
mod spare;
mod stamp;
mod term_runs;

pub use check::{CheckReport, check, check_files};
pub use data_dir::DataDir;
pub use directory::Directory;
pub use identity::{Membership, cluster_id};
pub use log_storage::{LogStorage, StorageOptions};
pub use recovery::{RecoveryReport, TornTail};
pub use region::{MappedFile, Region, Unreadable, watch_for_bus_errors};
pub use set_aside::SetAside;
pub use spare::SpareProgress;
