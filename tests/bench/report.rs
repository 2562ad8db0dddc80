//! What a node says about itself in `GET /metrics`, between two looks.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::support::http_client::HttpClient;
use super::support::metrics::Metrics;

/// Between two looks at a node that makes a snapshot.
const PAUSE: Duration = Duration::from_millis(20);
/// A snapshot that takes longer hangs.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(300);

/// The node's present page.
pub fn page(node: SocketAddr) -> Metrics {
    let answer = HttpClient::new(node).request("GET", "/metrics", &[], b"");
    let answer = answer.unwrap_or_else(|failure| panic!("/metrics: {failure}"));
    Metrics::parse(&answer.text()).unwrap_or_else(|error| panic!("/metrics: {error}"))
}

/// Whether a snapshot is in the making.
pub fn is_making_snapshot(page: &Metrics) -> bool {
    page.value("keva_snapshot_draft_bytes") > 0.0
}

/// Waits until no snapshot is in the making, and returns the first page that says so.
pub fn wait_while_making(node: SocketAddr) -> Metrics {
    let start = Instant::now();
    loop {
        let page = page(node);
        if !is_making_snapshot(&page) {
            return page;
        }
        assert!(start.elapsed() < SNAPSHOT_PATIENCE, "the snapshot does not end");
        std::thread::sleep(PAUSE);
    }
}

/// The longest turn between two looks, with the label `snapshot`, and how many took longer than 5 ms. Exactly when it
/// was the longest of all so far, else by the bucket it is in.
pub fn longest_turn(before: &Metrics, after: &Metrics, snapshot: &str) -> String {
    let labels = format!("snapshot=\"{snapshot}\"");
    let name = format!("keva_turn_seconds_max{{{labels}}}");
    let counts = |page: &Metrics| page.buckets("keva_turn_duration_seconds", &labels);
    let grown: Vec<(f64, f64)> = counts(before)
        .into_iter()
        .zip(counts(after))
        .map(|((end, before), (_, after))| (end, after - before))
        .collect();
    let all = grown.last().map_or(0.0, |(_, count)| *count);
    if all == 0.0 {
        return "no turn".into();
    }
    let longer = all - grown.iter().find(|(end, _)| *end >= 0.005).map_or(0.0, |(_, count)| *count);
    let longest = if after.value(&name) > before.value(&name) {
        format!("{:.1} ms", 1e3 * after.value(&name))
    } else {
        let bucket = grown.iter().find(|(_, count)| *count == all).map_or(f64::INFINITY, |(end, _)| *end);
        // No longer than the longest of all, whatever the bucket.
        format!("at most {:.1} ms", 1e3 * bucket.min(after.value(&name)))
    };
    format!("{longest} ({longer:.0} of {all:.0} over 5 ms)")
}
