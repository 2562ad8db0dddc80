//! Very many clients that follow keys, in one thread.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections that are opened at a time: no more than what a node accepts in a turn.
const CONNECTS_AT_A_TIME: usize = 50;
/// Files that this program opens for other things.
const DESCRIPTORS_RESERVED: usize = 400;
/// Digits of the time that a value begins and ends with, in microseconds.
const TIME_DIGITS: usize = 16;
/// What stands behind a value in an event.
const EVENT_END: &[u8] = b"\"}\n\n";

/// A client that follows keys.
#[derive(Debug)]
struct Watcher {
    stream: TcpStream,
    /// What may be the beginning of an event.
    rest: Vec<u8>,
    has_head: bool,
    is_closed: bool,
    /// From the moment that a value names to the moment its event was read, in microseconds.
    latencies: Vec<u32>,
}

/// All of them.
#[derive(Debug)]
pub struct Swarm {
    poll: Poll,
    watchers: Vec<Watcher>,
    /// The time that values name counts from here.
    start: Instant,
    /// Comments: everything was sent up to here.
    pub comments: u64,
    buffer: Vec<u8>,
}

/// How many connections this process may open, after it has asked for as many as possible.
pub fn connections_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let current = current.map_or(usize::MAX, |current| usize::try_from(current).unwrap_or(usize::MAX));
    current.saturating_sub(DESCRIPTORS_RESERVED)
}

/// A value that names this moment.
pub fn value_of(start: Instant) -> String {
    format!("{:0TIME_DIGITS$}", start.elapsed().as_micros())
}

impl Swarm {
    /// Opens a stream for each target, one after the other, and waits for their heads.
    pub fn open(address: SocketAddr, targets: &[String], start: Instant) -> std::io::Result<Swarm> {
        let poll = Poll::new()?;
        let mut swarm = Swarm { poll, watchers: Vec::new(), start, comments: 0, buffer: vec![0; 64 << 10] };
        for group in targets.chunks(CONNECTS_AT_A_TIME) {
            for target in group {
                let mut stream = std::net::TcpStream::connect(address)?;
                stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: keva\r\n\r\n").as_bytes())?;
                stream.set_nonblocking(true)?;
                let mut stream = TcpStream::from_std(stream);
                swarm.poll.registry().register(
                    &mut stream,
                    Token(swarm.watchers.len()),
                    Interest::READABLE,
                )?;
                let (rest, latencies) = (Vec::new(), Vec::new());
                swarm.watchers.push(Watcher { stream, rest, has_head: false, is_closed: false, latencies });
            }
            let deadline = Instant::now() + Duration::from_secs(10);
            while swarm.watchers.iter().any(|watcher| !watcher.has_head) {
                swarm.read(Duration::from_millis(100))?;
                if swarm.closed() > 0 || Instant::now() > deadline {
                    return Err(std::io::Error::other("the node does not open all streams; see its log"));
                }
            }
        }
        Ok(swarm)
    }

    /// Takes what comes within this time.
    pub fn read_for(&mut self, duration: Duration) -> std::io::Result<()> {
        let end = Instant::now() + duration;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.read(left)?;
        }
        Ok(())
    }

    fn read(&mut self, at_most: Duration) -> std::io::Result<()> {
        let mut events = Events::with_capacity(1024);
        match self.poll.poll(&mut events, Some(at_most)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in &events {
            let watcher = &mut self.watchers[event.token().0];
            loop {
                match watcher.stream.read(&mut self.buffer) {
                    Ok(0) => watcher.is_closed = true,
                    Ok(count) => {
                        self.comments += watcher.take(&self.buffer[..count], self.start.elapsed());
                        continue;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => watcher.is_closed = true,
                }
                break;
            }
        }
        Ok(())
    }

    /// Forgets which events have come.
    pub fn clear(&mut self) {
        self.watchers.iter_mut().for_each(|watcher| watcher.latencies.clear());
        self.comments = 0;
    }

    /// Streams that the node has ended.
    pub fn closed(&self) -> usize {
        self.watchers.iter().filter(|watcher| watcher.is_closed).count()
    }

    /// The events that have come, by watcher: their latencies, sorted.
    pub fn latencies(&mut self) -> Vec<Vec<u32>> {
        let sorted = |watcher: &mut Watcher| {
            let mut latencies = std::mem::take(&mut watcher.latencies);
            latencies.sort_unstable();
            latencies
        };
        self.watchers.iter_mut().map(sorted).collect()
    }
}

impl Watcher {
    /// Finds the events in these bytes, and the comments, which it counts. What is between them, the sizes of chunks, is
    /// passed over.
    fn take(&mut self, bytes: &[u8], now: Duration) -> u64 {
        self.rest.extend_from_slice(bytes);
        let mut comments = 0;
        let mut place = 0;
        while let Some(at) = find(&self.rest[place..], b"\n\n").map(|at| at + place) {
            let end = at + 2;
            if self.rest[place..end].ends_with(EVENT_END) {
                let digits = end - EVENT_END.len() - TIME_DIGITS..end - EVENT_END.len();
                let sent =
                    self.rest[digits].iter().fold(0, |time, digit| time * 10 + u64::from(digit - b'0'));
                let late = u64::try_from(now.as_micros()).unwrap_or(u64::MAX).saturating_sub(sent);
                self.latencies.push(u32::try_from(late).unwrap_or(u32::MAX));
            } else {
                comments += 1;
            }
            place = end;
        }
        self.has_head |= find(&self.rest, b"\r\n\r\n").is_some() || place > 0;
        self.rest.drain(..place);
        comments
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
