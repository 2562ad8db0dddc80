//! Rounds of faults, each with its checks.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fastrand::Rng;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::fault::FaultKind;
use super::feed::Feed;
use super::mixer::Mixer;
use super::options::Options;
use super::promises::{Complaints, Promises};
use super::support::cluster::{Cluster, ClusterOptions, report};
use super::support::history::{History, Outcome};
use super::support::history_client::HistoryClients;
use super::support::http_client::HttpClient;
use super::support::workload::{MishapKind, Writer, write_once};
use super::support::{linearizability, witness};
use super::tally::Tally;
use super::write::{Effect, Write, of_history, of_report};

/// Clients that share keys, and their keys.
const CLIENTS: u32 = 6;
const KEYS: u32 = 18;
/// Clients that write in all ways.
const MIXERS: u32 = 4;
/// Short enough that watchers come back too late at times, and are shown all keys.
const SETTINGS: &str = "[limits]\nhistory_size = '4MiB'\n";
/// How often the last write of a round is tried in a whole cluster.
const LAST_WRITES_MAX: u32 = 20;
/// Faults in a round.
const FAULTS_PER_ROUND: usize = 8;
/// Rounds with the same nodes and data. Then everything is read again after a kill of all nodes, and the next cluster
/// begins with nothing: a log is never shortened, so that a longer one would only make every start slower.
const ROUNDS_PER_CLUSTER: u64 = 12;

/// Runs until the time is over, somebody asks it to stop, or something is wrong.
pub fn run(options: &Options) -> Tally {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&is_over)).expect("a handler can be set");
    }
    let start = Instant::now();
    let goes_on = || start.elapsed() < options.duration && !is_over.load(Ordering::Relaxed);
    let mut total = Tally::default();
    let rounds = std::panic::catch_unwind(AssertUnwindSafe(|| {
        while total.rounds == 0 || goes_on() {
            let mut series = Series::start(options);
            for _ in 0..ROUNDS_PER_CLUSTER {
                series.round(total.rounds, &mut total);
                if !goes_on() {
                    break;
                }
            }
            series.read_everything_again(&mut total);
        }
    }));
    if let Err(panic) = rounds {
        // A node that ended, or that was not ready in time, is one as well.
        total.violations = total.violations.max(1);
        report(&format!("FAILED: {total}"));
        std::panic::resume_unwind(panic);
    }
    total
}

/// Rounds with one cluster.
struct Series<'a> {
    options: &'a Options,
    cluster: Cluster,
    earlier: Vec<Promises>,
    feed: Feed,
    /// Counts the last writes of rounds.
    ends: u64,
}

impl Series<'_> {
    fn start(options: &Options) -> Series<'_> {
        let wait_time = format!("'{}ms'", options.wait_time_ms);
        let mut cluster_options =
            ClusterOptions::new(options.nodes).wait_time(&wait_time).relayed().settings(SETTINGS);
        cluster_options.parent_directory.clone_from(&options.directory);
        let cluster = Cluster::start_with(&cluster_options);
        let addresses: Vec<_> = (0..options.nodes).map(|node| cluster.client_address(node)).collect();
        let feed = Feed::start(&addresses, options.seed);
        Series { options, cluster, earlier: Vec::new(), feed, ends: 0 }
    }

    fn round(&mut self, number: u64, total: &mut Tally) {
        let start = Instant::now();
        let mut tally = Tally { rounds: 1, ..Tally::default() };
        let seed = round_seed(self.options.seed, number);
        let addresses: Vec<_> =
            (0..self.cluster.len()).map(|node| self.cluster.client_address(node)).collect();
        let shared = format!("r{number}");
        let sharers = HistoryClients::start_named(&shared, addresses.clone(), CLIENTS, KEYS, seed);
        let mixers: Vec<Mixer> =
            (0..MIXERS).map(|client| Mixer::start(&addresses, client, number, seed)).collect();
        let writers: Vec<Writer> = addresses
            .iter()
            .enumerate()
            .map(|(node, address)| Writer::start(*address, format!("w{number}/{node}")))
            .collect();
        self.cause_faults(seed, &mut tally);
        sharers.assert_working();

        let healed = Instant::now();
        self.cluster.relays().heal();
        self.cluster.wait_all_ready();
        tally.ready = healed.elapsed();
        let history = sharers.stop();
        let mut promises = Promises::default();
        let mut writes = of_history(&shared, &history);
        for report in writers.into_iter().map(Writer::stop) {
            writes.extend(of_report(&report));
            promises.add(report);
        }
        writes.extend(mixers.into_iter().flat_map(Mixer::stop));

        let mut complaints = Complaints::default();
        self.check_feed(writes, &mut tally, &mut complaints);
        self.check(&history, &promises, &mut tally, &mut complaints);
        self.earlier.push(promises);
        tally.time = start.elapsed();
        *total += tally;
        report(&format!("round {number} (seed {}): {tally}", self.options.seed));
        self.stop_on(&complaints);
    }

    fn cause_faults(&mut self, seed: u64, tally: &mut Tally) {
        let mut rng = Rng::with_seed(seed);
        let wait_time = Duration::from_millis(self.options.wait_time_ms);
        for _ in 0..FAULTS_PER_ROUND {
            sleep(Duration::from_millis(rng.u64(50..400)));
            let kind = draw(&self.options.faults, &mut rng);
            if kind.is_of_links() {
                // It stays while other faults come, or for some time.
                kind.begin(&self.cluster, &mut rng, wait_time, tally);
                if rng.bool() {
                    sleep(wait_time.mul_f64(rng.f64() * 2.0));
                }
            } else {
                kind.perform(&mut self.cluster, &mut rng, wait_time, tally);
            }
            if rng.u32(..3) == 0 {
                self.cluster.relays().heal();
            }
        }
    }

    /// What everybody has learned who follows keys, up to a last write.
    fn check_feed(&mut self, mut writes: Vec<Write>, tally: &mut Tally, complaints: &mut Complaints) {
        let mut client = self.cluster.client(0);
        for _ in 0..LAST_WRITES_MAX {
            let called = Instant::now();
            self.ends += 1;
            let (key, value) = (format!("end/{}", self.ends), self.ends.to_string());
            let result = write_once(&mut client, &key, &value);
            let effects = vec![Effect::Put { key, value: value.into_bytes(), life: None }];
            match result {
                Ok(end) => {
                    writes.push(Write { effects, revision: Some(end), called });
                    return self.feed.check(end, writes, tally, complaints);
                }
                Err((MishapKind::Unknown, _)) => writes.push(Write { effects, revision: None, called }),
                Err(_) => {}
            }
        }
        complaints.add(tally, "nobody can write in a whole cluster".to_owned());
    }

    fn check(&self, history: &History, promises: &Promises, tally: &mut Tally, complaints: &mut Complaints) {
        let (operations, unknown) = promises.operations();
        tally.operations = operations + history.operations.len() as u64;
        tally.unknown = unknown + history.count(|operation| operation.outcome == Outcome::Unknown) as u64;
        promises.check(&mut self.clients(), tally, complaints);
        for result in [witness::check(history), linearizability::check(history)] {
            if let Err(text) = result {
                complaints.add(tally, text);
            }
        }
    }

    /// Kills the whole cluster and reads what all rounds have written.
    fn read_everything_again(mut self, total: &mut Tally) {
        let start = Instant::now();
        let all: Vec<usize> = (0..self.cluster.len()).collect();
        self.cluster.kill_at_once(&all);
        for node in &all {
            self.cluster.node(*node).start();
        }
        self.cluster.wait_all_ready();
        let mut tally = Tally { kills: all.len() as u64, ready: start.elapsed(), ..Tally::default() };
        let mut complaints = Complaints::default();
        self.check_feed(Vec::new(), &mut tally, &mut complaints);
        let mut clients = self.clients();
        for promises in &self.earlier {
            // Through another node than the first time.
            clients.rotate_left(1);
            promises.check(&mut clients, &mut tally, &mut complaints);
        }
        tally.time = start.elapsed();
        report(&format!("all nodes killed, everything read again (seed {}): {tally}", self.options.seed));
        tally.kept = 0;
        *total += tally;
        self.stop_on(&complaints);
    }

    fn clients(&self) -> Vec<HttpClient> {
        (0..self.cluster.len())
            .map(|node| self.cluster.client(node).with_timeout(Duration::from_secs(25)))
            .collect()
    }

    /// Ends the run when something is wrong. The cluster's files are kept if `KEEP_TEST_CLUSTERS` says so.
    fn stop_on(&self, complaints: &Complaints) {
        if complaints.texts().is_empty() {
            return;
        }
        panic!("{} nodes, seed {}: {:#?}", self.options.nodes, self.options.seed, complaints.texts());
    }
}

/// Kills are half of all faults where they are asked for: what they can break matters most.
fn draw(kinds: &[FaultKind], rng: &mut Rng) -> FaultKind {
    if kinds.contains(&FaultKind::Kill) && rng.bool() {
        return FaultKind::Kill;
    }
    kinds[rng.usize(..kinds.len())]
}

/// Rounds differ, and so do the same rounds of runs with neighbouring seeds.
fn round_seed(seed: u64, number: u64) -> u64 {
    Rng::with_seed(seed).u64(..).wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}
