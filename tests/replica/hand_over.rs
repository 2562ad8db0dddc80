//! Leadership is handed over because somebody asks for it: to whom, when not, and nobody's request fails for it.

use keva::replica::hand_over::HandOverError;
use keva::replica::io::Outcome;

use crate::cluster::{Cluster, ELECTION_TIMEOUT_MS, WRITTEN, node};

#[test]
fn the_named_node_takes_over() {
    for seed in 0..10 {
        let (mut cluster, leader) = Cluster::with_leader(3, 200 + seed);
        for to in cluster.others(leader) {
            let leader = cluster.await_leader();
            if leader == to {
                continue;
            }
            cluster.write(leader, "before", "v");
            let now = cluster.clock(leader);
            assert_eq!(cluster.replica_mut(leader).transfer_leadership_to(now, Some(to)), Ok(to));
            assert!(cluster.replica(leader).is_handing_over());
            let write = cluster.start_write(leader, "during", "v");
            let read = cluster.start_read(cluster.others(leader)[0], "before");
            cluster.run_until("the other one leads", |cluster| cluster.leader() == Some(to));
            assert_eq!(cluster.await_reply(write).outcome, WRITTEN, "seed {seed}");
            assert!(matches!(cluster.await_reply(read).outcome, Outcome::Value(Some(_))), "seed {seed}");
            assert!(!cluster.replica(leader).is_handing_over());
        }
    }
}

#[test]
fn without_a_name_somebody_takes_over() {
    let (mut cluster, leader) = Cluster::with_leader(3, 1);
    cluster.write(leader, "k", "v");
    let now = cluster.clock(leader);
    let to = cluster.replica_mut(leader).transfer_leadership_to(now, None).expect("two are there");
    assert_ne!(to, leader);
    cluster.run_until("it leads", |cluster| cluster.leader() == Some(to));
}

#[test]
fn what_cannot_be_handed_over() {
    let (mut cluster, leader) = Cluster::with_leader(3, 2);
    cluster.write(leader, "k", "v");
    let others = cluster.others(leader);
    let now = cluster.clock(leader);
    let ask = |cluster: &mut Cluster, id, to| cluster.replica_mut(id).transfer_leadership_to(now, to);
    assert_eq!(ask(&mut cluster, others[0], Some(others[1])), Err(HandOverError::NotLeader));
    assert_eq!(ask(&mut cluster, others[0], Some(others[0])), Err(HandOverError::NotLeader));
    assert_eq!(ask(&mut cluster, leader, Some(leader)), Ok(leader), "it leads already");
    assert!(!cluster.replica(leader).is_handing_over());
    assert_eq!(ask(&mut cluster, leader, Some(node(9))), Err(HandOverError::NoSuccessor), "no member");
    assert_eq!(ask(&mut cluster, leader, Some(others[0])), Ok(others[0]));
    assert_eq!(ask(&mut cluster, leader, Some(others[0])), Ok(others[0]), "asked again");
    assert_eq!(ask(&mut cluster, leader, None), Ok(others[0]), "any will do");
    assert_eq!(ask(&mut cluster, leader, Some(others[1])), Err(HandOverError::Busy));
}

/// A node that is not there is not waited for, and one that goes away in the middle only for a while.
#[test]
fn a_node_that_is_gone_does_not_take_over() {
    let (mut cluster, leader) = Cluster::with_leader(3, 3);
    cluster.write(leader, "k", "v");
    let gone = cluster.others(leader)[0];
    let now = cluster.clock(leader);
    cluster.isolate(gone);
    cluster.write(leader, "k", "w");
    assert_eq!(cluster.replica_mut(leader).transfer_leadership_to(now, Some(gone)), Ok(gone), "just seen");
    let write = cluster.start_write(leader, "k", "x");
    cluster.run_until("it is given up", |cluster| !cluster.replica(leader).is_handing_over());
    assert!(cluster.replica(leader).raft().is_leader());
    assert_eq!(cluster.await_reply(write).outcome, WRITTEN);
    cluster.run(ELECTION_TIMEOUT_MS);
    let now = cluster.clock(leader);
    let late = cluster.replica_mut(leader).transfer_leadership_to(now, Some(gone));
    assert_eq!(late, Err(HandOverError::NoSuccessor));
}

#[test]
fn a_lone_node_keeps_its_office() {
    let (mut cluster, leader) = Cluster::with_leader(1, 4);
    let now = cluster.clock(leader);
    let alone = cluster.replica_mut(leader).transfer_leadership_to(now, None);
    assert_eq!(alone, Err(HandOverError::NoSuccessor));
}

/// A leader that has not committed in its term does not know yet who is how far.
#[test]
fn a_new_leader_needs_a_moment() {
    let mut cluster = Cluster::new(3, 5);
    cluster.run_until("one was elected", |cluster| {
        cluster.up().into_iter().any(|id| cluster.replica(id).raft().is_leader())
    });
    let leader =
        cluster.up().into_iter().find(|id| cluster.replica(*id).raft().is_leader()).expect("just seen");
    let now = cluster.clock(leader);
    let early = cluster.replica_mut(leader).transfer_leadership_to(now, None);
    assert_eq!(early, Err(HandOverError::TooEarly));
}
