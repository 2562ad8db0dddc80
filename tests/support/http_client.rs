//! A small blocking HTTP/1.1 client that knows what a failure says about the request.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::http_message::{Answer, AnswerParser};

/// How long a connection may take to come up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why there is no answer.
#[derive(Debug)]
pub enum Failure {
    /// No byte of the request was sent: it surely has no effect.
    NotSent(io::Error),
    /// The request, or a part of it, was sent, and the connection was lost or stayed silent: its effect is unknown.
    Unknown(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotSent(error) => write!(f, "not sent: {error}"),
            Failure::Unknown(error) => write!(f, "sent, and no answer: {error}"),
        }
    }
}

/// A request as it goes over the wire.
#[derive(Clone, Debug)]
pub struct Request {
    bytes: Vec<u8>,
    is_head: bool,
}

impl Request {
    /// A request with these header fields. A body is framed by its length.
    pub fn new(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Request {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\nHost: keva\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if !body.is_empty() || matches!(method, "PUT" | "POST") {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        Request { bytes, is_head: method == "HEAD" }
    }

    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// A client of one node. Keeps its connection and opens a new one when it is gone.
#[derive(Debug)]
pub struct HttpClient {
    address: SocketAddr,
    timeout: Duration,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl HttpClient {
    /// A client that connects when it is first used, and waits 10 seconds for an answer.
    pub fn new(address: SocketAddr) -> HttpClient {
        HttpClient { address, timeout: Duration::from_secs(10), connection: None }
    }

    /// Waits this long for an answer.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> HttpClient {
        self.timeout = timeout;
        self
    }

    /// The node's address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the connection.
    pub fn close(&mut self) {
        self.connection = None;
    }

    /// Sends a request that is put together here and waits for its answer.
    pub fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, Failure> {
        self.send(&Request::new(method, target, headers, body))
    }

    /// Sends a request and waits for its answer.
    pub fn send(&mut self, request: &Request) -> Result<Answer, Failure> {
        self.start(request)?;
        self.finish(request)
    }

    /// Sends a request without waiting. [`HttpClient::finish`] must follow.
    pub fn start(&mut self, request: &Request) -> Result<(), Failure> {
        let mut connection = match self.connection.take().filter(Connection::is_usable) {
            Some(connection) => connection,
            None => Connection::open(self.address).map_err(Failure::NotSent)?,
        };
        connection.stream.set_write_timeout(Some(self.timeout)).map_err(Failure::NotSent)?;
        connection.stream.write_all(&request.bytes).map_err(Failure::Unknown)?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Waits for the answer to a request that was sent with [`HttpClient::start`].
    pub fn finish(&mut self, request: &Request) -> Result<Answer, Failure> {
        let mut connection = self.connection.take().expect("start comes before finish");
        let deadline = Instant::now() + self.timeout;
        let answer = connection.receive(request.is_head, deadline).map_err(Failure::Unknown)?;
        if !answer.is_last() {
            self.connection = Some(connection);
        }
        Ok(answer)
    }
}

impl Connection {
    fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        Ok(Connection { stream, received: Vec::new() })
    }

    /// Whether the node has kept its end open and silent. A connection that was closed while it was idle must not be
    /// taken for one that was lost after the request.
    fn is_usable(&self) -> bool {
        if !self.received.is_empty() || self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        let silent =
            matches!(self.stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        silent && self.stream.set_nonblocking(false).is_ok()
    }

    fn receive(&mut self, is_head: bool, deadline: Instant) -> io::Result<Answer> {
        let mut parser = AnswerParser::new(is_head);
        let mut buffer = vec![0; 64 << 10];
        loop {
            if let Some(answer) = parser.parse(&mut self.received)? {
                return Ok(answer);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(ErrorKind::TimedOut, "no answer in time"));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return parser.parse_end(&mut self.received),
                Ok(count) => self.received.extend_from_slice(&buffer[..count]),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
