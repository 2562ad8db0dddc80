//! Clients that write unique keys as fast as they are answered, and remember what became of every write.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http_client::{Failure, HttpClient, Request};
use super::http_message::Answer;

/// Pause of a client between two writes, so that a test's writes can also be read back in reasonable time.
const PAUSE: Duration = Duration::from_millis(1);
/// Pause of a client that could not reach its node.
const PAUSE_AFTER_MISHAP: Duration = Duration::from_millis(10);

/// A write that the cluster has promised to keep.
#[derive(Clone, Debug)]
pub struct Acknowledged {
    /// Its key. Nobody else ever writes it.
    pub key: String,
    /// What was written.
    pub value: String,
    /// The revision that the answer named.
    pub revision: u64,
    /// When the answer was there.
    pub at: Instant,
}

/// What can go wrong with a write, in a client's eyes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MishapKind {
    /// Surely without effect: not sent, or refused with 503.
    NotApplied,
    /// 504, or no answer.
    Unknown,
    /// An answer that the node must not give to this request.
    Wrong,
}

/// A write without a promise.
#[derive(Clone, Debug)]
pub struct Mishap {
    /// Its key.
    pub key: String,
    /// What would have been written.
    pub value: String,
    /// What is known.
    pub kind: MishapKind,
    /// In words.
    pub text: String,
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}: {}", self.key, self.kind, self.text)
    }
}

/// Everything that one client has seen.
#[derive(Clone, Debug, Default)]
pub struct WriterReport {
    /// In the order of their answers.
    pub acknowledged: Vec<Acknowledged>,
    /// The others.
    pub mishaps: Vec<Mishap>,
}

impl WriterReport {
    /// The longest time between two acknowledged writes that follow one another.
    pub fn longest_gap(&self) -> Duration {
        self.acknowledged.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap_or_default()
    }
}

/// A client that writes through one node in a thread of its own, one write after the other, each to a new key.
#[derive(Debug)]
pub struct Writer {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    thread: Option<JoinHandle<WriterReport>>,
}

impl Writer {
    /// Begins to write keys that start with `name`.
    pub fn start(address: SocketAddr, name: String) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let thread = std::thread::spawn({
            let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
            move || write_until_stopped(address, &name, &stop, &acknowledged)
        });
        Writer { stop, acknowledged, thread: Some(thread) }
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Lets the client finish its current write, and returns what it has seen.
    pub fn stop(mut self) -> WriterReport {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("a writer is stopped once").join().expect("the writer does not panic")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn write_until_stopped(
    address: SocketAddr,
    name: &str,
    stop: &AtomicBool,
    acknowledged: &AtomicUsize,
) -> WriterReport {
    let mut client = HttpClient::new(address);
    let mut report = WriterReport::default();
    for count in 0_u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let key = format!("{name}/{count}");
        let value = format!("value of {key}");
        match write_once(&mut client, &key, &value) {
            Ok(revision) => {
                report.acknowledged.push(Acknowledged { key, value, revision, at: Instant::now() });
                acknowledged.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
            }
            Err((kind, text)) => {
                report.mishaps.push(Mishap { key, value, kind, text });
                std::thread::sleep(PAUSE_AFTER_MISHAP);
            }
        }
    }
    report
}

/// Writes a key and returns its revision.
pub fn write_once(client: &mut HttpClient, key: &str, value: &str) -> Result<u64, (MishapKind, String)> {
    let request = Request::new("PUT", &format!("/v1/storage/key/{key}"), &[], value.as_bytes());
    match client.send(&request) {
        Ok(answer) if answer.status == 200 => match (answer.etag(), answer.revision()) {
            (Some(etag), Some(revision)) if etag == revision => Ok(revision),
            (etag, revision) => {
                let text = format!("a write's ETag {etag:?} and Keva-Revision {revision:?} must be the same");
                Err((MishapKind::Wrong, text))
            }
        },
        Ok(answer) => Err((kind_of_refusal(&answer), format!("{} {}", answer.status, answer.text()))),
        Err(failure @ Failure::NotSent(_)) => Err((MishapKind::NotApplied, failure.to_string())),
        Err(failure @ Failure::Unknown(_)) => Err((MishapKind::Unknown, failure.to_string())),
    }
}

fn kind_of_refusal(answer: &Answer) -> MishapKind {
    match answer.status {
        503 => MishapKind::NotApplied,
        504 => MishapKind::Unknown,
        _ => MishapKind::Wrong,
    }
}

/// Reads every acknowledged write back and panics unless it is there exactly once: its value unchanged, its revision
/// the one that was promised. A write that took effect twice would have a later one.
pub fn assert_all_there(client: &mut HttpClient, acknowledged: &[Acknowledged]) {
    for write in acknowledged {
        let answer = client
            .request("GET", &format!("/v1/storage/key/{}", write.key), &[], b"")
            .unwrap_or_else(|failure| panic!("read {}: {failure}", write.key));
        assert_eq!(answer.status, 200, "acknowledged write of {} is gone: {}", write.key, answer.text());
        assert_eq!(answer.text(), write.value, "value of {}", write.key);
        assert_eq!(answer.etag(), Some(write.revision), "revision of {}: was it written twice?", write.key);
    }
}

/// Reads every write that was surely not applied, and panics if one is there.
pub fn assert_none_there(client: &mut HttpClient, mishaps: &[Mishap]) {
    for mishap in mishaps.iter().filter(|mishap| mishap.kind == MishapKind::NotApplied) {
        let answer = client
            .request("GET", &format!("/v1/storage/key/{}", mishap.key), &[], b"")
            .unwrap_or_else(|failure| panic!("read {}: {failure}", mishap.key));
        assert_eq!(answer.status, 204, "this write was said to have no effect, and it has: {mishap}");
    }
}
