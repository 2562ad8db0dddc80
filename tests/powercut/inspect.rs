//! The node after the power cut: its storage is opened with the product's own code, must keep every promise, and must
//! go on working.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use keva::raft::entry::Entry;
use keva::raft::storage::{SnapshotProgress, Storage, StorageError};
use keva::raft::types::{EntryId, HardState, Index, Term};
use keva::storage::RecoveryReport;

use crate::content;
use crate::node::{self, Found, Node, digest, entry_bytes};
use crate::promises::Promises;

/// Checks the directory of a node.
///
/// # Errors
/// With what is wrong.
pub(crate) fn inspect(directory: &Path, promises: &Promises, segment_bytes: usize) -> Result<(), String> {
    let result = catch_unwind(AssertUnwindSafe(|| check(directory, promises, segment_bytes)));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!(
            "panicked: {}",
            text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a text")
        ))
    })
}

fn check(directory: &Path, promises: &Promises, segment_bytes: usize) -> Result<(), String> {
    let open =
        |seed| node::open(directory, segment_bytes, seed).map_err(|error| format!("cannot open: {error}"));
    let failed = |error: StorageError| format!("does not work after recovery: {error}");
    let (mut node, _) = open(1)?;
    let found = Found::read(&node).map_err(failed)?;
    promises.check(&found)?;
    let expected = go_on(&mut node, found).map_err(failed)?;
    // The process dies; what is in the cache stays.
    drop(node);
    let (mut node, report) = open(2)?;
    compare(&node, &expected, &report)?;
    let expected = remove_some(&mut node, expected).and_then(|expected| take_snapshot(&mut node, expected));
    let expected = expected.map_err(failed)?;
    node.close().map_err(failed)?;
    let (node, report) = open(3)?;
    if !report.clean {
        return Err(format!("a stop in good order looks like a crash: {report}"));
    }
    compare(&node, &expected, &report)
}

/// Begins a term and appends so much that there is a new segment.
fn go_on(node: &mut Node, mut expected: Found) -> Result<Found, StorageError> {
    let hard_state =
        HardState { term: Term(expected.hard_state.term.0 + 1), vote: None, ..expected.hard_state };
    node.set_hard_state(hard_state)?;
    expected.hard_state = hard_state;
    let fill = vec![7; node.free_bytes() + 1];
    for payload in [b"after the cut".as_slice(), &fill, b"in the next segment"] {
        let bytes = entry_bytes(hard_state.term, expected.last_index() + 1, payload);
        let entry = Entry::decode(&bytes).expect("just encoded");
        node.append(entry)?;
        expected.entries.push(digest(entry));
    }
    node.sync()?;
    Ok(expected)
}

/// Removes the last two entries.
fn remove_some(node: &mut Node, mut expected: Found) -> Result<Found, StorageError> {
    node.truncate_suffix(Index(expected.last_index() - 2))?;
    node.sync()?;
    expected.entries.truncate(expected.entries.len() - 2);
    expected.incarnation += 1;
    Ok(expected)
}

/// Takes a snapshot of everything, in the file that the last one left, if there was one.
fn take_snapshot(node: &mut Node, mut expected: Found) -> Result<Found, StorageError> {
    expected.covered = expected.whole_log().expect("every promise is kept");
    let index = node.last_index();
    let term = node.term(index).expect("the last term is known");
    let content = content::encode(&expected.covered, 1, 0);
    if !node.begin_snapshot(EntryId::new(term, index), content.len() as u64)? {
        return Err(StorageError::Refused("there is no space for a snapshot".into()));
    }
    node.append_snapshot(&content)?;
    match node.finish_snapshot(None, usize::MAX)? {
        SnapshotProgress::Done(_) => Ok(expected),
        progress => Err(StorageError::Refused(format!("the snapshot was not finished: {progress:?}"))),
    }
}

/// The next start shows what was there.
fn compare(node: &Node, before: &Found, report: &RecoveryReport) -> Result<(), String> {
    let expected = Found { incarnation: before.incarnation + 1, ..before.clone() };
    let found = Found::read(node).map_err(|error| format!("cannot read after recovery: {error}"))?;
    if found.is_like(&expected) {
        return Ok(());
    }
    Err(format!("a later start shows {} instead of {}; {report}", found.summary(), expected.summary()))
}
