//! Raft's messages, logs and states as short text, and messages back from it. One grammar for what a test prints and for
//! what it sends by hand:
//!
//! ```text
//! n1@2 -> n3 AppendEntries prev=4@1 [5@2, 6@2 a=1] commit=4        an envelope: sender@term -> receiver, message
//! 5@2                                                              an entry without payload
//! 6@2 a=1                                                          an entry with its payload
//! snapshot=5@2 size=16                                             a snapshot; crc= when it is not the usual content
//! ```

use keva::raft::entry::{Entries, Entry, EntryKind, encode_entry};
use keva::raft::message::{AppendOutcome, Envelope, Message, ReadContext, ReadRound, SnapshotOutcome};
use keva::raft::raft::Raft;
use keva::raft::storage::{SnapshotMeta, Storage};
use keva::raft::types::{EntryId, HardState, Index, NodeId, RoleName, Standing, Term};
use keva::util::time::LogicalTime;

use super::memory_storage::{snapshot_content, snapshot_meta};

/// Payloads longer than this are shown as their length.
const PAYLOAD_SHOWN_MAX: usize = 32;

/// The bytes of one entry. Without a payload it is a no-op.
pub fn entry_bytes(id: EntryId, payload: &[u8]) -> Vec<u8> {
    let kind = if payload.is_empty() { EntryKind::NoOp } else { EntryKind::Command };
    let mut out = Vec::new();
    encode_entry(id, kind, payload, &mut out);
    out
}

/// An entry's id and payload.
pub fn entry_text(entry: Entry<'_>) -> String {
    match entry.payload() {
        [] => entry.id().to_string(),
        payload if payload.len() > PAYLOAD_SHOWN_MAX => format!("{} <{} bytes>", entry.id(), payload.len()),
        payload => format!("{} {}", entry.id(), String::from_utf8_lossy(payload)),
    }
}

/// What a message is, by the name of its variant.
pub fn kind(message: &Message) -> &'static str {
    match message {
        Message::PreVote { .. } => "PreVote",
        Message::PreVoteResponse { .. } => "PreVoteResponse",
        Message::RequestVote { .. } => "RequestVote",
        Message::RequestVoteResponse { .. } => "RequestVoteResponse",
        Message::AppendEntries { .. } => "AppendEntries",
        Message::AppendEntriesResponse { .. } => "AppendEntriesResponse",
        Message::Heartbeat { .. } => "Heartbeat",
        Message::HeartbeatResponse { .. } => "HeartbeatResponse",
        Message::InstallSnapshot { .. } => "InstallSnapshot",
        Message::InstallSnapshotResponse { .. } => "InstallSnapshotResponse",
        Message::Admission => "Admission",
        Message::AdmissionResponse { .. } => "AdmissionResponse",
        Message::RolledBack => "RolledBack",
        Message::RolledBackResponse => "RolledBackResponse",
        Message::ReadIndex { .. } => "ReadIndex",
        Message::ReadIndexResponse { .. } => "ReadIndexResponse",
        Message::TimeoutNow => "TimeoutNow",
        Message::Forward { .. } => "Forward",
    }
}

/// One line per envelope.
pub fn envelope_text(envelope: &Envelope) -> String {
    let Envelope { from, to, term, message } = envelope;
    let yes_or_no = |granted: bool| if granted { "granted" } else { "refused" };
    let fields = match message {
        Message::PreVote { campaign_term, last } => format!(" term={campaign_term} last={last}"),
        Message::PreVoteResponse { campaign_term, granted } => {
            format!(" term={campaign_term} {}", yes_or_no(*granted))
        }
        Message::RequestVote { last, transfer } => {
            format!(" last={last}{}", if *transfer { " transfer" } else { "" })
        }
        Message::RequestVoteResponse { granted } => format!(" {}", yes_or_no(*granted)),
        Message::AppendEntries { prev, entries, commit_index } => {
            let list: Vec<String> = entries.iter().map(entry_text).collect();
            format!(" prev={prev} [{}] commit={commit_index}", list.join(", "))
        }
        Message::AppendEntriesResponse { outcome: AppendOutcome::Accepted { match_index } } => {
            format!(" match={match_index}")
        }
        Message::AppendEntriesResponse { outcome: AppendOutcome::Rejected { prev_index, hint } } => {
            format!(" reject={prev_index} hint={hint}")
        }
        Message::Heartbeat { commit_index, round, is_full, time } => {
            let full = if *is_full { " full" } else { "" };
            let time = if time.0 > 0 { format!(" time={}", time.0) } else { String::new() };
            format!(" commit={commit_index} round={}{full}{time}", round.0)
        }
        Message::HeartbeatResponse { round, is_full } => {
            format!(" round={}{}", round.0, if *is_full { " full" } else { "" })
        }
        Message::ReadIndex { context } => format!(" context={}", context.0),
        Message::ReadIndexResponse { context, index } => format!(" context={} index={index}", context.0),
        Message::InstallSnapshot { snapshot, offset, chunk } => {
            let chunk = match chunk.as_slice() {
                chunk if chunk.len() > PAYLOAD_SHOWN_MAX => format!("<{} bytes>", chunk.len()),
                chunk => format!("[{}]", String::from_utf8_lossy(chunk)),
            };
            format!(" {} offset={offset} {chunk}", snapshot_text(snapshot))
        }
        Message::InstallSnapshotResponse { snapshot, outcome } => {
            let outcome = match outcome {
                SnapshotOutcome::Receiving { next_offset } => format!("receiving={next_offset}"),
                SnapshotOutcome::Installed { match_index } => format!("match={match_index}"),
                SnapshotOutcome::Refused => "refused".to_string(),
            };
            format!(" {} {outcome}", snapshot_text(snapshot))
        }
        Message::Admission | Message::RolledBack | Message::RolledBackResponse => String::new(),
        Message::AdmissionResponse { standing, is_empty, commit_index } => {
            let empty = if *is_empty { " empty" } else { "" };
            let commit = commit_index.map(|index| format!(" commit={index}")).unwrap_or_default();
            format!(" {}{empty}{commit}", standing_text(*standing))
        }
        Message::TimeoutNow => String::new(),
        Message::Forward { payloads } => format!(" payloads={}", payloads.len()),
    };
    format!("{from}@{term} -> {to} {}{fields}", kind(message))
}

fn snapshot_text(snapshot: &SnapshotMeta) -> String {
    let SnapshotMeta { last, bytes, crc } = *snapshot;
    let usual = usual_snapshot(last, bytes).crc;
    let crc = if crc == usual { String::new() } else { format!(" crc={crc}") };
    format!("snapshot={last} size={bytes}{crc}")
}

fn usual_snapshot(last: EntryId, bytes: u64) -> SnapshotMeta {
    // A message may name any size; nobody needs the content of absurd ones.
    let bytes_made = usize::try_from(bytes.min(1 << 24)).expect("small");
    SnapshotMeta { bytes, ..snapshot_meta(last, &snapshot_content(last, Some(bytes_made))) }
}

/// `voter`, `virgin` or `recovering`.
pub fn standing_text(standing: Standing) -> &'static str {
    match standing {
        Standing::Voter => "voter",
        Standing::Virgin => "virgin",
        Standing::Recovering => "recovering",
    }
}

/// What a node is: `leader, term 2`, `follower of n1, term 2`.
pub fn role_text<S: Storage>(raft: &Raft<S>) -> String {
    match (raft.role(), raft.leader()) {
        (RoleName::Follower, Some(leader)) => format!("follower of {leader}, term {}", raft.term()),
        (role, _) => format!("{}, term {}", role.as_str(), raft.term()),
    }
}

/// One line about a node, with what it knows of each peer when it leads.
pub fn status_text<S: Storage>(raft: &Raft<S>) -> String {
    let vote = raft.vote().map_or("-".into(), |vote| vote.to_string());
    let (last, synced, commit) = (raft.last_index(), raft.synced_index(), raft.commit_index());
    let (id, role) = (raft.id(), role_text(raft));
    let mut line = format!("{id}: {role}, vote {vote}, last {last}, synced {synced}, commit {commit}");
    if let Some(snapshot) = raft.storage().snapshot() {
        line.push_str(&format!(", snapshot {}", snapshot.last));
    }
    if raft.is_receiving_snapshot()
        && let Some(draft) = raft.storage().snapshot_draft()
    {
        line.push_str(&format!(", {} of {} bytes up to {}", draft.written, draft.bytes, draft.last));
    }
    if raft.standing() != Standing::Voter {
        line.push_str(&format!(", {}", standing_text(raft.standing())));
    }
    for (peer, progress) in raft.peers() {
        let mode = match (progress.is_replicating(), progress.is_sending_snapshot()) {
            (true, _) => "replicate",
            (_, true) => "snapshot",
            _ => "probe",
        };
        let paused = if progress.is_paused() { " paused" } else { "" };
        let (matched, next) = (progress.match_index(), progress.next_index());
        line.push_str(&format!("; {peer} match {matched} next {next} {mode}{paused}"));
    }
    line
}

/// What a disk remembers.
pub fn hard_state_text(hard_state: &HardState) -> String {
    let vote = hard_state.vote.map_or("-".into(), |vote| vote.to_string());
    format!("term {}, vote {vote}, commit {}", hard_state.term, hard_state.commit_index)
}

/// One line about a node's log: committed entries before the bar, a tilde behind what is not durable yet.
pub fn log_text<S: Storage>(raft: &Raft<S>) -> String {
    let storage = raft.storage();
    let first = storage.log_start().index.next();
    let text = |index| {
        let entry = storage.entry(Index(index)).expect("memory does not fail");
        format!("{}{}", entry_text(entry), if Index(index) > raft.synced_index() { "~" } else { "" })
    };
    let texts = |low: Index, high: Index| (low.0..=high.0).map(text).collect::<Vec<String>>().join(", ");
    let behind_commit = raft.commit_index().next().max(first);
    let (known, rest) = (texts(first, raft.commit_index()), texts(behind_commit, raft.last_index()));
    let start = match storage.log_start() {
        EntryId { index: Index(0), .. } => String::new(),
        start => format!("behind {start}: "),
    };
    format!("{}: {start}{known} | {rest}", raft.id()).trim_end().to_string()
}

/// The envelope that [`envelope_text`] prints like this.
pub fn parse_envelope(text: &str) -> Result<Envelope, String> {
    let (route, rest) = text.split_once(" -> ").ok_or("an envelope is written n1@2 -> n3 Message")?;
    let (from, term) = route.split_once('@').ok_or("the sender is written n1@2")?;
    let (to, rest) = rest.split_once(' ').ok_or("the message is missing")?;
    let (name, fields) = rest.split_once(' ').unwrap_or((rest, ""));
    Ok(Envelope {
        from: parse_node(from)?,
        to: parse_node(to)?,
        term: Term(number(term)?),
        message: parse_message(name, &Fields(fields))?,
    })
}

fn parse_message(name: &str, fields: &Fields<'_>) -> Result<Message, String> {
    Ok(match name {
        "PreVote" => {
            Message::PreVote { campaign_term: Term(fields.number("term")?), last: fields.id("last")? }
        }
        "PreVoteResponse" => {
            let campaign_term = Term(fields.number("term")?);
            Message::PreVoteResponse { campaign_term, granted: fields.has("granted") }
        }
        "RequestVote" => Message::RequestVote { last: fields.id("last")?, transfer: fields.has("transfer") },
        "RequestVoteResponse" => Message::RequestVoteResponse { granted: fields.has("granted") },
        "AppendEntries" => Message::AppendEntries {
            prev: fields.id("prev")?,
            entries: fields.entries()?,
            commit_index: Index(fields.number("commit")?),
        },
        "AppendEntriesResponse" if fields.get("match").is_some() => {
            let outcome = AppendOutcome::Accepted { match_index: Index(fields.number("match")?) };
            Message::AppendEntriesResponse { outcome }
        }
        "AppendEntriesResponse" => {
            let prev_index = Index(fields.number("reject")?);
            let outcome = AppendOutcome::Rejected { prev_index, hint: fields.id("hint")? };
            Message::AppendEntriesResponse { outcome }
        }
        "Heartbeat" => {
            let round = ReadRound(fields.number("round")?);
            let is_full = fields.has("full");
            let commit_index = Index(fields.number("commit")?);
            Message::Heartbeat { commit_index, round, is_full, time: LogicalTime::default() }
        }
        "HeartbeatResponse" => {
            let round = ReadRound(fields.number("round")?);
            Message::HeartbeatResponse { round, is_full: fields.has("full") }
        }
        "InstallSnapshot" => Message::InstallSnapshot {
            snapshot: fields.snapshot()?,
            offset: fields.number("offset")?,
            chunk: fields.bracketed()?.as_bytes().to_vec(),
        },
        "InstallSnapshotResponse" => {
            let outcome = match (fields.get("receiving"), fields.get("match")) {
                (Some(offset), _) => SnapshotOutcome::Receiving { next_offset: number(offset)? },
                (_, Some(index)) => SnapshotOutcome::Installed { match_index: Index(number(index)?) },
                _ => SnapshotOutcome::Refused,
            };
            Message::InstallSnapshotResponse { snapshot: fields.snapshot()?, outcome }
        }
        "Admission" => Message::Admission,
        "RolledBack" => Message::RolledBack,
        "RolledBackResponse" => Message::RolledBackResponse,
        "AdmissionResponse" => {
            let all = [Standing::Voter, Standing::Virgin, Standing::Recovering];
            let standing = all.into_iter().find(|standing| fields.has(standing_text(*standing)));
            Message::AdmissionResponse {
                standing: standing.ok_or("a standing is missing")?,
                is_empty: fields.has("empty"),
                commit_index: fields.get("commit").map(number).transpose()?.map(Index),
            }
        }
        "ReadIndex" => Message::ReadIndex { context: ReadContext(fields.number("context")?) },
        "ReadIndexResponse" => {
            let context = ReadContext(fields.number("context")?);
            Message::ReadIndexResponse { context, index: Index(fields.number("index")?) }
        }
        "TimeoutNow" => Message::TimeoutNow,
        unknown => return Err(format!("no message is called {unknown}")),
    })
}

/// What follows a message's name.
struct Fields<'a>(&'a str);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        // Payloads look like fields, so those in brackets do not count.
        let before = self.0.split('[').next().unwrap_or_default();
        let after = self.0.rsplit(']').next().unwrap_or_default();
        before
            .split(' ')
            .chain(after.split(' '))
            .find_map(|word| word.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
    }

    fn has(&self, flag: &str) -> bool {
        self.0.split(' ').any(|word| word == flag)
    }

    fn number(&self, name: &str) -> Result<u64, String> {
        number(self.get(name).ok_or_else(|| format!("{name}= is missing"))?)
    }

    fn id(&self, name: &str) -> Result<EntryId, String> {
        parse_id(self.get(name).ok_or_else(|| format!("{name}= is missing"))?)
    }

    fn bracketed(&self) -> Result<&str, String> {
        let list = self.0.split_once('[').and_then(|(_, rest)| rest.rsplit_once(']'));
        Ok(list.ok_or("entries are written [5@2, 6@2 a=1], and a snapshot's content is in brackets, too")?.0)
    }

    fn snapshot(&self) -> Result<SnapshotMeta, String> {
        let usual = usual_snapshot(self.id("snapshot")?, self.number("size")?);
        let crc = self.get("crc").map_or(Ok(u64::from(usual.crc)), number)?;
        Ok(SnapshotMeta { crc: u32::try_from(crc).map_err(|error| error.to_string())?, ..usual })
    }

    fn entries(&self) -> Result<Entries, String> {
        let list = self.bracketed()?;
        let mut bytes = Vec::new();
        for item in list.split(", ").filter(|item| !item.is_empty()) {
            let (id, payload) = item.split_once(' ').unwrap_or((item, ""));
            bytes.extend(entry_bytes(parse_id(id)?, payload.as_bytes()));
        }
        Entries::decode(bytes).map_err(|error| error.to_string())
    }
}

/// `n1` as a node.
pub fn parse_node(text: &str) -> Result<NodeId, String> {
    Ok(NodeId(number(text.strip_prefix('n').ok_or("a node is written n1")?)?))
}

/// `5@2` as an entry's id.
pub fn parse_id(text: &str) -> Result<EntryId, String> {
    let (index, term) = text.split_once('@').ok_or("an entry's id is written 5@2")?;
    Ok(EntryId::new(Term(number(term)?), Index(number(index)?)))
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}
