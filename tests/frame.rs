//! Frames: what goes in comes out, however the bytes are cut; nothing else comes out.

use keva::limits::{
    COUNTER_MAX, FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX, SNAPSHOT_CHUNK_BYTES,
};
use keva::net::frame::{FRAME_PREFIX_BYTES, FrameDecoder, FrameError, encode_frame};
use keva::raft::entry::{Entries, Entry, EntryError, EntryKind, encode_entry};
use keva::raft::message::{AppendOutcome, Envelope, Message, ReadContext, ReadRound, SnapshotOutcome};
use keva::raft::storage::SnapshotMeta;
use keva::raft::types::{EntryId, Index, NodeId, Standing, Term};
use keva::util::time::LogicalTime;
use proptest::collection::vec;
use proptest::prelude::*;

fn entry_id() -> impl Strategy<Value = EntryId> {
    (1..=COUNTER_MAX, 1..=COUNTER_MAX).prop_map(|(term, index)| EntryId::new(Term(term), Index(index)))
}

/// Zero to five entries of one log.
fn entries() -> impl Strategy<Value = Entries> {
    (1..1000u64, 1..1000u64, vec((0..3u64, vec(any::<u8>(), 0..300)), 0..5)).prop_map(
        |(term, index, list)| {
            let (mut entries, mut term) = (Entries::default(), term);
            for (offset, (step, payload)) in list.into_iter().enumerate() {
                term += step;
                let mut bytes = Vec::new();
                let id = EntryId::new(Term(term), Index(index + offset as u64));
                encode_entry(id, EntryKind::Command, &payload, &mut bytes);
                entries.push(Entry::decode(&bytes).expect("just encoded"));
            }
            entries
        },
    )
}

fn outcome() -> impl Strategy<Value = AppendOutcome> {
    prop_oneof![
        (0..=COUNTER_MAX).prop_map(|index| AppendOutcome::Accepted { match_index: Index(index) }),
        (0..=COUNTER_MAX, entry_id())
            .prop_map(|(index, hint)| AppendOutcome::Rejected { prev_index: Index(index), hint }),
    ]
}

fn snapshot() -> impl Strategy<Value = SnapshotMeta> {
    (entry_id(), 0..=COUNTER_MAX, any::<u32>()).prop_map(|(last, bytes, crc)| SnapshotMeta {
        last,
        bytes,
        crc,
    })
}

fn snapshot_outcome() -> impl Strategy<Value = SnapshotOutcome> {
    prop_oneof![
        (0..=COUNTER_MAX).prop_map(|next_offset| SnapshotOutcome::Receiving { next_offset }),
        (0..=COUNTER_MAX).prop_map(|index| SnapshotOutcome::Installed { match_index: Index(index) }),
        Just(SnapshotOutcome::Refused),
    ]
}

fn standing() -> impl Strategy<Value = Standing> {
    prop_oneof![Just(Standing::Voter), Just(Standing::Virgin), Just(Standing::Recovering)]
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        (0..=COUNTER_MAX, entry_id())
            .prop_map(|(term, last)| Message::PreVote { campaign_term: Term(term), last }),
        (0..=COUNTER_MAX, any::<bool>())
            .prop_map(|(term, granted)| Message::PreVoteResponse { campaign_term: Term(term), granted }),
        (entry_id(), any::<bool>()).prop_map(|(last, transfer)| Message::RequestVote { last, transfer }),
        any::<bool>().prop_map(|granted| Message::RequestVoteResponse { granted }),
        (entry_id(), entries(), 0..=COUNTER_MAX).prop_map(|(prev, entries, commit)| Message::AppendEntries {
            prev,
            entries,
            commit_index: Index(commit)
        }),
        outcome().prop_map(|outcome| Message::AppendEntriesResponse { outcome }),
        (0..=COUNTER_MAX, 0..=COUNTER_MAX, 0..=COUNTER_MAX).prop_map(|(commit, round, time)| {
            Message::Heartbeat {
                commit_index: Index(commit),
                round: ReadRound(round),
                is_full: commit % 2 == 1,
                time: LogicalTime(time),
            }
        }),
        (0..=COUNTER_MAX).prop_map(|round| Message::HeartbeatResponse {
            round: ReadRound(round),
            is_full: round % 2 == 1
        }),
        (0..=COUNTER_MAX).prop_map(|context| Message::ReadIndex { context: ReadContext(context) }),
        (0..=COUNTER_MAX, 0..=COUNTER_MAX).prop_map(|(context, index)| Message::ReadIndexResponse {
            context: ReadContext(context),
            index: Index(index)
        }),
        Just(Message::TimeoutNow),
        Just(Message::Admission),
        Just(Message::RolledBack),
        Just(Message::RolledBackResponse),
        (standing(), any::<bool>(), proptest::option::of(0..=COUNTER_MAX)).prop_map(
            |(standing, is_empty, commit)| Message::AdmissionResponse {
                standing,
                is_empty,
                commit_index: commit.map(Index),
            }
        ),
        (snapshot(), 0..=COUNTER_MAX, vec(any::<u8>(), 0..300))
            .prop_map(|(snapshot, offset, chunk)| Message::InstallSnapshot { snapshot, offset, chunk }),
        (snapshot(), snapshot_outcome())
            .prop_map(|(snapshot, outcome)| Message::InstallSnapshotResponse { snapshot, outcome }),
        vec(vec(any::<u8>(), 0..300), 0..5).prop_map(|payloads| Message::Forward { payloads }),
    ]
}

fn envelope() -> impl Strategy<Value = Envelope> {
    (0..=COUNTER_MAX, 0..=COUNTER_MAX, 0..=COUNTER_MAX, message()).prop_map(|(from, to, term, message)| {
        Envelope { from: NodeId(from), to: NodeId(to), term: Term(term), message }
    })
}

fn frame_of(message: Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_frame(&Envelope { from: NodeId(1), to: NodeId(2), term: Term(3), message }, &mut bytes);
    bytes
}

fn decode(bytes: &[u8]) -> Result<Option<Envelope>, FrameError> {
    let mut decoder = FrameDecoder::default();
    decoder.push(bytes);
    decoder.next()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn messages_survive_any_split(envelopes in vec(envelope(), 1..6), cuts in vec(1..400usize, 1..40)) {
        let mut bytes = Vec::new();
        envelopes.iter().for_each(|envelope| encode_frame(envelope, &mut bytes));
        let (mut decoder, mut decoded, mut rest, mut cuts) =
            (FrameDecoder::default(), Vec::new(), bytes.as_slice(), cuts.into_iter().cycle());
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cuts.next().expect("a cycle").min(rest.len()));
            decoder.push(piece);
            while let Some(envelope) = decoder.next().expect("valid bytes") {
                decoded.push(envelope);
            }
            rest = after;
        }
        prop_assert_eq!(decoded, envelopes);
        prop_assert!(!decoder.is_mid_frame());
    }

    /// F25: a changed byte is found, or belongs to a part that nothing reads any more.
    #[test]
    fn a_changed_byte_never_makes_another_message(envelope in envelope(), at in any::<prop::sample::Index>(), xor in 1..=255u8) {
        let mut bytes = Vec::new();
        encode_frame(&envelope, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= xor;
        let decoded = decode(&bytes);
        prop_assert!(!matches!(decoded, Ok(Some(_))), "byte {} changed: {:?}", at, decoded);
    }

    #[test]
    fn no_input_panics(pieces in vec(vec(any::<u8>(), 0..200), 0..10)) {
        let mut decoder = FrameDecoder::default();
        for piece in pieces {
            decoder.push(&piece);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }

    /// Beyond the checksum: header bytes that some other program wrote with a right checksum.
    #[test]
    fn no_header_panics(header in vec(any::<u8>(), 0..200), tail in vec(any::<u8>(), 0..200)) {
        let _ = decode(&with_header(&header, &tail));
    }
}

/// A frame with a right checksum around any header.
fn with_header(header: &[u8], tail: &[u8]) -> Vec<u8> {
    let len = ((header.len() + tail.len()) as u32).to_le_bytes();
    let header_len = (header.len() as u32).to_le_bytes();
    let crc = crc32c::crc32c(&[&len, &header_len, header].concat()).to_le_bytes();
    [&len, &crc, &header_len, header, tail].concat()
}

fn prefix(len: usize, header_len: usize) -> Vec<u8> {
    [len as u32, 0, header_len as u32].iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// I4: refused on the length alone, before anything is allocated for it.
#[test]
fn length_bombs_are_refused_at_the_prefix() {
    let refused = |len, header_len| {
        assert_eq!(decode(&prefix(len, header_len)), Err(FrameError::Length { len, header_len }));
    };
    refused(u32::MAX as usize, 10);
    refused(FRAME_BYTES_MAX + 1, 10);
    refused(FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX + 1);
    refused(9, 10);
    assert_eq!(
        decode(&prefix(FRAME_BYTES_MAX, FRAME_HEADER_BYTES_MAX)),
        Ok(None),
        "the largest frame may begin"
    );
}

#[test]
fn the_largest_entry_fits() {
    let mut bytes = Vec::new();
    encode_entry(
        EntryId::new(Term(1), Index(1)),
        EntryKind::Command,
        &vec![7; PAYLOAD_BYTES_MAX],
        &mut bytes,
    );
    let mut entries = Entries::default();
    entries.push(Entry::decode(&bytes).expect("just encoded"));
    let message = Message::AppendEntries { prev: EntryId::default(), entries, commit_index: Index(0) };
    assert_eq!(decode(&frame_of(message.clone())).expect("valid").expect("whole").message, message);
    let message = Message::Forward { payloads: vec![vec![7; PAYLOAD_BYTES_MAX]] };
    assert_eq!(decode(&frame_of(message.clone())).expect("valid").expect("whole").message, message);
}

#[test]
fn bytes_behind_a_message_without_any_are_refused() {
    let plain = frame_of(Message::TimeoutNow);
    let header = &plain[FRAME_PREFIX_BYTES..];
    assert!(decode(&with_header(header, b"")).is_ok_and(|envelope| envelope.is_some()));
    assert_eq!(decode(&with_header(header, b"x")), Err(FrameError::UnexpectedTail));
    let padded = [header, b"\xc0"].concat();
    assert!(
        matches!(decode(&with_header(&padded, b"")), Err(FrameError::Header(_))),
        "left over in the header"
    );
}

/// B15: entries are checked where they come in.
#[test]
fn entries_that_do_not_follow_one_another_are_refused() {
    let mut tail = Vec::new();
    for index in [4, 6] {
        encode_entry(EntryId::new(Term(1), Index(index)), EntryKind::Command, b"x", &mut tail);
    }
    let empty = Message::AppendEntries {
        prev: EntryId::default(),
        entries: Entries::default(),
        commit_index: Index(0),
    };
    let header = &frame_of(empty)[FRAME_PREFIX_BYTES..];
    assert_eq!(decode(&with_header(header, &tail)), Err(FrameError::Entries(EntryError::Order)));
}

#[test]
fn forwarded_payloads_are_counted_and_bounded() {
    let header = &frame_of(Message::Forward { payloads: Vec::new() })[FRAME_PREFIX_BYTES..];
    let crc_of_nothing = [0; 8];
    let most = crc_of_nothing.repeat(keva::limits::WRITES_IN_FLIGHT_MAX);
    assert!(decode(&with_header(header, &most)).is_ok());
    let too_many = crc_of_nothing.repeat(keva::limits::WRITES_IN_FLIGHT_MAX + 1);
    assert_eq!(decode(&with_header(header, &too_many)), Err(FrameError::Payloads));
    assert_eq!(decode(&with_header(header, &u32::MAX.to_le_bytes().repeat(2))), Err(FrameError::Payloads));
    assert_eq!(decode(&with_header(header, b"abc")), Err(FrameError::Payloads));
}

/// D6, F25: one chunk at most, no longer than chunks are, with its own checksum.
#[test]
fn chunks_of_snapshots_are_checked() {
    let message = |chunk| Message::InstallSnapshot { snapshot: SnapshotMeta::default(), offset: 0, chunk };
    let header = &frame_of(message(Vec::new()))[FRAME_PREFIX_BYTES..];
    let longest = frame_of(message(vec![7; SNAPSHOT_CHUNK_BYTES]));
    assert_eq!(
        decode(&longest).expect("valid").expect("whole").message,
        message(vec![7; SNAPSHOT_CHUNK_BYTES])
    );
    let too_long = frame_of(message(vec![7; SNAPSHOT_CHUNK_BYTES + 1]));
    assert_eq!(decode(&too_long), Err(FrameError::Payloads));
    let one = &frame_of(message(vec![7; 9]))[FRAME_PREFIX_BYTES + header.len()..];
    assert!(decode(&with_header(header, one)).is_ok_and(|envelope| envelope.is_some()));
    assert_eq!(decode(&with_header(header, &one.repeat(2))), Err(FrameError::Payloads), "two chunks");
    let mut flipped = longest;
    *flipped.last_mut().expect("it is long") ^= 1;
    assert_eq!(decode(&flipped), Err(FrameError::Payloads));
}

/// No number from a link can be so large that adding one to it would overflow.
#[test]
fn impossible_numbers_are_refused() {
    let huge = EntryId::new(Term(1), Index(u64::MAX));
    let late = EntryId::new(Term(u64::MAX), Index(1));
    let outcome = AppendOutcome::Rejected { prev_index: Index(1), hint: huge };
    let snapshot = SnapshotMeta::default();
    let heartbeat =
        |commit_index, time| Message::Heartbeat { commit_index, round: ReadRound(0), is_full: false, time };
    let install = |snapshot, offset| Message::InstallSnapshot { snapshot, offset, chunk: Vec::new() };
    let installed = |snapshot, outcome| Message::InstallSnapshotResponse { snapshot, outcome };
    for message in [
        Message::PreVote { campaign_term: Term(u64::MAX), last: EntryId::default() },
        Message::PreVote { campaign_term: Term(2), last: huge },
        Message::PreVoteResponse { campaign_term: Term(u64::MAX), granted: true },
        Message::RequestVote { last: late, transfer: false },
        Message::AppendEntries { prev: huge, entries: Entries::default(), commit_index: Index(0) },
        Message::AppendEntries { prev: late, entries: Entries::default(), commit_index: Index(0) },
        Message::AppendEntriesResponse { outcome: AppendOutcome::Accepted { match_index: huge.index } },
        Message::AppendEntriesResponse { outcome },
        heartbeat(huge.index, LogicalTime(0)),
        heartbeat(Index(0), LogicalTime(u64::MAX)),
        Message::HeartbeatResponse { round: ReadRound(u64::MAX), is_full: false },
        Message::ReadIndexResponse { context: ReadContext(u64::MAX), index: huge.index },
        install(SnapshotMeta { last: huge, ..snapshot }, 0),
        install(SnapshotMeta { last: late, ..snapshot }, 0),
        install(SnapshotMeta { bytes: u64::MAX, ..snapshot }, 0),
        install(snapshot, u64::MAX),
        installed(SnapshotMeta { bytes: u64::MAX, ..snapshot }, SnapshotOutcome::Refused),
        installed(snapshot, SnapshotOutcome::Receiving { next_offset: u64::MAX }),
        installed(snapshot, SnapshotOutcome::Installed { match_index: huge.index }),
        Message::AdmissionResponse {
            standing: Standing::Voter,
            is_empty: false,
            commit_index: Some(huge.index),
        },
    ] {
        let bytes = frame_of(message.clone());
        assert!(matches!(decode(&bytes), Err(FrameError::Header(_))), "{message:?}");
    }
    let mut bytes = Vec::new();
    let from_afar =
        Envelope { from: NodeId(1), to: NodeId(2), term: Term(u64::MAX), message: Message::TimeoutNow };
    encode_frame(&from_afar, &mut bytes);
    assert!(matches!(decode(&bytes), Err(FrameError::Header(_))));
}
