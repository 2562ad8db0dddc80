//! No turn is long, and what takes several of them shows nothing in between.

use std::collections::BTreeMap;

use keva::kv::command::{Command, Operation, Transaction, Write};
use keva::limits::{APPLY_BYTES_PER_TURN_MAX, READ_BYTES_PER_TURN_MAX};
use keva::raft::types::Index;
use keva::replica::io::{Consistency, KeyRange, Listing, NotApplied, Outcome, Reply, Request, Ticket};
use keva::replica::replica::Replica;
use keva::util::time::Millis;

use crate::cluster::{PATIENCE_MS, not_applied, put, read_of};
use crate::limits::{payload_of, restarted_on};
use crate::support::memory_storage::MemoryStorage;

const MEBIBYTE: usize = 1 << 20;

fn stale(range: &KeyRange, listing: Listing) -> Request {
    Request::List { range: range.clone(), listing, consistency: Consistency::Stale }
}

/// One turn.
fn sync(replica: &mut Replica<MemoryStorage>) -> Vec<Reply> {
    replica.sync(Millis(0)).expect("memory works").replies
}

/// As many turns as there is work for, and what each of them answers.
fn turns(replica: &mut Replica<MemoryStorage>) -> Vec<Vec<Reply>> {
    let mut turns = Vec::new();
    while replica.next_deadline() == Millis(0) {
        turns.push(sync(replica));
        assert!(turns.len() < 1000, "it asks for turn after turn");
    }
    turns
}

fn submit(replica: &mut Replica<MemoryStorage>, ticket: u64, request: Request) {
    replica.submit(Millis(0), Ticket(ticket), request, Millis(PATIENCE_MS));
}

/// I2, I10: many large answers are given turn by turn, all of them, in the order of the requests.
#[test]
fn answers_of_one_turn_are_bounded() {
    let value = "v".repeat(MEBIBYTE);
    let mut replica = restarted_on(&[payload_of(1, put("k", &value).into())]);
    assert_eq!(turns(&mut replica).concat(), []);
    let page = Listing::Page { limit: 9, with_values: true };
    for n in 0..40 {
        let request = match n % 2 {
            0 => read_of("k", Consistency::Stale),
            _ => stale(&KeyRange::default(), page),
        };
        submit(&mut replica, n, request);
    }
    let turns = turns(&mut replica);
    let most = READ_BYTES_PER_TURN_MAX / MEBIBYTE;
    let sizes: Vec<usize> = turns.iter().map(Vec::len).collect();
    assert!(sizes.iter().all(|size| *size <= most), "{sizes:?}");
    let order: Vec<u64> = turns.concat().iter().map(|reply| reply.ticket.0).collect();
    assert_eq!(order, Vec::from_iter(0..40));
}

/// I2, I10: what transactions read counts, although it is in no entry, and is not copied; so does what is appended to.
#[test]
fn what_entries_touch_is_bounded() {
    let value = "v".repeat(MEBIBYTE);
    let get = |_| Operation::Get { key: "k".into() };
    let read = Transaction { conditions: vec![], then: (0..2).map(get).collect(), otherwise: None };
    let append = Command::Append {
        key: "k".into(),
        value: b"1".to_vec(),
        content_type: None,
        condition: Default::default(),
        ttl_ms: None,
        bytes_max: 2 * MEBIBYTE as u64,
    };
    for (command, bytes) in [(Command::Transaction(read), 2 * MEBIBYTE), (append, MEBIBYTE)] {
        let first = payload_of(1, put("k", &value).into());
        let rest = (2..=20).map(|seq| payload_of(seq, command.clone().into()));
        let mut replica = restarted_on(&[first].into_iter().chain(rest).collect::<Vec<_>>());
        let mut applied = vec![0];
        while replica.next_deadline() == Millis(0) {
            let _ = sync(&mut replica);
            applied.push(replica.status().applied_index.0);
        }
        assert_eq!(applied.last(), Some(&20));
        // And the one that reaches the bound.
        let most = (APPLY_BYTES_PER_TURN_MAX / bytes) as u64 + 1;
        assert!(applied.windows(2).all(|pair| pair[1] - pair[0] <= most), "{applied:?}");
    }
}

/// D13, C12: while an entry removes many keys, turn by turn, nobody sees some of them gone and others not.
#[test]
fn a_removal_is_seen_as_a_whole() {
    let names: Vec<String> = (0..5).map(|n| format!("a{n}")).collect();
    let mut entries: Vec<Write> = names.iter().map(|name| put(name, "v").into()).collect();
    entries.push(put("b", "v").into());
    entries.push(Write {
        command: Command::DeletePrefix { prefix: "a".into() },
        idempotency_key: Some("once".into()),
    });
    entries.push(put("a9", "v").into());
    let payloads: Vec<_> = (1..).zip(entries).map(|(seq, write)| payload_of(seq, write)).collect();
    let mut replica = restarted_on(&payloads);
    let all = KeyRange { start: Some("a".into()), ..KeyRange::default() };
    let mut seen = BTreeMap::new();
    let mut ticket = 0;
    for turn in 0.. {
        submit(&mut replica, ticket, read_of("a4", Consistency::Stale));
        submit(&mut replica, ticket + 1, stale(&all, Listing::Count));
        submit(&mut replica, ticket + 2, stale(&all, Listing::Page { limit: 9, with_values: false }));
        ticket += 3;
        for reply in sync(&mut replica) {
            let found = match reply.outcome {
                Outcome::Value(item) => {
                    if item.is_some() {
                        6
                    } else {
                        2
                    }
                }
                Outcome::Count(count) => count,
                Outcome::Page(page) => page.len() as u64,
                other => panic!("{other:?}"),
            };
            seen.entry(reply.revision).or_insert(found);
            assert_eq!(seen[&reply.revision], found, "in turn {turn}, of revision {}", reply.revision);
        }
        if replica.status().applied_index == Index(8) && turn > 30 {
            break;
        }
    }
    // With a budget of one key a turn, the removal has one more turn than keys, and all waits for it.
    assert_eq!(seen, [(Index(8), 2)].into());
    assert!(turns(&mut replica).concat().iter().all(|reply| reply.revision == Index(8)));
    let removed = replica.store().get("a0");
    assert_eq!(removed, None);
}

/// A count of many keys takes several turns; other reads do not wait for it, and one that was given up is forgotten.
#[test]
fn counts_take_turns() {
    let payloads: Vec<_> = (1..=6).map(|seq| payload_of(seq, put(&format!("k{seq}"), "v").into())).collect();
    let mut replica = restarted_on(&payloads);
    assert_eq!(turns(&mut replica).concat(), []);
    let range = KeyRange::prefix("k");
    for ticket in [1, 2, 3] {
        submit(&mut replica, ticket, stale(&range, Listing::Count));
    }
    submit(&mut replica, 4, read_of("k1", Consistency::Stale));
    let first: Vec<u64> = sync(&mut replica).iter().map(|reply| reply.ticket.0).collect();
    assert_eq!(first, [4]);
    assert!(replica.next_deadline() == Millis(0));
    let _ = sync(&mut replica);
    replica.cancel(Ticket(1));
    let rest = turns(&mut replica);
    assert_eq!(rest.len(), 2 * 6 + 1, "a key a turn");
    let counts: Vec<_> = rest.concat().into_iter().map(|reply| (reply.ticket.0, reply.outcome)).collect();
    assert_eq!(counts, [(2, Outcome::Count(6)), (3, Outcome::Count(6))]);
    assert_eq!(replica.in_flight().reads, 0);
}

/// I2, I7: a count that does not come to its end in time is answered all the same.
#[test]
fn counts_have_an_end() {
    let payloads: Vec<_> = (1..=6).map(|seq| payload_of(seq, put(&format!("k{seq}"), "v").into())).collect();
    let mut replica = restarted_on(&payloads);
    assert_eq!(turns(&mut replica).concat(), []);
    submit(&mut replica, 1, stale(&KeyRange::prefix("k"), Listing::Count));
    assert_eq!(sync(&mut replica), []);
    let late = replica.sync(Millis(PATIENCE_MS)).expect("memory works").replies;
    assert_eq!(late.len(), 1);
    assert_eq!(late[0].outcome, not_applied(NotApplied::Overloaded));
    assert_eq!(replica.in_flight().reads, 0);
    submit(&mut replica, 2, stale(&KeyRange::prefix("k"), Listing::Count));
    let counts: Vec<_> = turns(&mut replica).concat().into_iter().map(|reply| reply.outcome).collect();
    assert_eq!(counts, [Outcome::Count(6)]);
}
