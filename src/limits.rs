//! Every bound that is not a setting, by name, with the relations between them checked when the program is compiled.
//!
//! Bounds are in the unit that ends the name: `BYTES`, `MS` (milliseconds) or a count. Settings that users may change
//! live in `config`; their defaults and ranges are here.

// ---- what every node must agree on ----------------------------------------------------------------------------------
//
// These decide what comes of a command that is in the log already, or whether it and the snapshots of what comes of it can be
// read at all. Two nodes with different values would have different data after the same log, or one of them would stop at
// an entry that the others take. Whoever changes one makes a new version of the payloads (`kv::payload`), and as far as it
// bounds what a snapshot holds, of the snapshots (`kv::snapshot`); nodes with the old version go on with the old value. A
// test beside the payloads' version holds the values.

/// Longest key, in bytes of UTF-8.
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest value that can be configured.
pub const VALUE_BYTES_MAX: usize = 16 << 20;
/// Longest content type that is kept with a value.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// Most revisions that one `If-Match` or `If-None-Match` header may list.
pub const CONDITION_REVISIONS_MAX: usize = 16;
/// Longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 64;
/// An outcome is remembered under its idempotency key for this long in logical time, unless there are too many.
pub const IDEMPOTENCY_MS_MIN: u64 = 10 * 60 * 1000;
/// Most outcomes that are remembered. Beyond it the oldest is forgotten.
pub const IDEMPOTENCY_RECORDS_MAX: usize = 64 << 10;
/// Bytes of all outcomes that are remembered. Beyond it the oldest is forgotten.
pub const IDEMPOTENCY_BYTES_MAX: usize = 16 << 20;
/// Longest outcome that is remembered, in bytes. A transaction with an idempotency key that would read more is refused.
pub const IDEMPOTENT_OUTCOME_BYTES_MAX: usize = 2 << 20;
/// Longest life that a write can give its key, in milliseconds: ten years.
pub const TTL_MS_MAX: u64 = 10 * 365 * 24 * 3600 * 1000;
/// Keys that one entry expires. More go into the next entry.
pub const EXPIRIES_MAX: usize = 256;
/// Most operations of a transaction, those of `then` and `else` together; and most conditions.
pub const TRANSACTION_OPERATIONS_MAX: usize = 1000;
/// Bytes of values that the reads of one transaction may give.
pub const TRANSACTION_READ_BYTES_MAX: usize = 16 << 20;
/// What a command adds to its key, value and content type: numbers, names, conditions, the idempotency key.
pub const COMMAND_OVERHEAD_BYTES_MAX: usize = 1024;
/// Longest payload of a log entry.
pub const PAYLOAD_BYTES_MAX: usize =
    VALUE_BYTES_MAX + KEY_BYTES_MAX + CONTENT_TYPE_BYTES_MAX + COMMAND_OVERHEAD_BYTES_MAX;
/// Largest term, index, start counter or file number that is believed when it is read from a disk or a link. No node
/// ever gets there; with larger ones the next number could not be written down.
pub const COUNTER_MAX: u64 = u64::MAX >> 1;

// ---- what each node decides for itself ------------------------------------------------------------------------------

/// Longest value unless the configuration says otherwise.
pub const VALUE_BYTES_DEFAULT: usize = 1 << 20;
/// Such entries that are proposed before the first of them is applied.
pub const EXPIRIES_IN_FLIGHT_MAX: usize = 16;
/// While keys have a time to live, the log holds the time at least this often, so that a cluster that was stopped knows
/// how old they are to within this many milliseconds of its running time.
pub const TIME_CHECKPOINT_MS: u64 = 60_000;
/// A leader that finds no room for an entry of its own tries again after this time.
pub const UPKEEP_PAUSE_MS: u64 = 100;
/// A transaction's JSON may be as long as the longest value, and this long in any case.
pub const TRANSACTION_BODY_BYTES_MIN: usize = 1 << 20;
/// Keys in one page of a listing unless the request says otherwise.
pub const PAGE_KEYS_DEFAULT: usize = 1000;
/// Most keys in one page of a listing that can be asked for.
pub const PAGE_KEYS_MAX: usize = 10_000;
/// Bytes of keys and, if asked for, values in one page of a listing, with [`LISTED_OVERHEAD_BYTES`] for each. Beyond it the
/// page ends: a page should take about as long as a sync of the disk. One key is always listed. A thousand keys of a hundred
/// bytes fit.
pub const PAGE_BYTES_MAX: usize = 160 << 10;
/// What a listed key is reckoned as besides the key and its value, in bytes.
pub const LISTED_OVERHEAD_BYTES: usize = 64;
/// Bytes of past changes that a node keeps for watchers unless the configuration says otherwise.
pub const HISTORY_BYTES_DEFAULT: usize = 8 << 20;
/// Smallest value that can be configured.
pub const HISTORY_BYTES_MIN: usize = 64 << 10;
/// Largest value that can be configured.
pub const HISTORY_BYTES_MAX: usize = 1 << 30;

/// Most nodes in one cluster.
pub const NODES_MAX: usize = 9;
/// Longest identity of a node, in bytes.
pub const IDENTITY_BYTES_MAX: usize = 255;
/// Longest name of a cluster, in bytes.
pub const CLUSTER_NAME_BYTES_MAX: usize = 64;
/// Longest host name that can be an address (RFC 1035 section 2.3.4, without the trailing dot).
pub const HOST_NAME_BYTES_MAX: usize = 253;
/// Longest label of a host name (RFC 1035 section 2.3.4).
pub const HOST_LABEL_BYTES_MAX: usize = 63;
/// Longest configuration file.
pub const CONFIG_FILE_BYTES_MAX: usize = 1 << 20;
/// The port for the other nodes when there is no configuration file.
pub const KEVA_PORT_DEFAULT: u16 = 8370;
/// The port for HTTP clients when there is no configuration file.
pub const USER_PORT_DEFAULT: u16 = 8380;

/// Bytes of entries in one AppendEntries. One entry is always sent, however large.
pub const APPEND_ENTRIES_BYTES_MAX: usize = 512 << 10;
/// Most AppendEntries on their way to one peer without an answer.
pub const IN_FLIGHT_MESSAGES_MAX: usize = 64;
/// Most bytes of entries on their way to one peer without an answer. One message is always allowed.
pub const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
/// Most read contexts that a leader keeps per asking node.
pub const READ_CONTEXTS_MAX: usize = 64;
/// Read contexts that one node has open at a time. Reads that come meanwhile share the next one.
pub const READ_CONTEXTS_ASKED_MAX: usize = 8;
/// Bytes of forwarded proposals in one message. One proposal is always sent, however large.
pub const FORWARD_BYTES_MAX: usize = 512 << 10;

/// The numbers of a process's writes begin anywhere below two to the power of this.
pub const WRITE_SEQ_START_BITS: u32 = 40;
/// Client writes accepted by one node and not yet answered, in bytes of payload. Beyond it: 503.
pub const WRITES_IN_FLIGHT_BYTES_MAX: usize = 32 << 20;
/// Client writes accepted by one node and not yet answered. Beyond it: 503.
pub const WRITES_IN_FLIGHT_MAX: usize = 16 << 10;
/// Client reads accepted by one node and not yet answered. Beyond it: 503.
pub const READS_IN_FLIGHT_MAX: usize = 16 << 10;
/// Payload bytes that a leader has proposed and not yet seen committed. Beyond it, proposals wait. A single one is
/// always proposed.
pub const UNCOMMITTED_BYTES_MAX: usize = 64 << 20;
/// Payload bytes of other nodes' writes that a leader holds while it cannot propose them. Beyond it they are dropped.
pub const FORWARDS_HELD_BYTES_MAX: usize = 64 << 20;
/// Bytes of committed entries applied in one turn. One entry is always applied, however large.
pub const APPLY_BYTES_PER_TURN_MAX: usize = 4 << 20;
/// Bytes of values and keys that one turn answers reads with. The answer that reaches it is the turn's last.
pub const READ_BYTES_PER_TURN_MAX: usize = 2 << 20;
/// Keys that one turn removes for an entry that removes all keys with a prefix, and counts for requests that ask how many
/// there are. A millisecond or two.
pub const KEYS_PER_TURN_MAX: usize = 4096;

/// Longest head of a request (request line and headers), in bytes. Beyond it: 431.
pub const REQUEST_HEAD_BYTES_MAX: usize = 16 << 10;
/// Longest request line, in bytes without its CRLF. Beyond it: 414.
pub const REQUEST_LINE_BYTES_MAX: usize = 8 << 10;
/// Most headers of a request. Beyond it: 431.
pub const REQUEST_HEADERS_MAX: usize = 64;
/// Most empty lines that are overlooked before a request line.
pub const REQUEST_BLANK_LINES_MAX: usize = 4;
/// Longest line with the size of a chunk, extensions included, in bytes.
pub const CHUNK_LINE_BYTES_MAX: usize = 256;
/// Most bytes of chunk extensions in one body.
pub const CHUNK_EXTENSION_BYTES_MAX: usize = 16 << 10;
/// Most bytes of trailers after one body.
pub const TRAILER_BYTES_MAX: usize = 4 << 10;
/// Requests of one connection that wait for their answers. Beyond it the connection is not read.
pub const PIPELINED_REQUESTS_MAX: usize = 64;
/// Bytes of responses of one connection that wait to be sent, and of values that wait to be written. Beyond it the
/// connection is not read.
pub const UNSENT_BYTES_MAX: usize = 256 << 10;
/// A body that nobody wants is read up to this many bytes to keep the connection; with a longer one it is closed.
pub const DRAIN_BYTES_MAX: usize = 64 << 10;
/// After the last response: input is thrown away up to this many bytes ...
pub const LINGER_BYTES_MAX: usize = 16 << 20;
/// ... or for this many milliseconds, so that the client can read the response before the connection is gone.
pub const LINGER_MS: u64 = 5_000;
/// A client that sends or takes a body more slowly than this many bytes per second is cut off.
pub const CLIENT_BYTES_PER_SECOND_MIN: u64 = 1 << 10;
/// A request's time when neither `?timeout=` nor the configuration says.
pub const REQUEST_TIMEOUT_MS_DEFAULT: u64 = 5_000;
/// Longest time for a request.
pub const REQUEST_TIMEOUT_MS_MAX: u64 = 300_000;
/// A readiness check's time when `?timeout=` does not say: probes give up after a second or more.
pub const READY_TIMEOUT_MS_DEFAULT: u64 = 900;
/// Longest value without a type that is parsed to see whether it is JSON. Of a longer one the first and the last
/// character decide.
pub const CONTENT_SNIFF_BYTES_MAX: usize = 64 << 10;

/// Bytes of one frame on a peer link, without its fixed prefix.
pub const FRAME_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (1 << 20);
/// Bytes of a frame's header: everything of a message but its entries and payloads.
pub const FRAME_HEADER_BYTES_MAX: usize = 4 << 10;
/// Bytes of a greeting on a peer link, without its fixed prefix.
pub const GREETING_BYTES_MAX: usize = 1 << 10;
/// Longest version text that a greeting carries, and longest reason of a refusal, in bytes.
pub const GREETING_TEXT_BYTES_MAX: usize = 512;
/// A peer link must be greeted within this time after it was dialled or accepted.
pub const GREETING_TIMEOUT_MS: u64 = 2_000;
/// Accepted peer links whose greeting is still awaited. Beyond it the oldest is closed.
pub const PEER_GREETINGS_MAX: usize = 32;
/// A broken peer link is dialled again at once, then after this time, which doubles up to [`PEER_REDIAL_MS_MAX`].
pub const PEER_REDIAL_MS_MIN: u64 = 5;
/// Longest pause between two attempts to reach a peer.
pub const PEER_REDIAL_MS_MAX: u64 = 1_000;
/// A link that ended before it stood this long is dialled again like one that did not come about, with growing pauses.
pub const PEER_SETTLED_MS: u64 = 1_000;
/// Bytes read from one peer in one turn.
pub const PEER_READ_BYTES_PER_TURN_MAX: usize = 1 << 20;
/// A peer that does not acknowledge what was sent for this long is gone, even if its host says nothing.
pub const PEER_SILENCE_MS_MAX: u64 = 10_000;
/// Shortest pause between two look-ups of a peer's host name, and the pause doubles up to the maximum. A look-up
/// stops the whole loop for as long as it takes.
pub const RESOLVE_PAUSE_MS_MIN: u64 = 1_000;
/// Longest pause between two look-ups of the name of a peer that cannot be reached.
pub const RESOLVE_PAUSE_MS_MAX: u64 = 30_000;

/// Connections accepted from one listening socket in one turn.
pub const ACCEPTS_PER_TURN_MAX: usize = 64;
/// How long accepting rests when the system has no descriptor or memory for another connection.
pub const ACCEPT_PAUSE_MS: u64 = 100;
/// Bytes read from one client in one turn.
pub const CLIENT_READ_BYTES_PER_TURN_MAX: usize = 256 << 10;
/// Bytes read from all clients in one turn. Peers come first, so this bounds how long they wait.
pub const CLIENTS_READ_BYTES_PER_TURN_MAX: usize = 4 << 20;
/// Bytes written to one client in one turn.
pub const CLIENT_WRITE_BYTES_PER_TURN_MAX: usize = 1 << 20;
/// Memory of all clients' connections. Beyond it those that hold most are closed.
pub const CLIENTS_MEMORY_BYTES_MAX: usize = 128 << 20;
/// Connections beyond the configured number that are told so. More are closed without a word.
pub const CLIENTS_REFUSED_MAX: usize = 64;
/// Bytes of events that wait to be sent to one watcher. More stay in the history until it has read. An event that is
/// longer is sent alone.
pub const WATCH_BUFFER_BYTES_MAX: usize = 64 << 10;
/// Bytes of events that are handed to all watchers in one turn, with [`WATCH_CHANGE_BYTES`] for every change that is
/// looked at.
pub const WATCH_BYTES_PER_TURN_MAX: usize = 4 << 20;
/// What it costs to look at a change, as bytes of events.
pub const WATCH_CHANGE_BYTES: usize = 64;
/// Changes that one watcher which is behind looks at before the next one has its turn.
pub const WATCH_CHANGES_PER_SLICE_MAX: usize = 1024;
/// Bytes of encoded events that are kept for other watchers that are behind, too.
pub const WATCH_SHARED_BYTES_MAX: usize = 1 << 20;
/// A watcher that got nothing for this long gets a comment with the revision. Users rely on 15 seconds.
pub const WATCH_COMMENT_MS: u64 = 10_000;
/// Watches and waiting requests of one node. Beyond it: 503.
pub const WATCHERS_MAX: usize = 128 << 10;
/// Longest time for which a request can wait for a change.
pub const WAIT_MS_MAX: u64 = 300_000;
/// Bytes read with one system call.
pub const READ_BYTES_MAX: usize = 64 << 10;
/// Descriptors that are no client connections: files of the log, peer links, listening sockets.
pub const DESCRIPTORS_RESERVED: u64 = 128;
/// Events that one poll reports. More are reported by the next one.
pub const POLL_EVENTS_MAX: usize = 1024;
/// How long the storage's housekeeping rests when it cannot do anything.
pub const HOUSEKEEPING_PAUSE_MS: u64 = 1_000;
/// A clean stop takes at most this long; then the process ends whatever still waits.
pub const SHUTDOWN_MS_MAX: u64 = 8_000;
/// During a clean stop, a connection without a request is open for this long: what a client sends just then gets an
/// answer, where a connection closed at once would leave it in doubt.
pub const SHUTDOWN_LAST_CALL_MS: u64 = 200;
/// A warning about a lasting trouble is repeated after this time, which doubles up to the maximum.
pub const REPEATED_WARNING_PAUSE_MS_MIN: u64 = 10_000;
/// See [`REPEATED_WARNING_PAUSE_MS_MIN`].
pub const REPEATED_WARNING_PAUSE_MS_MAX: u64 = 600_000;
/// A peer that is back within this time is worth no warning.
pub const PEER_OUTAGE_GRACE_MS: u64 = 2_000;

/// Bytes waiting to be sent to one peer. Beyond it the link is reset, and the protocol starts over on a new one.
pub const PEER_SEND_BYTES_MAX: usize = 64 << 20;

/// Longest content of a snapshot, in bytes. A longer one is treated like one that there is no space for.
pub const SNAPSHOT_BYTES_MAX: u64 = 1 << 42;
/// The file of a replaced snapshot is used again as it is when it is at most a sixteenth and this many bytes larger than
/// needed. Otherwise it is made shorter first.
pub const SNAPSHOT_SLACK_BYTES: usize = 1 << 20;
/// A file that is this many times as large as the next snapshot needs is not made shorter but removed by and by, beside
/// a new one.
pub const SNAPSHOT_SMALL_SHARE: usize = 8;
/// Bytes of a snapshot that are checked together, and sent in one message.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 << 10;
/// Bytes of a snapshot on their way to one peer without an answer.
pub const SNAPSHOT_IN_FLIGHT_BYTES_MAX: u64 = 4 * SNAPSHOT_CHUNK_BYTES as u64;
/// A peer that refuses the leader's snapshot is asked again after one heartbeat; the number of heartbeats doubles this
/// many times.
pub const SNAPSHOT_REFUSAL_DOUBLINGS_MAX: u32 = 4;
/// Bytes of a snapshot that are written between two syncs: what is promised to clients waits for a longer one.
pub const SNAPSHOT_SYNC_BYTES: usize = 256 << 10;
/// Bytes of the snapshot in the making that are written or read back in one turn when nothing else is to do.
pub const SNAPSHOT_SLICE_BYTES: usize = 256 << 10;
/// While the log grows, at least this many bytes of the snapshot in the making are written per byte of the log, so
/// that the log cannot run away from it.
pub const SNAPSHOT_BYTES_PER_LOG_BYTE: usize = 4;
/// A start that has at least this much to read says so.
pub const RECOVERY_BYTES_TOLD: u64 = 64 << 20;
/// Between two lines about how far a start is, in milliseconds.
pub const RECOVERY_PROGRESS_MS: u64 = 1_000;
/// Owed bytes of the snapshot in the making and of the log's next file for which a busy turn stops: fewer are not worth
/// it ...
pub const SNAPSHOT_DEBT_BYTES_MIN: usize = 64 << 10;
/// ... and this is the most that one turn pays, so that it stays short.
pub const SNAPSHOT_DEBT_BYTES_MAX: usize = 1 << 20;
/// With much data a snapshot is taken when the log has one byte per this many bytes of the data. The disk holds two
/// snapshots at that moment, and the log grows by up to one byte per [`SNAPSHOT_BYTES_PER_LOG_BYTE`] of the data while
/// the next one is written and read back.
pub const SNAPSHOT_DATA_BYTES_PER_LOG_BYTE: u64 = 3;
/// While a peer is brought up to date with a snapshot, the next one waits until the log has this many eighths of the
/// data: with two snapshots, and the log's growth while the next one is made, that is three times the data.
pub const SNAPSHOT_PATIENCE_EIGHTHS: u64 = 5;
/// At least this many files of segments that a snapshot has taken the place of are kept for segments to come. With much
/// data there are more: as many as the log needs until the next snapshot.
pub const REUSED_SEGMENTS_MIN: usize = 3;
/// Bytes of a former snapshot that are given back to the file system in one turn. Removing a large file at once takes tens
/// of milliseconds where blocks are discarded on the device.
pub const REMOVED_BYTES_PER_TURN: usize = 4 << 20;
/// Bytes of a former snapshot whose memory is given back in one turn: far less work than the file's space.
pub const RELEASED_BYTES_PER_TURN: usize = 64 << 20;
/// A snapshot that failed for want of space or by a bad disk is tried again when the log has grown by this much.
pub const SNAPSHOT_RETRY_LOG_BYTES: u64 = 64 << 10;
/// With every further one that a bad disk did not give back as it was written, the pause before the next try and the log's
/// growth that ends it double, this many times at most: to a quarter of an hour and 64 MiB.
pub const SNAPSHOT_DAMAGE_DOUBLINGS_MAX: u32 = 10;
/// While the log grows, this many bytes of its next file are prepared per byte of the log, so that the file is ready
/// when this one is full.
pub const SPARE_BYTES_PER_LOG_BYTE: usize = 2;
/// Reading a snapshot larger than this says how far it is.
pub const RESTORE_REPORT_BYTES_MIN: u64 = 64 << 20;
/// Bytes of the log behind which a snapshot is taken at the earliest, unless the configuration says otherwise. With
/// more data, see [`SNAPSHOT_DATA_BYTES_PER_LOG_BYTE`].
pub const SNAPSHOT_LOG_BYTES_DEFAULT: u64 = 8 << 20;
/// Smallest value that can be configured.
pub const SNAPSHOT_LOG_BYTES_MIN: u64 = 1 << 20;
/// Largest value that can be configured.
pub const SNAPSHOT_LOG_BYTES_MAX: u64 = 64 << 30;
/// Bytes of entries under the snapshot that stay in the log, for peers that are a little behind.
pub const LOG_MARGIN_BYTES: u64 = 4 << 20;
/// A node that may not vote yet asks the others again after this time.
pub const ADMISSION_PAUSE_MS: u64 = 100;
/// Bytes of files that are read in one second to see whether they are still right.
pub const SCRUB_BYTES_PER_SECOND: usize = 1 << 20;
/// Once all files are read, reading them again begins after this many calls for housekeeping; they come about once in
/// [`HOUSEKEEPING_PAUSE_MS`] when nothing else is to be done.
pub const SCRUB_PAUSE_CALLS: u32 = 600;
/// While the disk is full, one of this many calls that need space asks for it again.
pub const RESERVE_TRIES_APART: u32 = 100;

/// Bytes of one log segment file. A record larger than that gets a segment of its own size.
pub const SEGMENT_BYTES: usize = 4 << 20;
/// Smallest segment that can be configured.
pub const SEGMENT_BYTES_MIN: usize = 1 << 20;
/// Largest segment that can be configured. Segments are preallocated, so this much is written at once.
pub const SEGMENT_BYTES_MAX: usize = 256 << 20;
/// A configured segment is a multiple of this: blocks of the disk are never shared by two segments.
pub const SEGMENT_BYTES_UNIT: usize = 4096;

/// Clients connected to one node at the same time unless the configuration says otherwise. Stays well below the
/// 1,024 open files that most systems allow a process.
pub const CLIENT_CONNECTIONS_DEFAULT: usize = 512;
/// Most client connections that can be configured.
pub const CLIENT_CONNECTIONS_MAX: usize = 65_536;
/// Shortest time for a request that can be configured.
pub const REQUEST_TIMEOUT_MS_MIN: u64 = 10;
/// Time for a client to begin its next request before its connection is closed.
pub const IDLE_TIMEOUT_MS_DEFAULT: u64 = 120_000;
/// Time for a client to send the whole head of a request.
pub const HEAD_TIMEOUT_MS_DEFAULT: u64 = 10_000;
/// Longest pause of a client within a body, or within the response that it reads.
pub const STALL_TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// Shortest idle, head or stall time that can be configured.
pub const CLIENT_TIMEOUT_MS_MIN: u64 = 100;
/// Longest idle, head or stall time that can be configured.
pub const CLIENT_TIMEOUT_MS_MAX: u64 = 3_600_000;

/// Longest log line, with its line end. Linux writes that much to a pipe in one piece (`PIPE_BUF`, pipe(7)).
pub const LOG_LINE_BYTES_MAX: usize = 4096;
/// How long the line that says why the program ends waits for room on standard error, in milliseconds.
pub const LAST_WORDS_MS_MAX: u64 = 1_000;

/// Bytes of appended records that wait in memory for the turn's one write. Beyond it they are written at once.
pub const LOG_BUFFER_BYTES_MAX: usize = 256 << 10;

/// Shortest and longest `wait_time`, the base of the election timeout.
pub const ELECTION_TIMEOUT_MS_MIN: u64 = 50;
/// See [`ELECTION_TIMEOUT_MS_MIN`].
pub const ELECTION_TIMEOUT_MS_MAX: u64 = 300_000;
/// `wait_time` when the configuration does not say.
pub const ELECTION_TIMEOUT_MS_DEFAULT: u64 = 3_000;
/// A leader sends a heartbeat this many times per election timeout.
pub const HEARTBEATS_PER_ELECTION_TIMEOUT: u64 = 10;
/// Longest interval between heartbeats, however long the election timeout.
pub const HEARTBEAT_INTERVAL_MS_MAX: u64 = 1_000;
/// After the leader's process is known to have ended: the first pre-vote comes after this long or up to twice as
/// long; each further try waits up to twice the time before, until the normal election timeout is reached.
pub const LEADER_LOST_PAUSE_MS: u64 = 20;

const _: () = assert!(HEARTBEATS_PER_ELECTION_TIMEOUT >= 3, "one lost heartbeat must not start an election");
const _: () =
    assert!(LEADER_LOST_PAUSE_MS < ELECTION_TIMEOUT_MS_MIN, "the hint exists to be faster than the timeout");
const _: () = assert!(VALUE_BYTES_DEFAULT <= VALUE_BYTES_MAX, "the default must be allowed");
const _: () =
    assert!(TRANSACTION_BODY_BYTES_MIN <= VALUE_BYTES_MAX, "a transaction is written down as one entry");
const _: () = assert!(PAGE_KEYS_DEFAULT <= PAGE_KEYS_MAX, "the default must be allowed");
const _: () = assert!(FRAME_BYTES_MAX > PAYLOAD_BYTES_MAX, "the largest entry must fit in a frame");
const _: () = assert!(
    FRAME_BYTES_MAX >= FORWARD_BYTES_MAX + 8 * WRITES_IN_FLIGHT_MAX + FRAME_HEADER_BYTES_MAX,
    "a full batch of forwarded payloads must fit in a frame, with eight bytes in front of each"
);
const _: () = assert!(GREETING_BYTES_MAX > GREETING_TEXT_BYTES_MAX, "a reason must fit in a greeting");
const _: () = assert!(PEER_SETTLED_MS >= PEER_REDIAL_MS_MAX, "a pause must not make a link look settled");
const _: () =
    assert!(PEER_REDIAL_MS_MIN < LEADER_LOST_PAUSE_MS, "a dead leader is found by dialling it again");
const _: () = assert!(
    SNAPSHOT_PATIENCE_EIGHTHS * SNAPSHOT_DATA_BYTES_PER_LOG_BYTE > 8,
    "a peer that is brought up to date makes the next snapshot wait"
);
const _: () = assert!(
    2 * 17 * 4 + 8 * SNAPSHOT_PATIENCE_EIGHTHS + 64 / SNAPSHOT_BYTES_PER_LOG_BYTE as u64 <= 3 * 64,
    "two roomy snapshots, the log and its growth while another one is made: three times the data"
);
const _: () = assert!(SNAPSHOT_CHUNK_BYTES <= PAYLOAD_BYTES_MAX, "a chunk travels like a forwarded payload");
const _: () = assert!(SNAPSHOT_SLICE_BYTES <= SNAPSHOT_SYNC_BYTES, "a slice costs one sync at most");
const _: () = assert!(SNAPSHOT_DAMAGE_DOUBLINGS_MAX < u32::BITS, "the pause after damage must be a number");
const _: () =
    assert!(SNAPSHOT_REFUSAL_DOUBLINGS_MAX < u32::BITS, "the pause after refusals must be a number");
const _: () = assert!(
    SPARE_BYTES_PER_LOG_BYTE >= 2 && 2 * SNAPSHOT_DEBT_BYTES_MIN < SEGMENT_BYTES_MIN,
    "the next file is ready before it is needed, although little debts are not paid at once"
);
const _: () = assert!(FRAME_BYTES_MAX > APPEND_ENTRIES_BYTES_MAX, "a full batch must fit in a frame");
const _: () =
    assert!(PEER_SEND_BYTES_MAX >= 2 * FRAME_BYTES_MAX, "a large frame must not reset its own link");
const _: () =
    assert!(PEER_SEND_BYTES_MAX >= 2 * IN_FLIGHT_BYTES_MAX, "replication alone must not reset a link");
const _: () = assert!(SEGMENT_BYTES >= 4 * LOG_BUFFER_BYTES_MAX, "a segment must take many full buffers");
const _: () = assert!(WRITES_IN_FLIGHT_BYTES_MAX >= PAYLOAD_BYTES_MAX, "the largest value must be writable");
const _: () = assert!(
    WRITES_IN_FLIGHT_BYTES_MAX < PEER_SEND_BYTES_MAX,
    "re-sending all writes must not reset the link"
);
const _: () =
    assert!(READ_CONTEXTS_ASKED_MAX <= READ_CONTEXTS_MAX, "a leader takes all that one node may ask");
const _: () = assert!(FORWARDS_HELD_BYTES_MAX >= WRITES_IN_FLIGHT_BYTES_MAX, "one busy node must find room");
const _: () = assert!(FORWARD_BYTES_MAX <= FRAME_BYTES_MAX / 2, "a full Forward must fit in a frame");
const _: () = assert!(
    SEGMENT_BYTES_MIN <= SEGMENT_BYTES && SEGMENT_BYTES <= SEGMENT_BYTES_MAX,
    "the default must be allowed"
);
const _: () = assert!(SEGMENT_BYTES.is_multiple_of(SEGMENT_BYTES_UNIT), "the default must be whole blocks");
const _: () =
    assert!(ELECTION_TIMEOUT_MS_MIN / HEARTBEATS_PER_ELECTION_TIMEOUT >= 1, "a heartbeat needs an interval");
const _: () = assert!(CLIENT_CONNECTIONS_DEFAULT <= CLIENT_CONNECTIONS_MAX, "the default must be allowed");
const _: () = assert!(
    CLIENT_CONNECTIONS_DEFAULT + 2 * NODES_MAX + 64 < 1024,
    "the default must fit in the usual limit of open files"
);
const _: () = assert!(
    REQUEST_TIMEOUT_MS_MIN <= REQUEST_TIMEOUT_MS_DEFAULT
        && REQUEST_TIMEOUT_MS_DEFAULT <= REQUEST_TIMEOUT_MS_MAX,
    "the default must be allowed"
);
const _: () = assert!(
    HEAD_TIMEOUT_MS_DEFAULT >= CLIENT_TIMEOUT_MS_MIN && IDLE_TIMEOUT_MS_DEFAULT <= CLIENT_TIMEOUT_MS_MAX,
    "the defaults must be allowed"
);
const _: () = assert!(
    REQUEST_LINE_BYTES_MAX < REQUEST_HEAD_BYTES_MAX,
    "a long request line must leave room for headers"
);
const _: () =
    assert!(REQUEST_LINE_BYTES_MAX > 3 * KEY_BYTES_MAX + 1024, "the longest key, percent-encoded, must fit");
const _: () = assert!(REQUEST_TIMEOUT_MS_DEFAULT <= REQUEST_TIMEOUT_MS_MAX, "the default must be allowed");
const _: () = assert!(SHUTDOWN_LAST_CALL_MS < SHUTDOWN_MS_MAX, "the last requests need time, too");
const _: () = assert!(WATCHERS_MAX > CLIENT_CONNECTIONS_MAX, "every connection may watch");
const _: () = assert!(
    WATCH_CHANGES_PER_SLICE_MAX * WATCH_CHANGE_BYTES < WATCH_BYTES_PER_TURN_MAX,
    "several watchers get their share in one turn"
);
const _: () = assert!(WATCH_COMMENT_MS < 15_000, "a turn may be late");
