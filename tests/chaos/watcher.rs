//! Somebody who follows keys through all nodes, and goes on at another one whenever its connection ends.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fastrand::Rng;
use keva::net::watch::Format;

use super::place::{Observation, Place};
use super::stream::Stream;
use super::support::watch_event::parse;

/// Who cannot connect tries the next node after this time.
const REDIAL: Duration = Duration::from_millis(10);
/// Sleeps of those who are slow, in milliseconds.
const SLEEP_MS: std::ops::Range<u64> = 100..2_500;

/// Which keys somebody follows, and how.
#[derive(Clone, Debug)]
pub struct Habit {
    /// The key, or the beginning of the keys.
    pub name: &'static str,
    /// One key.
    pub is_key: bool,
    /// Of the events.
    pub format: Format,
    /// Takes little at a time and sleeps every now and then.
    pub is_slow: bool,
}

impl Habit {
    /// Whether the key is one of those that it follows.
    pub fn follows(&self, key: &str) -> bool {
        if self.is_key { key == self.name } else { key.starts_with(self.name) }
    }

    fn target(&self) -> String {
        if self.is_key {
            format!("/v1/storage/key/{}?watch", self.name)
        } else {
            format!("/v1/storage/keys?prefix={}&watch", self.name)
        }
    }
}

impl fmt::Display for Habit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_key { "key" } else { "prefix" };
        let slow = if self.is_slow { ", slow" } else { "" };
        write!(f, "watcher of {kind} '{}' ({:?}{slow})", self.name, self.format)
    }
}

/// What the watcher has learned, for the one who checks it.
#[derive(Debug, Default)]
pub struct Notes {
    /// Not looked at yet.
    pub observations: VecDeque<Observation>,
    /// What was wrong with the stream itself. The watcher has stopped then.
    pub problem: Option<String>,
    /// Everything up to here is in the observations.
    pub revision: u64,
    /// Events, with those that were thrown away because their connection ended in the middle.
    pub events: u64,
    /// Streams that began.
    pub streams: u64,
}

/// A watcher at work in a thread of its own.
#[derive(Debug)]
pub struct Watcher {
    /// What it follows.
    pub habit: Habit,
    notes: Arc<Mutex<Notes>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    /// Begins with all keys that there are.
    pub fn start(habit: Habit, nodes: Vec<SocketAddr>, seed: u64) -> Watcher {
        let (notes, stop) = (Arc::default(), Arc::default());
        let mut follower = Follower {
            habit: habit.clone(),
            nodes,
            rng: Rng::with_seed(seed),
            place: Place::default(),
            notes: Arc::clone(&notes),
            stop: Arc::clone(&stop),
        };
        let thread = std::thread::spawn(move || {
            if let Err(problem) = follower.work() {
                lock(&follower.notes).problem = Some(problem);
            }
        });
        Watcher { habit, notes, stop, thread: Some(thread) }
    }

    /// What it has learned so far.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        assert!(self.thread.is_some(), "it is at work until it is dropped");
        lock(&self.notes)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("a watcher has panicked: see above");
        }
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().expect("a watcher has panicked: see above")
}

struct Follower {
    habit: Habit,
    nodes: Vec<SocketAddr>,
    rng: Rng,
    place: Place,
    notes: Arc<Mutex<Notes>>,
    stop: Arc<AtomicBool>,
}

impl Follower {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn work(&mut self) -> Result<(), String> {
        while !self.is_over() {
            match self.connect()? {
                Some(stream) => self.follow(stream)?,
                None => std::thread::sleep(REDIAL),
            }
        }
        Ok(())
    }

    /// Asks any node for what comes behind the place, in any of the ways that there are, or for everything.
    fn connect(&mut self) -> Result<Option<Stream>, String> {
        let node = self.nodes[self.rng.usize(..self.nodes.len())];
        let since = match self.rng.u32(..100) {
            0..3 => 0,
            // A comment says as well that everything before was sent.
            3..50 => self.place.revision,
            _ => self.place.id,
        };
        let mut target = self.habit.target();
        let mut headers = String::new();
        if self.rng.bool() {
            target += &format!("&since={since}");
        } else {
            headers = format!("Last-Event-ID: {since}\r\n");
        }
        let (format, is_slow) = (self.habit.format, self.habit.is_slow);
        match Stream::open(node, &target, &headers, format, is_slow) {
            Ok(Ok(stream)) => {
                self.place.connected(since == 0);
                lock(&self.notes).streams += 1;
                Ok(Some(stream))
            }
            Ok(Err(refusal)) if matches!(refusal.status, 503 | 504) => Ok(None),
            Ok(Err(refusal)) => Err(format!("K8: refused at {since}: {}", refusal.text)),
            Err(_) => Ok(None),
        }
    }

    /// Takes events until the stream ends, is silent for too long, or was read enough.
    fn follow(&mut self, mut stream: Stream) -> Result<(), String> {
        // Short streams as often as long ones.
        let mut left = 10_f64.powf(self.rng.f64() * 4.0 + 0.5) as u64;
        let silence_max = Duration::from_millis(self.rng.u64(300..2_500));
        let mut heard = Instant::now();
        while !self.is_over() && heard.elapsed() < silence_max {
            let Ok(bytes) = stream.read() else { break };
            if !bytes.is_empty() {
                heard = Instant::now();
            }
            for event in events(self.habit.format, &bytes) {
                if left == 0 {
                    // Even in the middle of an entry.
                    return Ok(());
                }
                left -= 1;
                self.take(event)?;
            }
            if self.habit.is_slow && self.rng.u32(..200) == 0 {
                std::thread::sleep(Duration::from_millis(self.rng.u64(SLEEP_MS)));
            }
        }
        Ok(())
    }

    fn take(&mut self, event: &[u8]) -> Result<(), String> {
        let observation = self.place.take(parse(self.habit.format, event))?;
        let mut notes = lock(&self.notes);
        notes.events += 1;
        notes.observations.extend(observation);
        notes.revision = self.place.revision;
        Ok(())
    }
}

/// Cuts whole events apart.
fn events(format: Format, bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end: &[u8] = if format == Format::JsonLines { b"\n" } else { b"\n\n" };
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let at = rest.windows(end.len()).position(|window| window == end)?;
        let (event, others) = rest.split_at(at + end.len());
        rest = others;
        Some(event)
    })
}
