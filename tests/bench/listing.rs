//! Listings, counts and deletions of very many keys, and what they do to everybody else.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Options;
use super::generator::{Keys, Kind, Outcome, Plan, percentile, run};
use super::report::{longest_turn, page, wait_while_making};
use super::support::cluster::{Cluster, ClusterOptions};
use super::support::http_client::HttpClient;
use super::support::http_message::Answer;
use super::table::{Table, mebibytes, microseconds, seconds};
use super::usage::Usage;

/// Connections of the other clients that read, and as many that write.
const OTHERS: usize = 4;
/// Between two looks at the memory.
const MEMORY_PAUSE: Duration = Duration::from_millis(5);
/// What a load and a start leave to do is over by then.
const REST: Duration = Duration::from_secs(3);
/// No single request may take longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often all keys are counted.
const COUNTS: usize = 5;

/// The ways of asking for pages: the query, and whether JSON is asked for.
const FORMS: [(&str, bool); 5] = [
    ("limit=1000", false),
    ("limit=10000", false),
    ("limit=1000", true),
    ("limit=10000", true),
    ("limit=10000&values", true),
];

/// See the program's help: one node, and then three.
pub fn listing(options: &Options) {
    for nodes in [1, 3] {
        let mut cluster_options = ClusterOptions::new(nodes);
        cluster_options.parent_directory.clone_from(&options.directory);
        let mut cluster = Cluster::start_with(&cluster_options);
        let position = cluster.leader();
        fill(options, &cluster);
        let address = cluster.client_address(position);
        let target = Target { options, nodes, address, pid: cluster.node(position).pid() };
        target.rest();
        target.pages();
        target.counts_and_deletion();
    }
}

fn fill(options: &Options, cluster: &Cluster) {
    let plan = Plan {
        nodes: (0..cluster.len()).map(|position| cluster.client_address(position)).collect(),
        connections: options.connections,
        kind: Kind::Write,
        keys: Keys::Each(options.keys),
        value_bytes: options.key_value_bytes,
        duration: Duration::MAX,
    };
    let outcome = run(&plan).unwrap_or_else(|error| panic!("load generator: {error}"));
    assert!(outcome.refused.is_empty(), "not every answer was a 200: {:?}", outcome.refused);
}

/// The node that is asked.
struct Target<'a> {
    options: &'a Options,
    nodes: usize,
    address: SocketAddr,
    pid: u32,
}

/// The other clients' requests.
struct Others {
    reads: Outcome,
    writes: Outcome,
}

impl Target<'_> {
    fn rest(&self) {
        std::thread::sleep(REST);
        wait_while_making(self.address);
    }

    fn title(&self, text: &str) -> String {
        let Options { keys, key_value_bytes, .. } = self.options;
        let kind =
            if self.nodes == 1 { "one node".into() } else { format!("the leader of {} nodes", self.nodes) };
        format!("{text}: {keys} keys with values of {key_value_bytes} bytes, {kind}")
    }

    /// Reads and writes of other keys, for this time.
    fn others(&self, duration: Duration) -> Others {
        let plan = |kind| Plan {
            nodes: vec![self.address],
            connections: OTHERS,
            kind,
            keys: Keys::Own,
            value_bytes: self.options.key_value_bytes,
            duration,
        };
        std::thread::scope(|scope| {
            let look = |plan: Plan| run(&plan).unwrap_or_else(|error| panic!("load generator: {error}"));
            let writes = scope.spawn(move || look(plan(Kind::Write)));
            let reads = look(plan(Kind::Read));
            Others { reads, writes: writes.join().expect("the load does not fail") }
        })
    }

    /// The most anonymous memory that the node has while something is done.
    fn peak<T>(&self, work: impl FnOnce() -> T) -> (T, u64) {
        let (is_over, peak) = (AtomicBool::new(false), AtomicU64::new(0));
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::SeqCst) {
                    peak.fetch_max(Usage::of(self.pid).anonymous_bytes, Ordering::SeqCst);
                    std::thread::sleep(MEMORY_PAUSE);
                }
            });
            let result = work();
            is_over.store(true, Ordering::SeqCst);
            result
        });
        (result, peak.into_inner())
    }

    fn pages(&self) {
        let duration = Duration::from_secs(self.options.seconds);
        // Every connection's keys exist from here on, and memory is as a load leaves it.
        self.others(duration);
        self.rest();
        let title = self.title("All keys, page by page, alone and while others read and write (ratio: p99 to that without the listing)");
        let columns = [
            "",
            "keys/s alone",
            "memory more",
            "keys/s",
            "page p99",
            "memory more",
            "longest turn",
            "reads/s",
            "p50",
            "p99",
            "ratio",
            "writes/s",
            "p50",
            "p99",
            "ratio",
        ];
        let mut table = Table::new(&title, &columns);
        for (query, is_json) in FORMS {
            self.rest();
            let before = Usage::of(self.pid).anonymous_bytes;
            let (alone, peak) = self.peak(|| self.list(query, is_json, &AtomicBool::new(false), false));
            assert!(alone.keys >= self.options.keys, "{query}: only {} keys were listed", alone.keys);
            let more = peak.saturating_sub(before);
            // Each time anew: what else the machine does changes.
            let (plain, plain_peak) = self.peak(|| self.others(duration));
            let turns = page(self.address);
            let is_over = AtomicBool::new(false);
            let ((others, busy), busy_peak) = self.peak(|| {
                std::thread::scope(|scope| {
                    let lister = scope.spawn(|| self.list(query, is_json, &is_over, true));
                    let others = self.others(duration);
                    is_over.store(true, Ordering::SeqCst);
                    (others, lister.join().expect("the lister does not fail"))
                })
            });
            let mut row = vec![
                format!("{} {query}", if is_json { "JSON" } else { "text" }),
                format!("{:.0}", alone.rate()),
                mebibytes(more),
                format!("{:.0}", busy.rate()),
                microseconds(percentile(&busy.pages, 0.99)),
                mebibytes(busy_peak.saturating_sub(plain_peak)),
                longest_turn(&turns, &page(self.address), "none"),
            ];
            row.extend(latencies(&others, &plain));
            table.row(row);
        }
        table.print();
    }

    /// Lists all keys, once or again and again until it is over.
    fn list(&self, query: &str, is_json: bool, is_over: &AtomicBool, again: bool) -> Listed {
        let mut client = HttpClient::new(self.address).with_timeout(PATIENCE);
        let headers: &[(&str, &str)] = if is_json { &[("Accept", "application/json")] } else { &[] };
        let mut listed = Listed::default();
        let start = Instant::now();
        let mut after = String::new();
        while !is_over.load(Ordering::SeqCst) {
            let target = format!("/v1/storage/keys?{query}&after={after}");
            let sent = Instant::now();
            let answer = client.request("GET", &target, headers, b"");
            let answer = answer.unwrap_or_else(|failure| panic!("{target}: {failure}"));
            assert_eq!(answer.status, 200, "{target}: {}", answer.text());
            listed.pages.push(sent.elapsed());
            let (keys, next) = if is_json { json_page(&answer) } else { text_page(&answer) };
            listed.keys += keys;
            match next {
                Some(next) => after = next,
                None if again => after.clear(),
                None => break,
            }
        }
        listed.elapsed = start.elapsed();
        listed.pages.sort_unstable();
        listed
    }

    /// How long the others wait while all keys are counted, and while all are deleted.
    fn counts_and_deletion(&self) {
        let title = self.title("One request for all keys, and the others' requests in a second around it");
        let columns =
            ["", "takes", "reads p50", "p99", "longest", "writes p50", "p99", "longest", "memory more"];
        let mut table = Table::new(&title, &columns);
        let target = "/v1/storage/keys?count&prefix=bench/";
        let delete = "/v1/storage/keys?prefix=bench/&timeout=2m";
        for (name, method, target, times) in [
            ("nothing", "GET", "/v1/version", 1),
            ("count", "GET", target, COUNTS),
            ("DELETE", "DELETE", delete, 1),
        ] {
            self.rest();
            let before = Usage::of(self.pid).anonymous_bytes;
            let ((others, took), peak) = self.peak(|| {
                std::thread::scope(|scope| {
                    let others = scope.spawn(|| self.others(Duration::from_secs(1 + times as u64 / 2)));
                    std::thread::sleep(Duration::from_millis(300));
                    let mut took: Vec<Duration> = (0..times).map(|_| self.ask(method, target)).collect();
                    took.sort_unstable();
                    (others.join().expect("the load does not fail"), percentile(&took, 1.0))
                })
            });
            let mut row = vec![name.to_owned(), seconds(took)];
            for outcome in [&others.reads, &others.writes] {
                row.extend([0.5, 0.99, 1.0].map(|part| microseconds(outcome.percentile(part))));
            }
            row.push(mebibytes(peak.saturating_sub(before)));
            table.row(row);
        }
        table.print();
    }

    fn ask(&self, method: &str, target: &str) -> Duration {
        let mut client = HttpClient::new(self.address).with_timeout(PATIENCE);
        let start = Instant::now();
        let answer = client.request(method, target, &[], b"");
        let answer = answer.unwrap_or_else(|failure| panic!("{target}: {failure}"));
        assert_eq!(answer.status, 200, "{target}: {}", answer.text());
        start.elapsed()
    }
}

/// What came of listing.
#[derive(Default)]
struct Listed {
    keys: usize,
    /// How long each page took, sorted.
    pages: Vec<Duration>,
    elapsed: Duration,
}

impl Listed {
    fn rate(&self) -> f64 {
        self.keys as f64 / self.elapsed.as_secs_f64()
    }
}

/// Rates and latencies, and how many times the plain ones the latencies that few exceed are.
fn latencies(others: &Others, plain: &Others) -> Vec<String> {
    let mut cells = Vec::new();
    for (outcome, plain) in [(&others.reads, &plain.reads), (&others.writes, &plain.writes)] {
        assert!(outcome.refused.is_empty(), "not every answer was a 200: {:?}", outcome.refused);
        let ratio = outcome.percentile(0.99).as_secs_f64() / plain.percentile(0.99).as_secs_f64();
        cells.push(format!("{:.0}", outcome.rate()));
        cells.extend([0.5, 0.99].map(|part| microseconds(outcome.percentile(part))));
        cells.push(format!("{ratio:.2}"));
    }
    cells
}

/// How many keys, and where the next page begins.
fn text_page(answer: &Answer) -> (usize, Option<String>) {
    let keys = answer.body.iter().filter(|byte| **byte == b'\n').count();
    (keys, answer.header("Keva-Next").map(str::to_owned))
}

/// The same, without a parser whose work would be a part of what is measured. The keys are plain.
fn json_page(answer: &Answer) -> (usize, Option<String>) {
    // Each entry has one, and nothing else here has a brace.
    let keys = answer.body.iter().filter(|byte| **byte == b'{').count() - 1;
    let tail = String::from_utf8_lossy(&answer.body[answer.body.len().saturating_sub(200)..]).into_owned();
    let next = tail.rsplit_once("\"next\":").expect("every page says whether there is a next one").1;
    (keys, next.strip_prefix('"').and_then(|next| next.split('"').next()).map(str::to_owned))
}
