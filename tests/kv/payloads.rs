//! Payloads: laid out as they are, made of any bytes, and the rules that they keep.

use keva::kv::command::{
    Command, CommandError, Condition, Matcher, Operation, Requirement, Transaction, Write,
};
use keva::kv::payload::{Payload, PayloadError, is_same_write, stamp};
use keva::kv::store::{Applied, Store};
use keva::limits::{
    CONDITION_REVISIONS_MAX, CONTENT_TYPE_BYTES_MAX, COUNTER_MAX, EXPIRIES_MAX, IDEMPOTENCY_KEY_BYTES_MAX,
    KEY_BYTES_MAX, PAYLOAD_BYTES_MAX, TRANSACTION_OPERATIONS_MAX, TTL_MS_MAX, VALUE_BYTES_MAX,
};
use keva::raft::types::Index;
use keva::util::time::LogicalTime;
use proptest::prelude::*;

use crate::snapshots::snapshot;
use crate::writes::{
    add, append, delete, delete_prefix, expire, id, op_add, op_delete, op_get, op_put, payload, put, put_for,
    put_if, revisions, typed, when,
};

const HEADER_BYTES: usize = 34;

fn with_key(command: Command, key: &str) -> Payload {
    let write = Write { command, idempotency_key: Some(key.into()) };
    Payload { id: id(1, 1, 1), time: LogicalTime(0), write }
}

#[test]
fn the_largest_commands_fit_in_a_payload() {
    let list = || Some(Matcher::Revisions(vec![Index(u64::MAX); CONDITION_REVISIONS_MAX]));
    let condition = || Condition { if_match: list(), if_none_match: list() };
    let key = || "k".repeat(KEY_BYTES_MAX);
    let content_type = || Some("t".repeat(CONTENT_TYPE_BYTES_MAX));
    let value = || vec![7; VALUE_BYTES_MAX];
    let ttl_ms = Some(TTL_MS_MAX);
    let small = Operation::Put { key: "k".into(), value: vec![7], content_type: Some("t".into()), ttl_ms };
    let operation =
        |len| Operation::Put { key: key(), value: vec![7; len], content_type: content_type(), ttl_ms };
    let transaction = |requirement, then| {
        let conditions = vec![("k".into(), requirement); TRANSACTION_OPERATIONS_MAX];
        Command::Transaction(Transaction { conditions, then, otherwise: Some(vec![]) })
    };
    let commands = [
        Command::Put {
            key: key(),
            value: value(),
            content_type: content_type(),
            condition: condition(),
            ttl_ms,
        },
        Command::Append {
            key: key(),
            value: value(),
            content_type: content_type(),
            condition: condition(),
            ttl_ms,
            bytes_max: VALUE_BYTES_MAX as u64,
        },
        Command::Add { key: key(), by: i64::MIN, condition: condition(), ttl_ms },
        delete_prefix(&key()),
        Command::Expire { keys: vec![(key(), Index(u64::MAX)); EXPIRIES_MAX] },
        transaction(Requirement::Revision(Index(u64::MAX)), vec![small; TRANSACTION_OPERATIONS_MAX]),
        transaction(Requirement::Value(vec![7; 200]), vec![operation(VALUE_BYTES_MAX - (300 << 10))]),
        when(vec![], vec![operation(VALUE_BYTES_MAX - 64 - KEY_BYTES_MAX - CONTENT_TYPE_BYTES_MAX)]),
    ];
    for command in commands {
        let is_internal = command.is_internal();
        let idempotency_key = (!is_internal).then(|| "i".repeat(IDEMPOTENCY_KEY_BYTES_MAX));
        let payload = Payload {
            id: id(u64::MAX, COUNTER_MAX, if is_internal { 0 } else { u64::MAX }),
            time: LogicalTime(COUNTER_MAX),
            write: Write { command, idempotency_key },
        };
        let bytes = payload.encode();
        assert!(bytes.len() <= PAYLOAD_BYTES_MAX);
        assert_eq!(Payload::decode(&bytes), Ok(payload));
    }
}

/// The header is part of the disk and wire format: these bytes must stay readable.
#[test]
fn the_layout_is_fixed() {
    let mut payload = with_key(delete("k"), "ab");
    payload.id = id(0x0102, 3, 4);
    payload.time = LogicalTime(5);
    let mut expected = vec![2, 1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0];
    expected.extend_from_slice(&[5, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
    expected.extend_from_slice(b"ab\x81\xa6Delete\x92\xa1k\x92\xc0\xc0");
    assert_eq!(payload.encode(), expected);
}

/// J1: the leader gives an entry its time, and the write stays the same.
#[test]
fn a_payload_is_stamped_when_it_is_proposed() {
    let payload = with_key(put("k", "v"), "once");
    let bytes = payload.encode();
    let mut stamped = bytes.clone();
    stamp(&mut stamped, LogicalTime(77));
    assert_eq!(Payload::decode(&stamped), Ok(Payload { time: LogicalTime(77), ..payload }));
    assert!(is_same_write(&bytes, &stamped) && is_same_write(&stamped, &bytes));
    for at in (0..24).chain(32..bytes.len()) {
        let mut other = bytes.clone();
        other[at] ^= 1;
        assert!(!is_same_write(&other, &stamped), "byte {at}");
    }
    assert!(!is_same_write(&bytes, &stamped[..bytes.len() - 1]));
}

/// Payloads made by another program.
fn raw(command: &Command, seq: u64) -> Vec<u8> {
    let mut bytes = payload(id(1, 1, 1), delete("k")).encode()[..HEADER_BYTES].to_vec();
    bytes[16] = seq as u8;
    bytes.extend(rmp_serde::to_vec(command).expect("memory"));
    bytes
}

/// J8: rules are checked again when a payload is read.
#[test]
fn payloads_that_break_a_rule_are_refused() {
    let long_key = "k".repeat(KEY_BYTES_MAX + 1);
    let many = Condition { if_match: None, if_none_match: revisions(&[1; CONDITION_REVISIONS_MAX + 1]) };
    let long = "v".repeat(VALUE_BYTES_MAX + 1);
    let long_type = "t".repeat(CONTENT_TYPE_BYTES_MAX + 1);
    let put_within =
        |ttl_ms| Operation::Put { key: "k".into(), value: vec![], content_type: None, ttl_ms: Some(ttl_ms) };
    let half = || put_within(1);
    let too_many = TRANSACTION_OPERATIONS_MAX + 1;
    let both = Transaction {
        conditions: vec![],
        then: vec![half(); TRANSACTION_OPERATIONS_MAX],
        otherwise: Some(vec![half()]),
    };
    let table = [
        (put("", "v"), CommandError::KeyEmpty),
        (delete(&long_key), CommandError::KeyTooLong),
        (append("", b"v", 1), CommandError::KeyEmpty),
        (add(&long_key, 1), CommandError::KeyTooLong),
        (delete_prefix(&long_key), CommandError::KeyTooLong),
        (expire(&[("", 1)]), CommandError::KeyEmpty),
        (when(vec![], vec![op_get("")]), CommandError::KeyEmpty),
        (when(vec![], vec![op_delete(&long_key)]), CommandError::KeyTooLong),
        (when(vec![("", Requirement::Absent)], vec![]), CommandError::KeyEmpty),
        (put_if("k", "", many), CommandError::TooManyRevisions),
        (put("k", &long), CommandError::ValueTooLong),
        (append("k", long.as_bytes(), 1), CommandError::ValueTooLong),
        (append("k", b"", VALUE_BYTES_MAX as u64 + 1), CommandError::ValueTooLong),
        (when(vec![], vec![op_put("k", &long)]), CommandError::TransactionTooLong),
        (when(vec![("k", Requirement::Value(long.into()))], vec![]), CommandError::TransactionTooLong),
        (typed("k", b"", Some(&long_type)), CommandError::ContentTypeTooLong),
        (put_for("k", "", 0), CommandError::Ttl),
        (put_for("k", "", TTL_MS_MAX + 1), CommandError::Ttl),
        (put_for("k", "", u64::MAX), CommandError::Ttl),
        (when(vec![], vec![put_within(0)]), CommandError::Ttl),
        (when(vec![], vec![put_within(u64::MAX)]), CommandError::Ttl),
        (when(vec![], vec![half(); too_many]), CommandError::TooManyOperations),
        (when(vec![("k", Requirement::Exists); too_many], vec![]), CommandError::TooManyOperations),
        (Command::Transaction(both), CommandError::TooManyOperations),
        (expire(&[]), CommandError::Expiries),
        (expire(&[("k", 1); EXPIRIES_MAX + 1]), CommandError::Expiries),
    ];
    for (command, error) in table {
        assert_eq!(command.check(), Err(error));
        let bytes = raw(&command, u64::from(!command.is_internal()));
        // What is too long for any payload is refused for that.
        if bytes.len() <= PAYLOAD_BYTES_MAX {
            assert_eq!(Payload::decode(&bytes), Err(PayloadError::Rule(error)));
        }
        assert!(!error.to_string().is_empty());
    }
    for key in [String::new(), "i".repeat(IDEMPOTENCY_KEY_BYTES_MAX + 1)] {
        let write = Write { command: delete("k"), idempotency_key: Some(key) };
        assert_eq!(write.check(), Err(CommandError::IdempotencyKey));
    }
}

#[test]
fn payloads_that_are_cut_or_damaged_are_refused() {
    let good = raw(&put("k", "v"), 1);
    assert!(Payload::decode(&good).is_ok());
    let mut newer = good.clone();
    newer[32] = 2;
    assert_eq!(Payload::decode(&newer), Err(PayloadError::Version(2)));
    for at in [0, 8, 16] {
        let mut zero = good.clone();
        zero[at] = 0;
        assert_eq!(Payload::decode(&zero), Err(PayloadError::Header), "{at}");
    }
    // Start numbers and times that no snapshot may hold.
    for field in [8..16, 24..32] {
        for (number, is_good) in [(COUNTER_MAX, true), (COUNTER_MAX + 1, false), (u64::MAX, false)] {
            let mut late = good.clone();
            late[field.clone()].copy_from_slice(&number.to_le_bytes());
            let decoded = Payload::decode(&late).map(drop);
            assert_eq!(
                decoded,
                if is_good { Ok(()) } else { Err(PayloadError::Header) },
                "{field:?} {number}"
            );
        }
    }
    assert_eq!(Payload::decode(&[good.as_slice(), b"\xc0"].concat()), Err(PayloadError::TrailingBytes));
    for cut in 0..good.len() {
        assert!(Payload::decode(&good[..cut]).is_err(), "cut at {cut}");
    }
    // A key that is not UTF-8.
    let mut invalid = good.clone();
    let key = invalid.iter().position(|byte| *byte == b'k').expect("the key");
    invalid[key] = 0xff;
    assert!(matches!(Payload::decode(&invalid), Err(PayloadError::Command(_))));
    // A value said to be 4 GiB long.
    let bomb = [&good[..HEADER_BYTES], b"\x81\xa3Put\x95\xa1k\xc6\xff\xff\xff\xff"].concat();
    assert!(matches!(Payload::decode(&bomb), Err(PayloadError::Command(_))));
    // An idempotency key that is longer than it may be, not there, or no text.
    for (key_len, error) in [(255, PayloadError::Length(good.len())), (1, PayloadError::Header)] {
        let mut bytes = good.clone();
        bytes[33] = key_len;
        assert_eq!(Payload::decode(&bytes), Err(error), "{key_len}");
    }
    let mut long = good[..HEADER_BYTES].to_vec();
    long[33] = IDEMPOTENCY_KEY_BYTES_MAX as u8 + 1;
    long.extend([b'i'; IDEMPOTENCY_KEY_BYTES_MAX + 1]);
    long.extend(&good[HEADER_BYTES..]);
    assert_eq!(Payload::decode(&long), Err(PayloadError::Rule(CommandError::IdempotencyKey)));
}

/// J1: what a leader does of its own accord has no number, and nothing else has none: no client can expire a key.
#[test]
fn only_internal_commands_have_no_number() {
    for command in [Command::Tick, expire(&[("k", 1)])] {
        assert!(command.is_internal());
        assert_eq!(Payload::decode(&raw(&command, 1)), Err(PayloadError::Header));
        assert!(Payload::decode(&raw(&command, 0)).is_ok());
        let mut keyed = raw(&command, 0);
        keyed[33] = 1;
        keyed.insert(HEADER_BYTES, b'i');
        assert_eq!(Payload::decode(&keyed), Err(PayloadError::Header));
    }
}

fn matcher() -> impl Strategy<Value = Option<Matcher>> {
    let list = prop::collection::vec(any::<u64>().prop_map(Index), 0..=CONDITION_REVISIONS_MAX);
    prop_oneof![Just(None), Just(Some(Matcher::Any)), list.prop_map(|list| Some(Matcher::Revisions(list)))]
}

fn condition() -> impl Strategy<Value = Condition> {
    (matcher(), matcher()).prop_map(|(if_match, if_none_match)| Condition { if_match, if_none_match })
}

fn key() -> impl Strategy<Value = String> {
    ".{1,40}"
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..300)
}

fn content_type() -> impl Strategy<Value = Option<String>> {
    prop::option::of("[a-z/]{0,40}")
}

fn ttl() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(1..=TTL_MS_MAX)
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        (key(), value(), content_type(), ttl()).prop_map(|(key, value, content_type, ttl_ms)| {
            Operation::Put { key, value, content_type, ttl_ms }
        }),
        (key(), any::<i64>()).prop_map(|(key, by)| op_add(&key, by)),
        key().prop_map(|key| op_delete(&key)),
        key().prop_map(|key| op_get(&key)),
    ]
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let requirement = prop_oneof![
        any::<u64>().prop_map(|revision| Requirement::Revision(Index(revision))),
        Just(Requirement::Absent),
        Just(Requirement::Exists),
        value().prop_map(Requirement::Value),
    ];
    let operations = || prop::collection::vec(operation(), 0..6);
    (prop::collection::vec((key(), requirement), 0..6), operations(), prop::option::of(operations()))
        .prop_map(|(conditions, then, otherwise)| Transaction { conditions, then, otherwise })
}

fn command() -> impl Strategy<Value = Command> {
    let most = 0..=VALUE_BYTES_MAX as u64;
    prop_oneof![
        3 => (key(), value(), content_type(), condition(), ttl()).prop_map(
            |(key, value, content_type, condition, ttl_ms)| {
                Command::Put { key, value, content_type, condition, ttl_ms }
            }
        ),
        2 => (key(), condition()).prop_map(|(key, condition)| Command::Delete { key, condition }),
        1 => (key(), value(), content_type(), condition(), ttl(), most).prop_map(
            |(key, value, content_type, condition, ttl_ms, bytes_max)| {
                Command::Append { key, value, content_type, condition, ttl_ms, bytes_max }
            }
        ),
        1 => (key(), any::<i64>(), condition(), ttl())
            .prop_map(|(key, by, condition, ttl_ms)| Command::Add { key, by, condition, ttl_ms }),
        1 => ".{0,40}".prop_map(|prefix| Command::DeletePrefix { prefix }),
        2 => transaction().prop_map(Command::Transaction),
        1 => prop::collection::vec((key(), any::<u64>().prop_map(Index)), 1..9)
            .prop_map(|keys| Command::Expire { keys }),
        1 => Just(Command::Tick),
    ]
}

prop_compose! {
    fn any_payload()(
        origin in 1u64..,
        incarnation in 1..=COUNTER_MAX,
        seq in 1u64..,
        time in 0..=COUNTER_MAX,
        command in command(),
        key in prop::option::of("[!-~]{1,64}"),
    ) -> Payload {
        let seq = if command.is_internal() { 0 } else { seq };
        let idempotency_key = key.filter(|_| seq > 0);
        Payload {
            id: id(origin, incarnation, seq),
            time: LogicalTime(time),
            write: Write { command, idempotency_key },
        }
    }
}

/// Numbers at the ends of what is accepted.
fn edge() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(COUNTER_MAX), Just(COUNTER_MAX + 1), Just(u64::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn what_is_encoded_is_decoded(payload in any_payload()) {
        prop_assert_eq!(Payload::decode(&payload.encode()), Ok(payload));
    }

    /// No bytes make the decoder panic, and what it accepts keeps the rules.
    #[test]
    fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(payload) = Payload::decode(&bytes) {
            prop_assert_eq!(payload.write.check(), Ok(()));
        }
    }

    /// The same near the truth: a valid payload with a few bytes changed, added or cut off.
    #[test]
    fn damaged_payloads_are_decoded_or_refused(
        payload in any_payload(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        tail in prop::collection::vec(any::<u8>(), 0..4),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let mut bytes = payload.encode();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(tail);
        if cuts {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(payload) = Payload::decode(&bytes) {
            prop_assert_eq!(payload.write.check(), Ok(()));
        }
    }

    /// D12: whatever is decoded can be applied, and the state that comes of it can be kept in a snapshot: also numbers that
    /// no sound node uses.
    #[test]
    fn what_is_decoded_can_be_restored(
        payloads in prop::collection::vec(any_payload(), 1..8),
        numbers in prop::collection::vec(prop_oneof![edge(), any::<u64>()], 32),
    ) {
        let (mut store, mut numbers) = (Store::default(), numbers.into_iter());
        for payload in payloads {
            let mut bytes = payload.encode();
            let fields = if payload.write.command.is_internal() { [0, 8, 24, 24] } else { [0, 8, 16, 24] };
            for at in fields {
                let number = numbers.next().expect("enough");
                bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
            }
            if let Ok(payload) = Payload::decode(&bytes) {
                let _ = store.apply(store.applied_index().next(), payload);
            }
            let restored = Store::restore(&snapshot(&mut store));
            prop_assert_eq!(restored.as_ref(), Ok(&store));
        }
    }

    /// D13: two stores that get the same commands, one of them each command twice, are the same in the end.
    #[test]
    fn repeated_writes_change_nothing(commands in prop::collection::vec(command(), 1..20)) {
        let (mut once, mut twice) = (Store::default(), Store::default());
        for (command, n) in commands.into_iter().zip(1u64..) {
            if command.is_internal() {
                once.pass(Index(2 * n - 1));
                once.pass(Index(2 * n));
                twice.pass(Index(2 * n - 1));
                twice.pass(Index(2 * n));
                continue;
            }
            let write = payload(id(1, 1, n), command);
            let first = once.apply(Index(2 * n - 1), write.clone());
            once.pass(Index(2 * n));
            prop_assert_eq!(twice.apply(Index(2 * n - 1), write.clone()), first);
            prop_assert_eq!(twice.apply(Index(2 * n), write), Applied::Skipped);
        }
        prop_assert_eq!(once.state_hash(), twice.state_hash());
    }
}
