//! Rules of Raft as tables: one row, one situation, one expected answer. The stories of the protocol are in
//! `raft_stories`; here are the rules that are functions of a state and a message. Messages are written as in the
//! stories. `Covers:` names requirements, and with `S` scenarios, as in the table of `raft_stories.rs`.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use keva::raft::raft::{Config, Raft};
use keva::raft::storage::{Purpose, Storage};
use keva::raft::types::{EntryId, HardState, Index, NodeId, RoleName, Standing, Term};
use keva::util::time::Millis;

use support::lone_node::Lone;
use support::memory_storage::MemoryStorage;
use support::raft_cluster::{Cluster, ELECTION_TIMEOUT_MS, Filter, disk, disk_of_terms};
use support::raft_text::{envelope_text, parse_envelope, parse_id};

/// The hard state of these tests' disks, where it matters: later than every entry.
const LATE_TERM: Term = Term(9);

/// A disk with entries of these terms, and the hard state of a later term.
fn late_disk(terms: &[u64]) -> MemoryStorage {
    let ids: Vec<EntryId> =
        (1..).zip(terms).map(|(index, term)| EntryId::new(Term(*term), Index(index))).collect();
    disk(EntryId::default(), &ids, HardState { term: LATE_TERM, ..HardState::default() })
}

/// One round of votes: a majority makes a leader, a majority of refusals a follower, anything else waits.
/// Covers: S5
#[test]
fn one_round_of_votes() {
    use RoleName::{Candidate, Follower, Leader};
    for (count, granted, refused, expected) in [
        (1, &[][..], &[][..], Leader),
        (3, &[2, 3], &[], Leader),
        (3, &[2], &[], Leader),
        (5, &[2, 3, 4, 5], &[], Leader),
        (5, &[2, 3, 4], &[], Leader),
        (5, &[2, 3], &[], Leader),
        (3, &[], &[2, 3], Follower),
        (5, &[], &[2, 3, 4, 5], Follower),
        (5, &[2], &[3, 4, 5], Follower),
        (3, &[], &[], Candidate),
        (5, &[2], &[], Candidate),
        (5, &[], &[2, 3], Candidate),
        (5, &[], &[], Candidate),
    ] {
        let mut node = Lone::new(count, MemoryStorage::default());
        node.campaign();
        granted.iter().for_each(|peer| node.step(&format!("n{peer}@1 -> n1 RequestVoteResponse granted")));
        refused.iter().for_each(|peer| node.step(&format!("n{peer}@1 -> n1 RequestVoteResponse refused")));
        assert_eq!(node.raft.role(), expected, "{count} nodes, for {granted:?}, against {refused:?}");
        assert_eq!(node.raft.term(), Term(1));
    }
}

/// One vote per term, to the first who asks, and again to the same one.
/// Covers: A3 S6
#[test]
fn one_vote_per_term() {
    for (vote, candidate, granted) in [
        (None, 2, true),
        (None, 3, true),
        (Some(2), 2, true),
        (Some(3), 3, true),
        (Some(2), 3, false),
        (Some(3), 2, false),
    ] {
        let hard_state = HardState { term: Term(1), vote: vote.map(NodeId), ..HardState::default() };
        let mut node = Lone::new(3, disk(EntryId::default(), &[], hard_state));
        node.step(&format!("n{candidate}@1 -> n1 RequestVote last=0@0"));
        let answer = if granted { "granted" } else { "refused" };
        assert_eq!(
            node.turn(),
            [format!("n1@1 -> n{candidate} RequestVoteResponse {answer}")],
            "voted for {vote:?}, asked by {candidate}"
        );
    }
}

/// An entry is committed when the leader and enough others have it durably: a majority of the cluster's size.
/// Covers: B26 S10
#[test]
fn commit_by_majority() {
    for (count, acknowledging, committed) in [
        (1, &[][..], true),
        (3, &[], false),
        (3, &[2], true),
        (3, &[2, 3], true),
        (5, &[], false),
        (5, &[2], false),
        (5, &[2, 3], true),
        (5, &[2, 3, 4], true),
        (5, &[2, 3, 4, 5], true),
    ] {
        let mut node = Lone::new(count, MemoryStorage::default());
        node.lead();
        (2..=count).for_each(|peer| node.step(&format!("n{peer}@1 -> n1 AppendEntriesResponse match=1")));
        node.turn();
        assert_eq!(node.raft.commit_index(), Index(1));
        node.raft.propose(b"a=1", Purpose::Growth).expect("a leader takes it");
        node.turn();
        acknowledging
            .iter()
            .for_each(|peer| node.step(&format!("n{peer}@1 -> n1 AppendEntriesResponse match=2")));
        let expected = if committed { Index(2) } else { Index(1) };
        assert_eq!(node.raft.commit_index(), expected, "{count} nodes, {acknowledging:?} acknowledge");
        let told = node.turn();
        let notice = told.iter().filter(|text| text.ends_with("commit=2")).count() as u64;
        assert_eq!(notice, if committed { count - 1 } else { 0 }, "every peer is told: {told:?}");
    }
}

/// A follower takes entries only behind one that it has. Its refusal names the last entry that may be common.
/// Covers: B4 S13
#[test]
fn what_precedes_must_match() {
    for (prev, answer) in [
        ("0@0", "match=0"),
        ("1@1", "match=1"),
        ("2@2", "match=2"),
        // Another entry is there: of a later term than prev's, so it and its like are skipped.
        ("2@1", "reject=2 hint=1@1"),
        // Another entry is there, of an earlier term: it may be the leader's as well.
        ("2@3", "reject=2 hint=2@2"),
        // Nothing is there.
        ("3@3", "reject=3 hint=2@2"),
        ("9@1", "reject=9 hint=1@1"),
    ] {
        let mut node = Lone::new(3, disk_of_terms(&[1, 2]));
        node.step(&format!("n2@3 -> n1 AppendEntries prev={prev} [] commit=0"));
        assert_eq!(node.turn(), [format!("n1@3 -> n2 AppendEntriesResponse {answer}")], "prev={prev}");
        assert_eq!(node.log(), "1@1, 2@2");
    }
}

/// Numbers at the end of their range, which no leader reaches, are refused like any others: a peer's nonsense must not
/// stop this node.
/// Covers: B15
#[test]
fn the_largest_index_is_no_trap() {
    let mut node = Lone::new(3, disk_of_terms(&[1, 2]));
    node.step(&format!("n2@3 -> n1 AppendEntries prev={}@3 [] commit=0", u64::MAX));
    assert_eq!(node.turn(), [format!("n1@3 -> n2 AppendEntriesResponse reject={} hint=2@2", u64::MAX)]);
}

/// New entries are appended, a conflicting tail is cut at the first difference, and what matches stays.
/// Covers: B6 S14
#[test]
fn only_conflicts_are_cut() {
    for (prev, entries, log) in [
        ("2@2", "3@3", "1@1, 2@2, 3@3"),
        ("1@1", "2@3, 3@4", "1@1, 2@3, 3@4"),
        ("0@0", "1@1", "1@1, 2@2"),
        ("0@0", "1@3", "1@3"),
        ("0@0", "1@1, 2@2, 3@2", "1@1, 2@2, 3@2"),
    ] {
        let mut node = Lone::new(3, disk_of_terms(&[1, 2]));
        node.step(&format!("n2@4 -> n1 AppendEntries prev={prev} [{entries}] commit=0"));
        assert_eq!(node.log(), log, "behind {prev}: {entries}");
        node.turn();
        let durable = node.raft.into_storage().crash();
        assert_eq!(Lone::new(3, durable).log(), log, "and it is durable");
    }
}

/// Figure 7 of the paper: whatever a follower's log looks like, it becomes the leader's.
/// Covers: B10 S15
#[test]
fn every_follower_log_becomes_the_leaders() {
    let leader_log = [1, 1, 1, 4, 4, 5, 5, 6, 6, 6];
    for follower_log in [
        &[1, 1, 1, 4, 4, 5, 5, 6, 6][..],
        &[1, 1, 1, 4],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],
        &[1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        &[1, 1, 1, 4, 4, 4, 4],
        &[1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
        &[],
    ] {
        // The follower may have the better log; the third node elects the leader all the same.
        let disks = [(1, &leader_log[..]), (2, follower_log), (3, &[])];
        let mut cluster = start_late(&disks);
        cluster.propose(NodeId(1), b"a=1").expect("it leads");
        cluster.stabilize(&cluster.running()).expect("memory does not fail");
        let log = |id| cluster.log(NodeId(id)).split_once(": ").expect("a node and its log").1.to_string();
        assert_eq!(log(1), "1@1, 2@1, 3@1, 4@4, 5@4, 6@5, 7@5, 8@6, 9@6, 10@6, 11@10, 12@10 a=1 |");
        assert_eq!(log(2), log(1), "from {follower_log:?}");
    }
}

/// A cluster of three on these logs, all of a late term. Node 1 has been elected by node 3; what it says to node 2 is
/// on its way.
fn start_late(logs: &[(u64, &[u64])]) -> Cluster {
    let disks = logs.iter().map(|(id, terms)| (NodeId(*id), late_disk(terms))).collect();
    let all = [NodeId(1), NodeId(2), NodeId(3)];
    let mut cluster = Cluster::new(3, &all, disks).expect("the disks are sound");
    cluster.timeout(NodeId(1)).expect("memory does not fail");
    cluster.stabilize(&[NodeId(1), NodeId(3)]).expect("memory does not fail");
    assert!(cluster.raft(NodeId(1)).is_leader());
    cluster
}

/// Whoever asks for a vote says in which term and where its log ends, to everyone.
/// Covers: S16
#[test]
fn what_a_candidate_advertises() {
    for (terms, term, last) in
        [(&[1][..], 2, "1@1"), (&[1, 2], 3, "2@2"), (&[1, 1, 1], 2, "3@1"), (&[], 1, "0@0")]
    {
        let mut node = Lone::new(3, disk_of_terms(terms));
        node.pre_campaign();
        let before = term - 1;
        assert_eq!(
            node.turn(),
            [2, 3].map(|peer| format!("n1@{before} -> n{peer} PreVote term={term} last={last}"))
        );
        node.step(&format!("n2@{before} -> n1 PreVoteResponse term={term} granted"));
        assert_eq!(node.turn(), [2, 3].map(|peer| format!("n1@{term} -> n{peer} RequestVote last={last}")));
    }
}

/// The election restriction: the later last term wins, then the longer log; the same holds for pre-votes.
/// Covers: A4 S16
#[test]
fn only_a_complete_log_gets_a_vote() {
    for (terms, last, granted) in [
        // The same last term.
        (&[1][..], "1@1", true),
        (&[1], "2@1", true),
        (&[1, 1], "1@1", false),
        // The candidate's last term is later.
        (&[1], "1@2", true),
        (&[1], "2@2", true),
        (&[1, 1], "1@2", true),
        // The voter's last term is later.
        (&[2], "1@1", false),
        (&[2], "2@1", false),
        (&[1, 2], "3@1", false),
        (&[], "0@0", true),
    ] {
        let answer = if granted { "granted" } else { "refused" };
        let mut node = Lone::new(3, disk_of_terms(terms));
        node.step(&format!("n2@3 -> n1 PreVote term=4 last={last}"));
        node.step(&format!("n2@4 -> n1 RequestVote last={last}"));
        let sent = node.turn();
        assert!(
            sent[0].ends_with(&format!("-> n2 PreVoteResponse term=4 {answer}")),
            "{terms:?}, {last}: {sent:?}"
        );
        assert_eq!(sent[1], format!("n1@4 -> n2 RequestVoteResponse {answer}"), "{terms:?}, {last}");
    }
}

/// Counting commits only entries of the leader's own term, and with them everything before.
/// Covers: B1 S17
#[test]
fn only_the_own_term_is_counted() {
    for (acknowledged, commit) in [(1, 0), (2, 0), (3, 3), (4, 4)] {
        let mut node = Lone::new(2, disk_of_terms(&[1, 2]));
        node.lead();
        node.raft.propose(b"a=1", Purpose::Growth).expect("it leads");
        node.turn();
        assert_eq!(node.log(), "1@1, 2@2, 3@3, 4@3 a=1");
        node.step(&format!("n2@3 -> n1 AppendEntriesResponse match={acknowledged}"));
        assert_eq!(node.raft.commit_index(), Index(commit), "acknowledged to {acknowledged}");
    }
}

/// The commit index follows the leader's, but only as far as this message has compared the logs.
/// Covers: B5 B9 S18
#[test]
fn commit_is_bounded_by_what_was_compared() {
    for (prev, entries, leader_commit, last, commit) in [
        // Refused: nothing moves.
        ("2@3", "", 3, 2, 0),
        ("3@3", "", 3, 2, 0),
        // The commit index is the leader's.
        ("1@1", "", 1, 2, 1),
        ("0@0", "1@2", 1, 1, 1),
        ("2@2", "3@2, 4@2", 3, 4, 3),
        // The message ends before the leader's commit index.
        ("2@2", "3@2", 4, 3, 3),
        ("1@1", "2@2", 4, 2, 2),
        ("1@1", "", 3, 2, 1),
        ("1@1", "2@2", 3, 2, 2),
        ("2@2", "", 3, 2, 2),
        ("2@2", "", 4, 2, 2),
    ] {
        let mut node = Lone::new(3, disk_of_terms(&[1, 2]));
        node.step(&format!("n2@3 -> n1 AppendEntries prev={prev} [{entries}] commit={leader_commit}"));
        let found = (node.raft.last_index(), node.raft.commit_index());
        assert_eq!(found, (Index(last), Index(commit)), "prev={prev} [{entries}] commit={leader_commit}");
    }
}

/// Brings a node into a role.
type Preparation<'a> = &'a dyn Fn(&mut Lone<MemoryStorage>);

/// Who grants what in which role. A pre-vote never changes term or vote; a vote asked for by a leader that hands over
/// is granted in every role; one that is not is ignored by whoever hears from a leader.
/// Covers: A6 A9 S21
#[test]
fn votes_in_every_role() {
    let followed = |node: &mut Lone<MemoryStorage>| node.step("n3@2 -> n1 Heartbeat commit=0 round=0");
    let roles: [(&str, Preparation<'_>, bool); 5] = [
        ("follower without leader", &|_| {}, true),
        ("follower", &followed, false),
        ("pre-candidate", &Lone::pre_campaign, true),
        ("candidate", &Lone::campaign, true),
        ("leader", &Lone::lead, false),
    ];
    for (role, become_role, is_free) in roles {
        let prepare = || {
            let mut node = Lone::new(3, disk_of_terms(&[1, 2]));
            become_role(&mut node);
            node.turn();
            let before = (node.raft.term(), node.raft.vote(), node.raft.role());
            (node, before)
        };
        let granted = |is_granted: bool| if is_granted { "granted" } else { "refused" };

        let (mut node, before) = prepare();
        node.step("n2@7 -> n1 PreVote term=8 last=9@7");
        let expected = format!("n1@{} -> n2 PreVoteResponse term=8 {}", before.0, granted(is_free));
        assert_eq!(node.turn(), [expected], "pre-vote, {role}");
        assert_eq!((node.raft.term(), node.raft.vote(), node.raft.role()), before, "pre-vote, {role}");

        let (mut node, before) = prepare();
        node.step("n2@7 -> n1 RequestVote last=9@7");
        if is_free {
            assert_eq!(node.turn(), ["n1@7 -> n2 RequestVoteResponse granted"], "vote, {role}");
        } else {
            assert_eq!(node.turn(), [""; 0], "vote, {role}");
            assert_eq!((node.raft.term(), node.raft.vote(), node.raft.role()), before, "vote, {role}");
        }

        let (mut node, _) = prepare();
        node.step("n2@7 -> n1 RequestVote last=9@7 transfer");
        assert_eq!(node.turn(), ["n1@7 -> n2 RequestVoteResponse granted"], "hand-over, {role}");
        assert_eq!(
            (node.raft.term(), node.raft.vote(), node.raft.role()),
            (Term(7), Some(NodeId(2)), RoleName::Follower),
            "hand-over, {role}"
        );
    }
}

/// Both sides skip whole terms: the follower's refusal and the leader's next try, for pairs of logs.
/// Covers: B10 S22 S54
#[test]
fn refusals_skip_whole_terms() {
    for (leader_log, follower_log, refusal, next) in [
        // The leader skips its term 4, which the follower cannot have.
        (&[1, 2, 2, 4, 4, 4, 4][..], &[1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3][..], "reject=7 hint=7@3", "prev=3@2"),
        // They meet at the end of the leader's term 3.
        (&[1, 2, 2, 3, 4, 4, 4, 5], &[1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3], "reject=8 hint=8@3", "prev=4@3"),
        // The follower skips everything later than the leader's term, whose log is as long, longer, shorter.
        (&[1, 1, 1, 1], &[1, 2, 2, 4], "reject=4 hint=1@1", "prev=1@1"),
        (&[1, 1, 1, 1, 1, 1], &[1, 2, 2, 4], "reject=6 hint=1@1", "prev=1@1"),
        (&[1, 1, 1, 1], &[1, 2, 2, 4, 4, 4], "reject=4 hint=1@1", "prev=1@1"),
        // The follower lacks entries, and that is all.
        (&[1, 1, 1, 4, 5], &[1, 1, 1, 4], "reject=5 hint=4@4", "prev=4@4"),
        // Here the leader's part, there the follower's part of the search does it.
        (&[2, 5, 5, 5, 5, 5, 5, 5, 5], &[2, 4, 4, 4, 4, 4], "reject=9 hint=6@4", "prev=1@2"),
        (&[2, 2, 2, 2, 2], &[2, 4, 4, 4, 4, 4, 4, 4], "reject=5 hint=1@2", "prev=1@2"),
    ] {
        let mut cluster = start_late(&[(1, leader_log), (2, follower_log), (3, leader_log)]);
        let to_leader = Filter { to: vec![NodeId(1)], ..Filter::default() };
        cluster.take_lines();
        cluster.deliver(&Filter { to: vec![NodeId(2)], ..Filter::default() }).expect("memory does not fail");
        cluster.turn(NodeId(2)).expect("memory does not fail");
        cluster.deliver(&to_leader).expect("memory does not fail");
        cluster.turn(NodeId(1)).expect("memory does not fail");
        let lines = cluster.take_lines();
        let said = |text: &str| lines.iter().any(|line| line.contains(text));
        assert!(
            said(&format!("AppendEntriesResponse {refusal}")),
            "{leader_log:?} {follower_log:?}: {lines:?}"
        );
        assert!(said(&format!("n2 AppendEntries {next} ")), "{leader_log:?} {follower_log:?}: {lines:?}");
    }
}

/// An append that begins under the follower's snapshot is answered with what is committed: all of it is common.
/// Covers: B10 B20 S22 S54 S55
#[test]
fn appends_under_the_snapshot_are_common() {
    let snapshot = EntryId::new(Term(2), Index(5));
    let hard_state = HardState { term: Term(3), ..HardState::default() };
    let entries = [EntryId::new(Term(2), Index(6))];
    for prev in ["0@0", "2@1", "4@2"] {
        let mut node = Lone::new(3, disk(snapshot, &entries, hard_state));
        node.step(&format!("n2@3 -> n1 AppendEntries prev={prev} [] commit=3"));
        assert_eq!(node.turn(), ["n1@3 -> n2 AppendEntriesResponse match=5"], "prev={prev}");
    }
}

/// The hint of a refusal, for logs from the beginning and behind a snapshot, and for places in and outside of them. Under
/// the beginning of the log everything is common.
/// Covers: B10 S54
#[test]
fn refusals_name_the_last_entry_that_may_be_common() {
    let whole: (&str, &[u64]) = ("0@0", &[2, 2, 5, 5, 5]);
    let behind: (&str, &[u64]) = ("10@3", &[3, 3, 4, 4, 4]);
    for ((snapshot, terms), prev, answer) in [
        (whole, "100@2", "reject=100 hint=2@2"),
        (whole, "100@6", "reject=100 hint=5@5"),
        (whole, "100@5", "reject=100 hint=5@5"),
        (whole, "100@4", "reject=100 hint=2@2"),
        (whole, "100@1", "reject=100 hint=0@0"),
        (whole, "5@4", "reject=5 hint=2@2"),
        (whole, "5@5", "match=5"),
        (whole, "0@0", "match=0"),
        (behind, "30@3", "reject=30 hint=12@3"),
        (behind, "30@9", "reject=30 hint=15@4"),
        (behind, "30@2", "reject=30 hint=10@3"),
        (behind, "14@9", "reject=14 hint=14@4"),
        (behind, "14@4", "match=14"),
        (behind, "14@3", "reject=14 hint=12@3"),
        (behind, "14@2", "reject=14 hint=10@3"),
        (behind, "11@5", "reject=11 hint=11@3"),
        (behind, "11@2", "reject=11 hint=10@3"),
        (behind, "10@3", "match=10"),
        (behind, "9@2", "match=10"),
        (behind, "4@2", "match=10"),
        (behind, "0@0", "match=10"),
    ] {
        let snapshot = parse_id(snapshot).expect("well written");
        let first = snapshot.index.0 + 1;
        let ids: Vec<EntryId> =
            (first..).zip(terms).map(|(index, term)| EntryId::new(Term(*term), Index(index))).collect();
        let hard_state = HardState { term: LATE_TERM, ..HardState::default() };
        let mut node = Lone::new(3, disk(snapshot, &ids, hard_state));
        node.step(&format!("n2@{LATE_TERM} -> n1 AppendEntries prev={prev} [] commit=0"));
        let expected = format!("n1@{LATE_TERM} -> n2 AppendEntriesResponse {answer}");
        assert_eq!(node.turn(), [expected], "{terms:?} behind {snapshot}, prev={prev}");
    }
}

/// A snapshot against logs of all kinds: what is committed never goes back, a log with its last entry stays as it is, any
/// other log is void, and the state comes from the snapshot.
/// Covers: D1 D2 S38
#[test]
fn a_snapshot_meets_every_log() {
    const SNAPSHOT: &str = "snapshot=4@2 size=15";
    for (terms, committed, log, commit, is_restored) in [
        // Nothing, or a part of it.
        (&[][..], 0, "", 4, true),
        (&[1, 1], 1, "", 4, true),
        (&[1, 1, 2], 3, "", 4, true),
        // Another entry is where it ends.
        (&[1, 1, 1, 1], 1, "", 4, true),
        (&[1, 1, 1, 1, 1, 1], 2, "", 4, true),
        (&[1, 1, 2, 3, 3], 3, "", 4, true),
        // The same entry, with and without something behind it.
        (&[1, 1, 2, 2], 1, "1@1, 2@1, 3@2, 4@2", 4, false),
        (&[1, 1, 2, 2, 2, 3], 1, "1@1, 2@1, 3@2, 4@2, 5@2, 6@3", 4, false),
        // It is old.
        (&[1, 1, 2, 2], 4, "1@1, 2@1, 3@2, 4@2", 4, false),
        (&[1, 1, 2, 2, 3, 3], 5, "1@1, 2@1, 3@2, 4@2, 5@3, 6@3", 5, false),
    ] {
        let ids: Vec<EntryId> =
            (1..).zip(terms).map(|(index, term)| EntryId::new(Term(*term), Index(index))).collect();
        let hard_state =
            HardState { term: LATE_TERM, commit_index: Index(committed), ..HardState::default() };
        let mut node = Lone::new(3, disk(EntryId::default(), &ids, hard_state));
        node.step(&format!("n2@9 -> n1 InstallSnapshot {SNAPSHOT} offset=0 [all up to 4@2; ]"));
        let what = format!("{terms:?}, committed {committed}");
        let synced = node.raft.sync(node.now).expect("memory does not fail");
        assert_eq!(synced.restore.is_some(), is_restored, "{what}");
        assert_eq!((synced.committed, node.raft.commit_index()), (Index(commit), Index(commit)), "{what}");
        let sent: Vec<String> = synced.messages.iter().map(envelope_text).collect();
        assert_eq!(sent, [format!("n1@9 -> n2 InstallSnapshotResponse {SNAPSHOT} match={commit}")], "{what}");
        assert_eq!(node.log(), log, "{what}");
        // It is durable: a restart finds the same.
        let again = Lone::new(3, node.raft.into_storage().crash());
        assert_eq!(
            (again.log().as_str(), again.raft.commit_index() >= Index(committed)),
            (log, true),
            "{what}"
        );
    }
}

/// The snapshot may be the first thing that a node hears of a later term. When the snapshot is durable the term must be
/// so, too: otherwise the node could not start again.
/// Covers: B19 D1
#[test]
fn a_snapshot_is_never_durable_before_its_term() {
    let mut node = Lone::new(3, disk_of_terms(&[1]));
    node.step("n2@3 -> n1 InstallSnapshot snapshot=4@2 size=15 offset=0 [all up to 4@2; ]");
    let storage = node.raft.into_storage().crash();
    assert_eq!(storage.hard_state().term, Term(3));
    assert_eq!(Lone::new(3, storage).raft.commit_index(), Index(4));
}

/// Who may vote depends on what was heard and what is here. Standing, own entries, the peers' answers, entries from the
/// leader of term 5: a voter or not, and its vote in term 5.
/// Covers: F21
#[test]
fn who_is_admitted() {
    let empty = |peer: u64| format!("n{peer}@0 -> n1 AdmissionResponse virgin empty");
    let voter = |peer: u64| format!("n{peer}@5 -> n1 AdmissionResponse voter");
    let leader = |commit: u64| format!("n2@5 -> n1 AdmissionResponse voter commit={commit}");
    let entries = || "n2@5 -> n1 AppendEntries prev=0@0 [1@1, 2@5] commit=1".to_string();
    for (standing, heard, is_admitted, vote) in [
        ("virgin", vec![], false, None),
        // Founding: nobody has anything. A majority alone must wait for the others, see below.
        ("virgin", vec![empty(2), empty(3)], true, None),
        ("virgin", vec![empty(2)], false, None),
        ("virgin", vec![voter(2)], false, None),
        ("virgin", vec![voter(2), empty(3)], false, None),
        // Not with entries of its own: those who have nothing may have lost what they had.
        ("virgin", vec![entries(), empty(3)], false, None),
        // Joining: everybody has answered, and what is committed is here.
        ("virgin", vec![entries(), leader(2)], false, None),
        ("virgin", vec![entries(), voter(2), voter(3)], false, None),
        ("virgin", vec![entries(), leader(3), voter(3)], false, None),
        ("virgin", vec![entries(), leader(2), voter(3)], true, Some(1)),
        ("virgin", vec![leader(2), voter(3), entries()], true, Some(1)),
        // After damage the leader's word is enough, and founding is not: the node had something.
        ("recovering", vec![empty(2), empty(3)], false, None),
        ("recovering", vec![entries(), leader(3)], false, None),
        ("recovering", vec![entries(), leader(2)], true, None),
        // The word of somebody who does not lead this term.
        ("recovering", vec![entries(), "n3@5 -> n1 AdmissionResponse voter commit=1".into()], false, None),
        ("recovering", vec![entries(), "n2@4 -> n1 AdmissionResponse voter commit=1".into()], false, None),
    ] {
        let mut storage =
            if standing == "virgin" { MemoryStorage::virgin() } else { MemoryStorage::default().set_aside() };
        storage.sync().expect("memory does not fail");
        let mut node = Lone::new(3, storage);
        heard.iter().for_each(|text| node.step(text));
        node.turn();
        node.turn();
        assert_eq!(node.raft.standing() == Standing::Voter, is_admitted, "{standing}: {heard:?}");
        assert_eq!(node.raft.vote(), vote.map(NodeId), "{standing}: {heard:?}");
        // A candidate whose log is better than any other asks in a later term.
        node.now = node.now.after(10 * ELECTION_TIMEOUT_MS);
        node.step("n3@6 -> n1 RequestVote last=9@5");
        let answer = if is_admitted { "granted" } else { "refused" };
        let sent = node.turn();
        assert_eq!(sent.last(), Some(&format!("n1@6 -> n3 RequestVoteResponse {answer}")), "{heard:?}");
        let standing_on_disk = node.raft.into_storage().durable_standing();
        assert_eq!(standing_on_disk == Standing::Voter, is_admitted, "it is durable");
    }
}

/// Of two nodes the other one has everything that is committed, and nobody leads without its vote. So the one that lost
/// something votes as soon as the other one says that it has not; otherwise no leader could ever bring it up to date.
/// Covers: F21
#[test]
fn one_of_two_is_admitted_by_the_other() {
    for (standing, heard, is_admitted) in [
        ("virgin", "voter", true),
        ("virgin", "virgin", false),
        ("recovering", "voter", true),
        ("recovering", "recovering", false),
    ] {
        let mut storage =
            if standing == "virgin" { MemoryStorage::virgin() } else { MemoryStorage::default().set_aside() };
        storage.sync().expect("memory does not fail");
        let mut node = Lone::new(2, storage);
        node.step(&format!("n2@5 -> n1 AdmissionResponse {heard}"));
        node.now = node.now.after(ELECTION_TIMEOUT_MS);
        node.turn();
        node.turn();
        assert_eq!(node.raft.standing() == Standing::Voter, is_admitted, "{standing}, the other one {heard}");
    }
}

/// A majority of those who have nothing may found a cluster, but not before the others had the time to say that there is
/// one: a disk may have been lost, and a third node may never have been started.
/// Covers: F21
#[test]
fn founders_wait_for_who_may_have_data() {
    for (heard, is_admitted) in [("virgin empty", true), ("voter", false)] {
        let mut storage = MemoryStorage::virgin();
        storage.sync().expect("memory does not fail");
        let mut node = Lone::new(3, storage);
        node.step("n2@0 -> n1 AdmissionResponse virgin empty");
        node.turn();
        assert_eq!(node.raft.standing(), Standing::Virgin);
        if !is_admitted {
            node.step(&format!("n3@0 -> n1 AdmissionResponse {heard}"));
        }
        node.now = node.now.after(ELECTION_TIMEOUT_MS);
        node.turn();
        assert_eq!(node.raft.standing() == Standing::Voter, is_admitted, "{heard}");
    }
}

/// What an answer changes in the leader's view of a peer, and what the leader sends next.
/// Covers: B11 S24 S43
#[test]
fn answers_move_the_view_of_a_peer() {
    for (answer, progress, commit, sent) in [
        // A refusal of something that is not the probe is late.
        ("reject=3 hint=2@1", (0, 3), 0, &[][..]),
        ("reject=1 hint=0@0", (0, 3), 0, &[]),
        // The probe is refused: the next one is earlier.
        ("reject=2 hint=1@1", (0, 2), 0, &["n1@2 -> n2 AppendEntries prev=1@1 [2@1] commit=0"]),
        ("reject=2 hint=0@0", (0, 1), 0, &["n1@2 -> n2 AppendEntries prev=0@0 [1@1] commit=0"]),
        // An earlier entry is acknowledged: everything behind it follows, without commit.
        ("match=1", (1, 4), 0, &["n1@2 -> n2 AppendEntries prev=1@1 [2@1, 3@2] commit=0"]),
        ("match=2", (2, 4), 0, &["n1@2 -> n2 AppendEntries prev=2@1 [3@2] commit=0"]),
        // The entry of the own term is acknowledged: it is committed, and the peer is told.
        ("match=3", (3, 4), 3, &["n1@2 -> n2 AppendEntries prev=3@2 [] commit=3"]),
        // More than there is.
        ("match=4", (0, 3), 0, &[]),
    ] {
        let mut node = Lone::new(3, disk_of_terms(&[1, 1]));
        node.lead();
        assert_eq!(node.progress(2), (0, 3), "the probe is out");
        node.step(&format!("n2@2 -> n1 AppendEntriesResponse {answer}"));
        assert_eq!(node.turn(), sent, "{answer}");
        assert_eq!((node.progress(2), node.raft.commit_index()), (progress, Index(commit)), "{answer}");
    }
}

/// Time-outs are random in [T, 2T): every value occurs, and five followers that lose their leader seldom campaign
/// together. T is 10 here, so that ties are as likely as for T in tenths.
/// Covers: A16 S8
#[test]
fn timeouts_differ() {
    const ROUNDS: u64 = 1000;
    let timeout = 10;
    let mut nodes: Vec<Raft<MemoryStorage>> = (2..=6)
        .map(|id| {
            let voters = (1..=6).map(NodeId).collect();
            let config = Config {
                id: NodeId(id),
                voters,
                election_timeout_ms: timeout,
                heartbeat_interval_ms: 1,
                seed: id,
            };
            Raft::new(config, MemoryStorage::default(), Millis(0)).expect("an empty disk is sound")
        })
        .collect();
    let (mut seen, mut ties) = (BTreeMap::<u64, u64>::new(), 0);
    for round in 1..=ROUNDS {
        let now = Millis(round * 1000);
        let mut waits = Vec::new();
        for raft in &mut nodes {
            let text = format!("n1@1 -> {} Heartbeat commit=0 round=0", raft.id());
            raft.step(now, parse_envelope(&text).expect("well written")).expect("memory does not fail");
            raft.drain_immediate(now, &mut Vec::new()).expect("memory does not fail");
            let _ = raft.sync(now).expect("memory does not fail");
            waits.push(raft.next_deadline() - now);
        }
        waits.iter().for_each(|wait| *seen.entry(*wait).or_default() += 1);
        let first = waits.iter().min().expect("five of them");
        ties += u64::from(waits.iter().filter(|wait| *wait == first).count() > 1);
    }
    assert_eq!(seen.keys().copied().collect::<BTreeSet<u64>>(), (timeout..2 * timeout).collect());
    assert!(seen.values().all(|count| (400..=600).contains(count)), "evenly distributed: {seen:?}");
    assert!(ties * 10 <= ROUNDS * 3, "{ties} of {ROUNDS} rounds begin with two campaigns at once");
}

/// A leader that cannot read its own log sends nothing in its place: the error comes out, and stops the process.
/// Covers: B16
#[test]
fn an_unreadable_entry_is_an_error_and_no_guess() {
    let mut disk = disk_of_terms(&[1, 1, 1]);
    disk.faults.unreadable = Some(Index(2));
    let mut node = Lone::new(3, disk);
    node.lead();
    node.step("n2@2 -> n1 AppendEntriesResponse reject=3 hint=1@1");
    let mut out = Vec::new();
    let error = node.raft.drain_immediate(node.now, &mut out).expect_err("entry 2 is needed");
    assert_eq!(error.to_string(), "log is damaged at byte 0: entry 2 cannot be read");
    assert!(out.is_empty(), "{out:?}");
}
