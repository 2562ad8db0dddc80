//! A load generator that leaves the processor to the servers: one thread, one poll, and no more parsing than it takes
//! to find the end of an answer.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// Different requests per connection.
const REQUESTS_PER_CONNECTION: usize = 64;

/// What every request of a run does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// PUT.
    Write,
    /// Linearizable GET of keys that the writes of the same plan have made.
    Read,
    /// GET of what the node has, without asking the others.
    StaleRead,
}

/// Which keys the requests of a run name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keys {
    /// Every connection has some of its own.
    Own,
    /// So many, in turn over all connections.
    Shared(usize),
    /// So many, each once; then the run ends.
    Each(usize),
}

/// A closed loop: every connection sends its next request when it has the answer to the one before.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The nodes; connections are dealt out to them in turn.
    pub nodes: Vec<SocketAddr>,
    /// Connections in total.
    pub connections: usize,
    /// What to ask for.
    pub kind: Kind,
    /// Of what.
    pub keys: Keys,
    /// Length of the values, in bytes.
    pub value_bytes: usize,
    /// How long.
    pub duration: Duration,
}

/// What came out of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How long each answered request took.
    pub latencies: Vec<Duration>,
    /// Answers with another status than 200, by status.
    pub refused: BTreeMap<u16, usize>,
    /// How long the run took.
    pub elapsed: Duration,
}

impl Outcome {
    /// Requests per second.
    pub fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this part of all requests did not exceed.
    pub fn percentile(&self, part: f64) -> Duration {
        percentile(&self.latencies, part)
    }
}

/// The value that this part of all sorted values does not exceed.
pub fn percentile(sorted: &[Duration], part: f64) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((last as f64 * part).round() as usize).copied().unwrap_or_default()
}

struct Connection {
    stream: TcpStream,
    number: usize,
    request: Vec<u8>,
    /// Counts its requests.
    next: usize,
    sent: usize,
    sent_at: Instant,
    received: Vec<u8>,
}

/// Runs the plan to its end.
pub fn run(plan: &Plan) -> std::io::Result<Outcome> {
    let mut poll = Poll::new()?;
    let mut connections = Vec::new();
    for number in 0..plan.connections {
        let address = plan.nodes[number % plan.nodes.len()];
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(number), Interest::READABLE | Interest::WRITABLE)?;
        let Some(request) = build(plan, number, 0) else { continue };
        let received = Vec::with_capacity(16 << 10);
        connections.push(Connection {
            stream,
            number,
            request,
            next: 0,
            sent: 0,
            sent_at: Instant::now(),
            received,
        });
    }
    let mut outcome = Outcome { latencies: Vec::with_capacity(1 << 20), ..Outcome::default() };
    let start = Instant::now();
    for connection in &mut connections {
        connection.sent_at = start;
        connection.send()?;
    }
    let mut events = Events::with_capacity(256);
    let mut running = connections.len();
    while running > 0 {
        match poll.poll(&mut events, Some(Duration::from_secs(10))) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        if events.is_empty() {
            return Err(std::io::Error::new(ErrorKind::TimedOut, "no answer for 10 seconds"));
        }
        for event in &events {
            let connection = &mut connections[event.token().0];
            connection.send()?;
            while connection.receive(&mut outcome)? {
                connection.next += 1;
                match build(plan, connection.number, connection.next) {
                    Some(request) if start.elapsed() < plan.duration => connection.request = request,
                    _ => {
                        running -= 1;
                        break;
                    }
                }
                connection.sent = 0;
                connection.sent_at = Instant::now();
                connection.send()?;
            }
        }
    }
    outcome.elapsed = start.elapsed();
    outcome.latencies.sort_unstable();
    Ok(outcome)
}

/// The request of a connection with this number, counted from 0; `None` when the plan has no more.
fn build(plan: &Plan, connection: usize, request: usize) -> Option<Vec<u8>> {
    let number = request * plan.connections + connection;
    let target = match plan.keys {
        Keys::Own => {
            format!("/v1/storage/key/own/{connection:04}/{:04}", request % REQUESTS_PER_CONNECTION)
        }
        Keys::Shared(keys) => format!("/v1/storage/key/bench/{:08}", number % keys),
        Keys::Each(keys) if number < keys => format!("/v1/storage/key/bench/{number:08}"),
        Keys::Each(_) => return None,
    };
    Some(match plan.kind {
        Kind::Read => format!("GET {target} HTTP/1.1\r\nHost: keva\r\n\r\n").into_bytes(),
        Kind::StaleRead => {
            format!("GET {target}?consistency=stale HTTP/1.1\r\nHost: keva\r\n\r\n").into_bytes()
        }
        Kind::Write => {
            let length = plan.value_bytes;
            let mut bytes =
                format!("PUT {target} HTTP/1.1\r\nHost: keva\r\nContent-Length: {length}\r\n\r\n")
                    .into_bytes();
            bytes.resize(bytes.len() + length, b'v');
            bytes
        }
    })
}

impl Connection {
    fn send(&mut self) -> std::io::Result<()> {
        let request = &self.request;
        while self.sent < request.len() {
            match self.stream.write(&request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// True when the answer is complete, and counted.
    fn receive(&mut self, outcome: &mut Outcome) -> std::io::Result<bool> {
        loop {
            if let Some((status, length)) = complete(&self.received) {
                self.received.drain(..length);
                if status == 200 {
                    outcome.latencies.push(self.sent_at.elapsed());
                } else {
                    *outcome.refused.entry(status).or_default() += 1;
                }
                return Ok(true);
            }
            let mut buffer = [0; 16 << 10];
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    return Err(std::io::Error::new(
                        ErrorKind::UnexpectedEof,
                        "the node closed a connection",
                    ));
                }
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The status and the length of the answer at the front of these bytes, if all of it is there.
fn complete(bytes: &[u8]) -> Option<(u16, usize)> {
    const LENGTH: &[u8] = b"\r\ncontent-length: ";
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let status = std::str::from_utf8(bytes.get(9..12)?).ok()?.parse().ok()?;
    let field = bytes[..head]
        .windows(LENGTH.len())
        .position(|window| window.eq_ignore_ascii_case(LENGTH))
        .map(|at| {
            let digits = bytes[at + LENGTH.len()..head].iter().take_while(|byte| byte.is_ascii_digit());
            digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0'))
        });
    let length = head + field.unwrap_or(0);
    (bytes.len() >= length).then_some((status, length))
}
