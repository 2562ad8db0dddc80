//! A damaged log is put out of the way, so that the node can start over and get everything from the other nodes.
//!
//! All segments and snapshots are renamed to `damaged-<number>-<old name>`: nothing that the disk still holds is thrown
//! away before the cluster has given back what was lost. Term and vote stay; a node that forgot them could vote twice.
//!
//! The order, so that a crash at any point leaves a node that knows what it is:
//!
//! 1. The hard state says, durably, that this node recovers: it does not vote, and what it says about its log counts
//!    for nothing until a leader has confirmed it. It also says that the move has begun, and under which number.
//! 2. What an earlier move left is removed.
//! 3. The files are renamed, and the names synced.
//! 4. The first segment of an empty log is made, with a number that no segment had before.
//! 5. The start is counted in the hard state, as always, and with it the move is over.
//!
//! A start that finds a move begun carries it out again from step 2, whatever files are there.

use crate::raft::storage::StorageError;
use crate::raft::types::{HardState, Incarnation, Index, Standing};
use crate::storage::directory::{Directory, io_error, sync_names};
use crate::storage::hard_state::{DurableMark, HardStateFile, Slot};
use crate::storage::region::Region;
use crate::storage::segment::parse_segment_name;
use crate::storage::snapshot::parse_snapshot_name;
use crate::util::mutation::mutant;

const PREFIX: &str = "damaged-";

/// A log that was put out of the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetAside {
    /// What was wrong: the file, the place, and the entries concerned.
    pub damage: String,
    /// What the names of the files begin with.
    pub prefix: String,
    /// How many files there are.
    pub files: usize,
}

/// The number in the name of a file that was set aside, and its name before; `None` for other files.
pub(crate) fn parse_set_aside_name(name: &str) -> Option<(u64, &str)> {
    let (number, old) = name.strip_prefix(PREFIX)?.split_once('-')?;
    Some((number.parse().ok()?, old)).filter(|(_, old)| belongs_to_the_log(old))
}

/// Whether a file is set aside: a segment or a snapshot. Names that only resemble theirs are left alone.
fn belongs_to_the_log(name: &str) -> bool {
    matches!(parse_segment_name(name), Some(Ok(_))) || matches!(parse_snapshot_name(name), Some(Ok(_)))
}

/// The names of all files that were set aside at some time.
pub(crate) fn set_aside_names(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| parse_set_aside_name(name).is_some()).cloned().collect()
}

/// Puts all segments and snapshots out of the way, or goes on with that. Returns what happened, and the largest number
/// that a segment ever had.
///
/// # Errors
/// When the disk fails. The next start goes on.
pub(crate) fn set_aside<D: Directory>(
    directory: &mut D,
    hard_state: &mut HardStateFile<D::Region>,
    incarnation: Incarnation,
    damage: String,
) -> Result<(SetAside, u64), StorageError> {
    let names = directory.list().map_err(io_error("list the files in", directory.path("")))?;
    let late = mutant("moved-before-standing");
    if !late {
        announce(hard_state, &names, incarnation)?;
    }
    let number = if late { incarnation.0 } else { hard_state.slot().setting_aside };
    for name in &names {
        match parse_set_aside_name(name) {
            Some((earlier, _)) if earlier != number => {
                directory.remove(name).map_err(io_error("remove", directory.path(name)))?;
            }
            None if belongs_to_the_log(name) => {
                let new_name = format!("{PREFIX}{number}-{name}");
                directory.rename(name, &new_name).map_err(io_error("rename", directory.path(name)))?;
            }
            _ => {}
        }
    }
    sync_names(directory)?;
    if late {
        announce(hard_state, &names, incarnation)?;
    }
    let names = directory.list().map_err(io_error("list the files in", directory.path("")))?;
    let done =
        SetAside { damage, prefix: format!("{PREFIX}{number}-"), files: set_aside_names(&names).len() };
    Ok((done, hard_state.slot().durable.segment_seq))
}

/// Notes durably that this node recovers, and that the files are being moved.
fn announce<R: Region>(
    hard_state: &mut HardStateFile<R>,
    names: &[String],
    incarnation: Incarnation,
) -> Result<(), StorageError> {
    let slot = *hard_state.slot();
    let old_names = names.iter().map(|name| parse_set_aside_name(name).map_or(name.as_str(), |(_, old)| old));
    let newest = old_names.filter_map(|name| parse_segment_name(name)?.ok()).max().unwrap_or_default();
    let segment_seq = newest.max(slot.durable.segment_seq);
    if slot.setting_aside != 0 && slot.durable.segment_seq == segment_seq {
        return Ok(());
    }
    let vote = slot.state.vote.filter(|_| !mutant("set-aside-forgets-vote"));
    let standing = match slot.standing {
        // Its votes may be forgotten too, which is worse.
        Standing::Virgin => Standing::Virgin,
        Standing::Voter | Standing::Recovering => Standing::Recovering,
    };
    hard_state.replace(Slot {
        state: HardState { vote, commit_index: Index(0), ..slot.state },
        durable: DurableMark { segment_seq, index: Index(0) },
        clean: false,
        standing,
        setting_aside: if slot.setting_aside == 0 { incarnation.0 } else { slot.setting_aside },
        ..slot
    })?;
    hard_state.sync_copy()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_was_set_aside() {
        assert_eq!(parse_set_aside_name("damaged-12-seg-0000000007.log"), Some((12, "seg-0000000007.log")));
        for name in
            ["seg-0000000007.log", "damaged-seg-0000000007.log", "damaged-1-notes", "damaged-1-seg-7.log"]
        {
            assert_eq!(parse_set_aside_name(name), None, "{name}");
        }
    }
}
