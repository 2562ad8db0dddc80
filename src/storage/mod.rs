//! The log, the snapshots and the hard state on disk.
//!
//! ```text
//!  LogStorage ─┬─ HardStateFile     term, vote, start counter: two copies in one file
//!              ├─ Log ── Segment    preallocated files of records; a record is an entry with a chained checksum
//!              ├─ Snapshots         the newest one, the draft of the next, and the file that the next one goes into
//!              ├─ recovery, cases   what is believed after a crash, as tables
//!              ├─ set_aside         a damaged log is put out of the way, to be got back from the other nodes
//!              ├─ Scrub             reads everything now and then
//!              └─ Directory, Region the files: real ones (DataDir, MappedFile) or a simulated disk
//!  check ─── Rehearsal              a start without a trace, on a directory that nobody uses
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
//! | `snap-<index>-<term>.snap` | the newest snapshot: everything up to that entry |
//! | `snapshot.tmp` | the next snapshot, or the file that it will go into |
//! | `damaged-<number>-*` | segments and snapshots that were set aside because of damage |
//! | `spare.tmp`, `spare-2.tmp` | space for the next segments; one of them is the reserve for when the disk is full |
//! | `used-<number>.tmp` | a former segment, kept to be the file of another one |
//! | `removed.tmp` | a former snapshot that is about to be removed, or a draft that the disk has spoilt |
//! | other `*.tmp` | files that are not whole yet |
//!
//! How it holds together:
//! - A file gets its final name only when it is whole and durable, and the name is made durable before anything relies
//!   on it.
//! - The log is only ever appended to. Removing its end means beginning a new segment that declares the rest void.
//! - A segment is wholly durable before the next one is made; so only the last one can have a torn tail.
//! - A turn's entries cost one write and one `fdatasync`; the hard state is written only when it changes, and when a new
//!   segment was begun, so that a segment that disappears is missed.
//! - After the first failed write or sync nothing is written any more: the process stops and recovers.
//! - A snapshot has its name before any segment that it covers goes; a log that a snapshot takes the place of becomes
//!   void by the first segment of its successor. Files that are used again have their new names durably before they are
//!   overwritten, and nothing in them passes for what belongs there.
//! - A full disk is known before anything is promised: [`reserve`](crate::raft::storage::Storage::reserve). What makes
//!   the data grow is refused while a whole segment is left; what makes it smaller, and what the protocol cannot do
//!   without, may use that one. Hard state and snapshots have files of their own. A node starts on a full disk.
//! - What a disk gives back is checked at every start, at every read, and now and then by
//!   [`keep_house`](crate::raft::storage::Storage::keep_house). Damage ends the process; a start that finds damage in
//!   what was durable does not cut it away. In a cluster it sets log and snapshots aside, and the node, which then does
//!   not vote, gets everything back from the others. A node alone, and one whose term and vote are lost, refuses.
//! - What the node may promise ([`Standing`](crate::raft::types::Standing)) is kept with term and vote: a new directory
//!   in a cluster, and a log that was set aside, vote only once the other nodes have admitted them.
//! - Nothing is written by a node that has nothing to do.
//!
//! What this leaves out: damage on both copies of the hard state is not repaired; disks whose cache hides what they have
//! lost are found out only when the cache has let go of it; the files are not encrypted.

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
mod retired;
mod retired_snapshot;
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
