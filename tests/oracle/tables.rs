//! Single decisions of one node, over random logs.

use keva::raft::entry::{Entries, Entry, EntryKind, encode_entry};
use keva::raft::message::{AppendOutcome, Envelope, Message};
use keva::raft::types::{EntryId, Index, Term};
use keva::util::rng::Rng;
use keva::util::time::Millis;
use raft::eraftpb::{self, MessageType};

use crate::side::{Disk, LoggedEntry, Node};
use crate::{ours, theirs};

const ROWS: u64 = 20_000;
const VOTER: Node = 0;
const CANDIDATE: Node = 1;
const COUNT: usize = 3;

/// A log of up to nine entries with terms up to `term`.
fn random_log(rng: &mut Rng, term: u64) -> Vec<LoggedEntry> {
    let mut log = Vec::new();
    let mut last = 1;
    for _ in 0..rng.range(0, 9) {
        last = term.min(last + rng.range(0, 3) / 2);
        log.push((last, format!("{} of {last}", log.len()).into_bytes()));
    }
    log
}

fn last_id(log: &[LoggedEntry]) -> EntryId {
    EntryId::new(Term(log.last().map_or(0, |entry| entry.0)), Index(log.len() as u64))
}

/// A node of both, on the same disk.
fn voter(
    disk: &Disk,
) -> (keva::raft::raft::Raft<crate::memory_storage::MemoryStorage>, raft::RawNode<raft::storage::MemStorage>)
{
    let our = ours::start(VOTER, COUNT, ours::storage(disk), Millis(1));
    (our, theirs::start(VOTER, theirs::storage(disk, COUNT)))
}

/// A3, A4: the same votes and the same promises are given, whatever the logs, the terms and the votes before.
#[test]
fn votes_over_random_logs() {
    let mut rng = Rng::new(1);
    let (mut granted, mut promised) = (0, 0);
    for row in 0..ROWS {
        let term = 1 + rng.range(0, 4);
        let (log, other) = (random_log(&mut rng, term), random_log(&mut rng, 5));
        let vote = [None, Some(VOTER), Some(CANDIDATE), Some(2)][rng.range(0, 4) as usize];
        let disk = Disk { term, vote, commit: 0, log };
        let campaign_term = 1 + rng.range(0, 6);
        let (last, is_pre_vote) = (last_id(&other), rng.range(0, 2) == 0);
        let (mut our, mut their) = voter(&disk);
        let message = if is_pre_vote {
            Message::PreVote { campaign_term: Term(campaign_term), last }
        } else {
            Message::RequestVote { last, transfer: false }
        };
        let sender_term = if is_pre_vote { campaign_term - 1 } else { campaign_term };
        let (from, to) = (ours::node_id(CANDIDATE), ours::node_id(VOTER));
        our.step(Millis(1), Envelope { from, to, term: Term(sender_term), message }).expect("memory");
        let our_answer = ours::turn(&mut our, Millis(1)).into_iter().any(|envelope| {
            matches!(
                envelope.message,
                Message::RequestVoteResponse { granted: true }
                    | Message::PreVoteResponse { granted: true, .. }
            )
        });
        let msg_type = if is_pre_vote { MessageType::MsgRequestPreVote } else { MessageType::MsgRequestVote };
        their
            .step(eraftpb::Message {
                msg_type,
                from: theirs::node_id(CANDIDATE),
                to: theirs::node_id(VOTER),
                term: campaign_term,
                index: last.index.0,
                log_term: last.term.0,
                ..eraftpb::Message::default()
            })
            .expect("a voter's message is taken");
        let answers = [MessageType::MsgRequestVoteResponse, MessageType::MsgRequestPreVoteResponse];
        let their_answer = theirs::turn(&mut their)
            .iter()
            .any(|message| answers.contains(&message.msg_type) && !message.reject);
        let what =
            format!("row {row}: {disk:?} asked in {campaign_term} with {last}, pre-vote: {is_pre_vote}");
        assert_eq!(our_answer, their_answer, "{what}");
        let state = (our.term().0, our.vote().map_or(0, |vote| vote.0));
        assert_eq!(state, theirs::hard_state(&their), "term and vote afterwards; {what}");
        granted += u64::from(our_answer && !is_pre_vote);
        promised += u64::from(our_answer && is_pre_vote);
    }
    println!("{ROWS} rows: {granted} votes and {promised} promises given by both");
    assert!(granted > 1000 && promised > 1000);
}

/// The follower's answer: accepted up to, or refused with the hint (index and term).
#[derive(PartialEq, Eq, Debug)]
enum Answer {
    Accepted(u64),
    Refused(u64, u64, u64),
}

fn our_answer(envelopes: Vec<Envelope>) -> Option<Answer> {
    envelopes.into_iter().find_map(|envelope| match envelope.message {
        Message::AppendEntriesResponse { outcome: AppendOutcome::Accepted { match_index } } => {
            Some(Answer::Accepted(match_index.0))
        }
        Message::AppendEntriesResponse { outcome: AppendOutcome::Rejected { prev_index, hint } } => {
            Some(Answer::Refused(prev_index.0, hint.index.0, hint.term.0))
        }
        _ => None,
    })
}

fn their_answer(messages: Vec<eraftpb::Message>) -> Option<Answer> {
    let answer = messages.into_iter().find(|message| message.msg_type == MessageType::MsgAppendResponse)?;
    Some(if answer.reject {
        Answer::Refused(answer.index, answer.reject_hint, answer.log_term)
    } else {
        Answer::Accepted(answer.index)
    })
}

/// Entries `first..` of a log, as both carry them.
fn carried(log: &[LoggedEntry], first: usize, end: usize) -> (Entries, Vec<eraftpb::Entry>) {
    let (mut ours, mut theirs) = (Entries::default(), Vec::new());
    for (position, (term, data)) in log.iter().enumerate().take(end).skip(first) {
        let index = position as u64 + 1;
        let mut bytes = Vec::new();
        encode_entry(EntryId::new(Term(*term), Index(index)), EntryKind::Command, data, &mut bytes);
        ours.push(Entry::decode(&bytes).expect("just encoded"));
        theirs.push(eraftpb::Entry { term: *term, index, data: data.clone().into(), ..Default::default() });
    }
    (ours, theirs)
}

/// B4, B5, B6, B10: the same entries are taken, the same tail is cut, the same commit index and the same hint result.
#[test]
fn appends_over_random_logs() {
    let mut rng = Rng::new(2);
    let (mut accepted, mut refused, mut cut) = (0, 0, 0);
    for row in 0..ROWS {
        let term = 1 + rng.range(0, 5);
        let leader_log = random_log(&mut rng, term);
        let common = rng.range(0, leader_log.len() as u64 + 1) as usize;
        // What follows the common part differs from the leader's from its first entry on.
        let mut log = leader_log[..common].to_vec();
        let mut last = log.last().map_or(1, |entry| entry.0);
        let avoided = leader_log.get(common).map(|entry| entry.0);
        for _ in 0..rng.range(0, 6) {
            last = term.min(last + rng.range(0, 3) / 2);
            if log.len() == common && Some(last) == avoided {
                break;
            }
            log.push((last, format!("stray of {last}").into_bytes()));
        }
        if log.len() > common
            && log[common..].iter().any(|(term, _)| leader_log.iter().any(|entry| entry.0 == *term))
        {
            // Two entries of one term would then stand at different places of two logs.
            log.truncate(common);
        }
        let commit = rng.range(0, common as u64 + 1);
        let disk = Disk { term, vote: None, commit, log: log.clone() };
        let prev = rng.range(commit, leader_log.len() as u64 + 1).max(commit) as usize;
        let end = rng.range(prev as u64, leader_log.len() as u64 + 1) as usize;
        let leader_commit = rng.range(commit, leader_log.len() as u64 + 1);
        let (entries, their_entries) = carried(&leader_log, prev, end);
        let prev_id = last_id(&leader_log[..prev]);

        let (mut our, mut their) = voter(&disk);
        let message = Message::AppendEntries { prev: prev_id, entries, commit_index: Index(leader_commit) };
        let (from, to) = (ours::node_id(CANDIDATE), ours::node_id(VOTER));
        our.step(Millis(1), Envelope { from, to, term: Term(term), message }).expect("memory");
        let our_result = our_answer(ours::turn(&mut our, Millis(1)));
        their
            .step(eraftpb::Message {
                msg_type: MessageType::MsgAppend,
                from: theirs::node_id(CANDIDATE),
                to: theirs::node_id(VOTER),
                term,
                index: prev as u64,
                log_term: prev_id.term.0,
                entries: their_entries.into(),
                commit: leader_commit,
                ..eraftpb::Message::default()
            })
            .expect("a leader's message is taken");
        let their_result = their_answer(theirs::turn(&mut their));
        let what =
            format!("row {row}: {disk:?} gets {prev}..{end} of {leader_log:?} with commit {leader_commit}");
        assert!(our_result.is_some(), "{what}");
        assert_eq!(our_result, their_result, "{what}");
        assert_eq!(ours::log(&our), theirs::log(&their), "{what}");
        assert_eq!(our.commit_index().0, their.raft.raft_log.committed, "{what}");
        cut += u64::from(!ours::log(&our).starts_with(&log));
        match our_result {
            Some(Answer::Accepted(_)) => accepted += 1,
            _ => refused += 1,
        }
    }
    println!("{ROWS} rows: {accepted} accepted, {refused} refused, {cut} logs cut");
    assert!(accepted > 1000 && refused > 1000 && cut > 200);
}
