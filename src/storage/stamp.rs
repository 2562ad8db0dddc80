//! The first bytes of every binary block on disk: what it is, which version, and whose.
//!
//! ```text
//!  0       8     12        14           16           32       40        48
//!  | magic | crc | version | reader min | cluster id | node   | disk id | what the block is about ...
//! ```
//!
//! All numbers are little-endian. `crc` is CRC-32C over everything behind it up to the end of the block. The places of
//! `magic`, `crc` and the versions never change, so that an old Keva can say that a file is too new for it.

use crate::raft::storage::StorageError;
use crate::raft::types::NodeId;

/// The version of the formats in this directory that this Keva writes, and the newest that it reads.
pub(crate) const FORMAT_VERSION: u16 = 1;

/// Whose a file is. Files of different owners are never mixed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    /// The cluster.
    pub(crate) cluster_id: u128,
    /// The node.
    pub(crate) node: NodeId,
    /// Drawn when the working directory was made: tells an earlier life of the same node from this one.
    pub(crate) disk_id: u64,
}

/// Why a block was not accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StampError {
    /// The magic or the checksum is wrong.
    Damaged,
    /// Only a Keva that knows this format version can read it.
    Newer(u16),
    /// It is undamaged, and somebody else's.
    Foreign(Owner),
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn u128_at(bytes: &[u8], at: usize) -> u128 {
    u128::from_le_bytes(bytes[at..at + 16].try_into().expect("sixteen bytes"))
}

pub(crate) fn put(block: &mut [u8], at: usize, bytes: &[u8]) {
    block[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Stamps a block whose other fields are filled in already.
pub(crate) fn stamp(block: &mut [u8], magic: [u8; 8], owner: Owner) {
    put(block, 0, &magic);
    put(block, 12, &FORMAT_VERSION.to_le_bytes());
    put(block, 14, &FORMAT_VERSION.to_le_bytes());
    put(block, 16, &owner.cluster_id.to_le_bytes());
    put(block, 32, &owner.node.0.to_le_bytes());
    put(block, 40, &owner.disk_id.to_le_bytes());
    let crc = crc32c::crc32c(&block[12..]);
    put(block, 8, &crc.to_le_bytes());
}

/// Checks a block's stamp.
pub(crate) fn check_stamp(block: &[u8], magic: [u8; 8], owner: Owner) -> Result<(), StampError> {
    if block[..8] != magic || crc32c::crc32c(&block[12..]) != u32_at(block, 8) {
        return Err(StampError::Damaged);
    }
    let reader_min = u16_at(block, 14);
    if reader_min > FORMAT_VERSION {
        return Err(StampError::Newer(reader_min));
    }
    let found =
        Owner { cluster_id: u128_at(block, 16), node: NodeId(u64_at(block, 32)), disk_id: u64_at(block, 40) };
    if found == owner { Ok(()) } else { Err(StampError::Foreign(found)) }
}

impl StampError {
    /// The error for the operator. `what` names the block, as in "the segment's header".
    pub(crate) fn explain(self, path: String, offset: usize, what: &str, owner: Owner) -> StorageError {
        match self {
            StampError::Damaged => StorageError::Damaged {
                file: path,
                offset: offset as u64,
                detail: format!("{what} is not what was written there"),
            },
            StampError::Newer(version) => StorageError::Refused(format!(
                "{path} has format version {version}; this Keva reads up to {FORMAT_VERSION}: start a newer Keva"
            )),
            StampError::Foreign(found) => {
                let difference = if found.cluster_id != owner.cluster_id {
                    format!(
                        "cluster {:032x}, this node is in cluster {:032x}",
                        found.cluster_id, owner.cluster_id
                    )
                } else if found.node != owner.node {
                    format!("node {}, this is node {}", found.node, owner.node)
                } else {
                    "an earlier working directory of this node".into()
                };
                StorageError::Refused(format!(
                    "{path} belongs to {difference}: put back the file that belongs here; \
                     files of different working directories must not be mixed"
                ))
            }
        }
    }
}

/// What to do when a running node has lost a part of its log and other nodes have it.
pub(crate) const START_AGAIN: &str =
    "Start the node again: it sets its log aside and gets everything from the other nodes.";

/// What to do when one of two copies of the hard state is damaged.
pub(crate) const START_MENDS: &str = "Start the node again: it uses the other copy, and writes both again.";

/// Adds to an error about damage what to do about it.
pub(crate) fn with_advice(error: StorageError, advice: &str) -> StorageError {
    match error {
        StorageError::Damaged { file, offset, detail } => {
            StorageError::Damaged { file, offset, detail: format!("{detail}. {advice}") }
        }
        other => other,
    }
}

/// What to do when a node has lost something that it promised to keep.
pub(crate) const REPLACE: &str = "This node has promised to keep what is lost, so it must not take part without it: put \
    the undamaged file back; or, where the other nodes of a cluster work, empty the working directory: the node gets \
    everything from them, and votes again once it has.";
