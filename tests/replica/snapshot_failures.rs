//! Snapshots that a node cannot make: for want of space, or because its disk does not give back what was written.

use std::sync::atomic::Ordering;

use keva::limits::{SNAPSHOT_DAMAGE_DOUBLINGS_MAX, SNAPSHOT_RETRY_LOG_BYTES};
use keva::raft::types::Index;
use keva::replica::io::Housekeeping;

use crate::cluster::{Cluster, node};
use crate::snapshots::{LOG_BYTES, snapshot_index, write_many};

/// D5: a draft that reads back wrong costs nothing but another try: the snapshot before it and the log stay.
#[test]
fn a_bad_draft_changes_nothing() {
    let (mut cluster, _) = Cluster::with_snapshots(1, 8, LOG_BYTES, 300);
    write_many(&mut cluster, node(1), 0..60);
    cluster.run(300);
    let first = snapshot_index(&cluster, node(1));
    assert!(first > Index(0));
    let rotten = cluster.replica(node(1)).raft().storage().faults.rotten_drafts.clone();
    rotten.store(true, Ordering::SeqCst);
    write_many(&mut cluster, node(1), 60..160);
    cluster.run(300);
    let status = cluster.replica(node(1)).status();
    assert_eq!(snapshot_index(&cluster, node(1)), first);
    assert!(status.log_start.index <= first);
    let before = cluster.replica(node(1)).store().clone();
    cluster.end(node(1));
    cluster.start(node(1));
    cluster.await_leader();
    for n in 0..40 {
        let key = format!("k{n}");
        assert_eq!(cluster.replica(node(1)).store().get(&key), before.get(&key));
    }
    rotten.store(false, Ordering::SeqCst);
    cluster.run(300);
    assert!(snapshot_index(&cluster, node(1)) > first, "the disk is good again");
}

/// D5: a bad disk is not worn out: the pauses between whole snapshots that read back wrong get longer, up to a bound, and
/// so does what the log must grow by; a good one ends that.
#[test]
fn a_bad_disk_is_tried_less_and_less() {
    let (mut cluster, _) = Cluster::with_snapshots(1, 8, LOG_BYTES, 300);
    cluster.house = None;
    write_many(&mut cluster, node(1), 0..60);
    let rotten = cluster.replica(node(1)).raft().storage().faults.rotten_drafts.clone();
    let draft = |cluster: &Cluster| cluster.replica(node(1)).status().snapshot_draft;
    let keep_house =
        |cluster: &mut Cluster| cluster.replica_mut(node(1)).keep_house(30_000).expect("memory works");
    // How many pauses come before a draft, which is then written.
    let pauses = |cluster: &mut Cluster| {
        let mut pauses = 0;
        while draft(cluster).is_none() {
            pauses += u64::from(keep_house(cluster) == Housekeeping::Later);
        }
        while draft(cluster).is_some() {
            keep_house(cluster);
        }
        pauses
    };
    rotten.store(true, Ordering::SeqCst);
    let counted: Vec<_> = (0..14).map(|_| pauses(&mut cluster)).collect();
    assert_eq!(counted, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024]);
    cluster.write(node(1), "large", &"v".repeat(SNAPSHOT_RETRY_LOG_BYTES as usize));
    assert_eq!(cluster.replica(node(1)).snapshot_debt(), 0, "the log has not grown enough");
    rotten.store(false, Ordering::SeqCst);
    assert_eq!(pauses(&mut cluster), 1 << SNAPSHOT_DAMAGE_DOUBLINGS_MAX);
    assert!(snapshot_index(&cluster, node(1)) > Index(0));
    rotten.store(true, Ordering::SeqCst);
    write_many(&mut cluster, node(1), 60..260);
    assert_eq!((pauses(&mut cluster), pauses(&mut cluster)), (0, 1));
}

/// F14: without space for a snapshot the node goes on; it tries again after a pause, or when the log has grown, and not
/// all the time.
#[test]
fn a_snapshot_without_space_is_tried_again() {
    let (mut cluster, _) = Cluster::with_snapshots(1, 9, LOG_BYTES, 300);
    cluster.house = None;
    write_many(&mut cluster, node(1), 0..60);
    let full = cluster.replica(node(1)).raft().storage().faults.full.clone();
    let draft = |cluster: &Cluster| cluster.replica(node(1)).status().snapshot_draft;
    for by_growth in [false, true] {
        full.store(true, Ordering::SeqCst);
        assert!(cluster.replica(node(1)).snapshot_debt() > 0);
        let left = cluster.replica_mut(node(1)).keep_house(300).expect("memory works");
        assert_eq!((left, draft(&cluster)), (Housekeeping::Later, None));
        assert_eq!(cluster.replica(node(1)).snapshot_debt(), 0, "busy turns do not try again and again");
        full.store(false, Ordering::SeqCst);
        if by_growth {
            cluster.write(node(1), "large", &"v".repeat(SNAPSHOT_RETRY_LOG_BYTES as usize));
            assert!(cluster.replica(node(1)).snapshot_debt() > 0);
        }
        cluster.replica_mut(node(1)).keep_house(300).expect("memory works");
        assert!(draft(&cluster).is_some());
        while draft(&cluster).is_some() {
            cluster.replica_mut(node(1)).keep_house(30_000).expect("memory works");
        }
        write_many(&mut cluster, node(1), 0..400);
    }
}
