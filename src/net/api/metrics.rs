//! `GET /metrics`: what a node knows and counts, in the text format of Prometheus, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Names follow its conventions: `keva_` in front, base units (seconds, bytes) and `_total` behind counters. A name that
//! was published once keeps its meaning.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use crate::net::api::action::NodeView;
use crate::net::api::cluster::{ClusterView, MemberView};
use crate::net::http::response::{Body, Response};
use crate::net::http::status::Status;
use crate::net::metrics::{Histogram, Responses, StorageUse, Traffic, TurnTimes};
use crate::raft::types::Index;
use crate::replica::io::{InFlight, ReplicaStatus, RoleName, Standing};

/// The format, as HTTP names it.
pub const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Room for the usual page, in bytes.
const PAGE_BYTES: usize = 16 << 10;
const WRITE_TO_MEMORY: &str = "writing to a String cannot fail";

/// What the page says besides the node's status.
#[derive(Clone, Copy, Debug)]
pub struct MetricsView<'a> {
    /// What waits on the node.
    pub in_flight: InFlight,
    /// The last entry that is durable on this node.
    pub synced_index: Index,
    /// Bytes of the log that the newest snapshot does not cover.
    pub log_bytes: u64,
    /// Open connections of clients.
    pub client_connections: usize,
    /// Answered requests.
    pub responses: &'a Responses,
    /// Bytes from and to clients.
    pub client_traffic: &'a Traffic,
    /// Bytes from and to the other nodes.
    pub peer_traffic: &'a Traffic,
    /// What was asked of the disk.
    pub storage: &'a StorageUse,
    /// How long turns take.
    pub turns: &'a TurnTimes,
}

/// The response to a request whose action was [`super::Action::Metrics`].
#[must_use]
pub fn render_metrics(
    metrics: &MetricsView<'_>,
    status: &ReplicaStatus,
    cluster: &ClusterView<'_>,
    node: &NodeView,
) -> Response {
    let mut page = Page { text: String::with_capacity(PAGE_BYTES) };
    describe_node(&mut page, status, node);
    describe_log(&mut page, metrics, status);
    describe_peers(&mut page, status, cluster);
    describe_requests(&mut page, metrics);
    describe_disk(&mut page, metrics, status);
    describe_turns(&mut page, metrics.turns);
    let mut response = Response::new(Status::Ok, METRICS, Body::Owned(page.text.into_bytes()));
    response.node = Some(node.node.clone());
    response.leader.clone_from(&node.leader);
    response.is_live = true;
    response
}

fn describe_node(page: &mut Page, status: &ReplicaStatus, node: &NodeView) {
    page.family("keva_build_info", Kind::Gauge, "The program's version and the node's identity; always 1.");
    let version = env!("CARGO_PKG_VERSION");
    page.sample("keva_build_info", &[("version", version), ("node", &node.node)], 1);
    let is_leader = status.role == RoleName::Leader;
    page.gauge("keva_is_leader", "1 on the node that leads, as far as it knows.", u64::from(is_leader));
    let has_leader = u64::from(status.leader.is_some());
    page.gauge("keva_has_leader", "1 while the node knows who leads the cluster.", has_leader);
    let is_voter = u64::from(status.standing == Standing::Voter);
    page.gauge("keva_is_voter", "1 unless the node waits to be admitted or to get lost data back.", is_voter);
    page.gauge("keva_term", "The term that the node is in.", status.term.0);
    page.gauge("keva_keys", "Keys in the store.", status.keys);
}

fn describe_log(page: &mut Page, metrics: &MetricsView<'_>, status: &ReplicaStatus) {
    let rows = [
        ("keva_commit_index", "The last entry that is known to be committed.", status.commit_index),
        ("keva_applied_index", "The last entry that is applied to the store.", status.applied_index),
        ("keva_synced_index", "The last entry that is durable on this node.", metrics.synced_index),
        ("keva_log_start_index", "The entry right before the first one in the log.", status.log_start.index),
        ("keva_log_last_index", "The last entry in the log.", status.last_index),
    ];
    for (name, help, index) in rows {
        page.gauge(name, help, index.0);
    }
    let snapshot = status.snapshot.unwrap_or_default();
    let help = "The last entry that the newest snapshot covers, 0 without one.";
    page.gauge("keva_snapshot_index", help, snapshot.last.index.0);
    page.gauge("keva_snapshot_bytes", "Size of the newest snapshot.", snapshot.bytes);
    let (written, bytes) = status.snapshot_draft.map_or((0, 0), |draft| (draft.written, draft.bytes));
    let help = "Size of the snapshot in the making, the node's own or the leader's; 0 while there is none.";
    page.gauge("keva_snapshot_draft_bytes", help, bytes);
    page.gauge("keva_snapshot_draft_written_bytes", "How much of it is there.", written);
    let help = "Bytes of the log's entries that the newest snapshot does not cover.";
    page.gauge("keva_log_bytes", help, metrics.log_bytes);
}

fn describe_peers(page: &mut Page, status: &ReplicaStatus, cluster: &ClusterView<'_>) {
    let peers: Vec<&MemberView<'_>> =
        cluster.members.iter().filter(|member| member.id != status.id).collect();
    if !peers.is_empty() {
        page.family("keva_peer_connected", Kind::Gauge, "1 while a link to the other node stands.");
        for peer in &peers {
            page.sample("keva_peer_connected", &[("peer", peer.identity)], u64::from(peer.connected));
        }
    }
    // Only a leader knows.
    if status.peers.is_empty() {
        return;
    }
    let progress: Vec<(&str, Index)> = peers
        .iter()
        .filter_map(|peer| {
            let known = status.peers.iter().find(|known| known.id == peer.id)?;
            Some((peer.identity, known.match_index))
        })
        .collect();
    let help = "On the leader: the other node's log is known to equal the leader's up to here.";
    page.family("keva_peer_match_index", Kind::Gauge, help);
    for (peer, match_index) in &progress {
        page.sample("keva_peer_match_index", &[("peer", peer)], match_index.0);
    }
    let help = "On the leader: entries of its log that the other node is not known to have.";
    page.family("keva_peer_lag_entries", Kind::Gauge, help);
    for (peer, match_index) in &progress {
        let lag = status.last_index.0.saturating_sub(match_index.0);
        page.sample("keva_peer_lag_entries", &[("peer", peer)], lag);
    }
}

fn describe_requests(page: &mut Page, metrics: &MetricsView<'_>) {
    let name = "keva_http_requests_total";
    page.family(name, Kind::Counter, "Answered requests of clients, by the class of the answer's status.");
    for (class, count) in metrics.responses.by_class() {
        page.sample(name, &[("class", class)], count);
    }
    let connections = metrics.client_connections as u64;
    page.gauge("keva_client_connections", "Open connections of clients.", connections);
    let (clients, peers) = (metrics.client_traffic, metrics.peer_traffic);
    page.counter("keva_client_received_bytes_total", "Bytes read from clients.", clients.received());
    page.counter("keva_client_sent_bytes_total", "Bytes written to clients.", clients.sent());
    page.counter("keva_peer_received_bytes_total", "Bytes read from other nodes.", peers.received());
    page.counter("keva_peer_sent_bytes_total", "Bytes written to other nodes.", peers.sent());
    let waiting = &metrics.in_flight;
    let rows = [
        ("keva_waiting_writes", "Writes of this node's clients without an answer.", waiting.writes),
        ("keva_waiting_write_bytes", "Bytes of these writes.", waiting.write_bytes),
        ("keva_waiting_reads", "Reads of this node's clients that wait to be confirmed.", waiting.reads),
        (
            "keva_held_bytes",
            "On the leader: bytes of other nodes' writes not yet in the log.",
            waiting.held_bytes,
        ),
        (
            "keva_uncommitted_bytes",
            "On the leader: bytes in the log that are not committed.",
            waiting.uncommitted_bytes,
        ),
    ];
    for (name, help, value) in rows {
        page.gauge(name, help, value as u64);
    }
}

fn describe_disk(page: &mut Page, metrics: &MetricsView<'_>, status: &ReplicaStatus) {
    let help = "1 while the node's disk has no room for more data.";
    page.gauge("keva_disk_full", help, u64::from(status.is_full));
    let storage = metrics.storage;
    let help = "Bytes of entries that were appended to the log, without what its files add.";
    page.counter("keva_log_written_bytes_total", help, storage.log_bytes);
    let help = "Bytes of snapshots that were written, the node's own and those from a leader.";
    page.counter("keva_snapshot_written_bytes_total", help, storage.snapshot_bytes);
    let name = "keva_sync_duration_seconds";
    page.family(name, Kind::Histogram, "How long the disk took to make a turn's entries and votes durable.");
    page.histogram(name, &[], &storage.syncs);
}

fn describe_turns(page: &mut Page, turns: &TurnTimes) {
    let kinds = [("none", &turns.plain), ("making", &turns.making_snapshot)];
    let name = "keva_turn_duration_seconds";
    let help = "Turns of the loop without their wait for work, by whether a snapshot was in the making.";
    page.family(name, Kind::Histogram, help);
    for (snapshot, turns) in kinds {
        page.histogram(name, &[("snapshot", snapshot)], &turns.durations);
    }
    let name = "keva_turn_seconds_max";
    page.family(name, Kind::Gauge, "The longest of these turns since the start of the process.");
    for (snapshot, turns) in kinds {
        page.sample(name, &[("snapshot", snapshot)], Seconds(turns.longest));
    }
}

/// What the format knows of a metric.
#[derive(Clone, Copy)]
enum Kind {
    /// Only ever grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// The text that has been written so far.
struct Page {
    text: String,
}

impl Page {
    /// A metric with one number that goes up and down.
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, Kind::Gauge, help);
        self.sample(name, &[], value);
    }

    /// A metric with one number that only grows.
    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, Kind::Counter, help);
        self.sample(name, &[], value);
    }

    /// The head of a metric. All its samples follow, and nothing else.
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect(WRITE_TO_MEMORY);
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(name);
        for (position, (label, text)) in labels.iter().enumerate() {
            let opening = if position == 0 { '{' } else { ',' };
            write!(self.text, "{opening}{label}=\"").expect(WRITE_TO_MEMORY);
            self.escaped(text);
            self.text.push('"');
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        writeln!(self.text, "{closing} {value}").expect(WRITE_TO_MEMORY);
    }

    /// A label's value may be any text; three characters are written with a backslash.
    fn escaped(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
    }

    /// The samples of one histogram. Its buckets count everything up to their end.
    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        for (end, count) in histogram.cumulative() {
            let end = end.map_or("+Inf".to_owned(), |end| Seconds(end).to_string());
            let labels: Vec<(&str, &str)> = labels.iter().copied().chain([("le", end.as_str())]).collect();
            self.sample(&bucket, &labels, count);
        }
        self.sample(&format!("{name}_sum"), labels, Seconds(histogram.sum()));
        self.sample(&format!("{name}_count"), labels, histogram.count());
    }
}

/// A duration in seconds, as short as it can be written exactly to the microsecond.
struct Seconds(Duration);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.as_secs_f64().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_end_early() {
        let mut page = Page { text: String::new() };
        page.sample("name", &[("label", "a\\b\"c\nd\u{fc}"), ("other", "")], 7);
        assert_eq!(page.text, "name{label=\"a\\\\b\\\"c\\nd\u{fc}\",other=\"\"} 7\n");
    }

    #[test]
    fn seconds_are_plain_numbers() {
        let text = |micros| Seconds(Duration::from_micros(micros)).to_string();
        assert_eq!([text(0), text(100), text(2_500), text(100_000)], ["0", "0.0001", "0.0025", "0.1"]);
    }
}
