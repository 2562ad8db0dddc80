//! One socket to or from a peer, with its buffers.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use mio::net::TcpStream;

use crate::limits::{PEER_SETTLED_MS, PEER_SILENCE_MS_MAX};
use crate::net::buffer::Buffer;
use crate::net::frame::{FrameDecoder, FrameError, encode_frame};
use crate::net::metrics::Traffic;
use crate::net::peer::greeting::{Greeting, GreetingError};
use crate::raft::message::Envelope;
use crate::raft::types::{Life, NodeId};
use crate::util::time::Millis;

/// Which side began a link. Messages travel from the side that dialled to the side that accepted, never back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    /// This node dialled that peer.
    Outgoing(NodeId),
    /// Somebody dialled this node.
    Incoming,
}

/// How far a link is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// The system is still establishing the connection.
    Connecting,
    /// The other side's greeting is awaited.
    Greeting,
    /// Greeted by this peer's process.
    Up(NodeId, Life),
}

/// Why a link ends.
#[derive(Debug)]
pub(super) enum LinkError {
    /// The other side closed it.
    Closed,
    /// The system reports an error.
    Io(io::Error),
    /// The other side does not speak this protocol.
    Greeting(GreetingError),
    /// The other side sends nonsense.
    Frame(FrameError),
    /// The other side does not want this node, for the reason it gives.
    Refused(String),
    /// This node does not want the other side.
    Unwanted(String),
    /// The greeting did not come in time.
    Timeout,
    /// The peer takes messages more slowly than they come.
    Overflow,
    /// The peer has begun a newer link, or a later process of it has.
    Replaced,
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Closed => f.write_str("the other side closed the link"),
            LinkError::Io(error) => error.fmt(f),
            LinkError::Greeting(error) => error.fmt(f),
            LinkError::Frame(error) => error.fmt(f),
            LinkError::Refused(reason) => write!(f, "refused by the other side: {reason}"),
            LinkError::Unwanted(reason) => f.write_str(reason),
            LinkError::Timeout => f.write_str("no greeting in time"),
            LinkError::Overflow => f.write_str("too much waits to be sent"),
            LinkError::Replaced => f.write_str("a newer link or process has taken its place"),
        }
    }
}

impl LinkError {
    /// Nobody listens there: on a host that is up, the process is not running.
    pub(super) fn is_connection_refused(&self) -> bool {
        matches!(self, LinkError::Io(error) if error.kind() == ErrorKind::ConnectionRefused)
    }

    /// Trying again soon is pointless: somebody has to change a configuration first.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, LinkError::Refused(_) | LinkError::Unwanted(_) | LinkError::Greeting(_))
    }
}

/// What stopped a read.
pub(super) enum ReadEnd {
    /// The socket is empty.
    Empty,
    /// The budget is used up; there may be more.
    Budget,
    /// The link is over, behind what was read.
    Over(LinkError),
}

/// A socket to or from a peer.
#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) direction: Direction,
    pub(super) stage: Stage,
    /// When the greeting must be there.
    pub(super) greet_by: Millis,
    /// When it was greeted.
    up_since: Option<Millis>,
    /// Received and not yet a greeting.
    greeting: Buffer,
    decoder: FrameDecoder,
    output: Buffer,
    /// The socket may have more to read: edge-triggered events are told only once.
    pub(super) is_readable: bool,
    /// The socket may take more.
    is_writable: bool,
    /// Given up: no more is read or written, and the socket is closed at the end of the turn.
    pub(super) is_closing: bool,
    /// Of all links.
    traffic: Rc<Traffic>,
}

impl Link {
    pub(super) fn new(
        stream: TcpStream,
        remote: SocketAddr,
        direction: Direction,
        greet_by: Millis,
        traffic: Rc<Traffic>,
    ) -> Link {
        let is_connected = direction == Direction::Incoming;
        Link {
            stream,
            remote,
            direction,
            stage: if is_connected { Stage::Greeting } else { Stage::Connecting },
            greet_by,
            up_since: None,
            greeting: Buffer::new(),
            decoder: FrameDecoder::default(),
            output: Buffer::new(),
            is_readable: false,
            is_writable: is_connected,
            is_closing: false,
            traffic,
        }
    }

    /// Whether the link still has to be greeted.
    pub(super) fn awaits_greeting(&self) -> bool {
        !self.is_closing && !matches!(self.stage, Stage::Up(..))
    }

    /// Whether the link has stood for so long that its end is an event and no symptom.
    pub(super) fn is_settled(&self, now: Millis) -> bool {
        self.up_since.is_some_and(|since| now - since >= PEER_SETTLED_MS)
    }

    pub(super) fn stream_mut(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Small messages leave at once, and a host that vanished without a word is noticed: by bytes that nobody
    /// acknowledges on the sending side, by unanswered probes on the receiving one.
    pub(super) fn set_socket_options(&self) -> io::Result<()> {
        let silence = Duration::from_millis(PEER_SILENCE_MS_MAX);
        self.stream.set_nodelay(true)?;
        rustix::net::sockopt::set_socket_keepalive(&self.stream, true)?;
        rustix::net::sockopt::set_tcp_keepidle(&self.stream, silence / 2)?;
        rustix::net::sockopt::set_tcp_keepintvl(&self.stream, Duration::from_secs(1))?;
        rustix::net::sockopt::set_tcp_keepcnt(&self.stream, 5)?;
        rustix::net::sockopt::set_tcp_user_timeout(&self.stream, PEER_SILENCE_MS_MAX as u32)?;
        Ok(())
    }

    /// The socket reported that it can be written, or an error. Says whether a connection that was being established
    /// stands.
    pub(super) fn handle_writable(&mut self) -> Result<(), LinkError> {
        if let Some(error) = self.stream.take_error().map_err(LinkError::Io)? {
            return Err(LinkError::Io(error));
        }
        if self.stage == Stage::Connecting {
            match self.stream.peer_addr() {
                Ok(_) => self.stage = Stage::Greeting,
                Err(error) if error.kind() == ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(LinkError::Io(error)),
            }
        }
        self.is_writable = true;
        Ok(())
    }

    /// Reads up to about `budget` bytes.
    pub(super) fn read(&mut self, scratch: &mut [u8], budget: usize) -> ReadEnd {
        let mut total = 0;
        loop {
            if total >= budget {
                return ReadEnd::Budget;
            }
            match self.stream.read(scratch) {
                Ok(0) => return ReadEnd::Over(LinkError::Closed),
                Ok(count) => {
                    self.traffic.add_received(count);
                    self.push(&scratch[..count]);
                    total += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_readable = false;
                    return ReadEnd::Empty;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return ReadEnd::Over(LinkError::Io(error)),
            }
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        match self.stage {
            Stage::Connecting | Stage::Greeting => self.greeting.extend(bytes),
            Stage::Up(..) => self.decoder.push(bytes),
        }
    }

    /// The other side's greeting, once it is there.
    pub(super) fn take_greeting(&mut self) -> Result<Option<Greeting>, LinkError> {
        let decoded = Greeting::decode(self.greeting.as_slice()).map_err(LinkError::Greeting)?;
        let Some((greeting, len)) = decoded else { return Ok(None) };
        self.greeting.consume(len);
        Ok(Some(greeting))
    }

    /// The greeting was accepted. Bytes behind it are the first frames.
    pub(super) fn handle_greeted(&mut self, now: Millis, peer: NodeId, life: Life) {
        self.up_since = Some(now);
        self.stage = Stage::Up(peer, life);
        self.decoder.push(self.greeting.as_slice());
        self.greeting.clear();
    }

    /// The next whole message from the peer.
    pub(super) fn take_envelope(&mut self) -> Result<Option<Envelope>, LinkError> {
        self.decoder.next().map_err(LinkError::Frame)
    }

    /// Whether bytes came behind the greeting that were not asked for, or a message was cut off.
    pub(super) fn has_leftover(&self) -> bool {
        self.decoder.is_mid_frame()
    }

    pub(super) fn send_greeting(&mut self, greeting: &Greeting) {
        greeting.encode(self.output.tail());
    }

    pub(super) fn send_frame(&mut self, envelope: &Envelope) {
        encode_frame(envelope, self.output.tail());
    }

    /// Bytes that wait for the socket.
    pub(super) fn output_bytes(&self) -> usize {
        self.output.len()
    }

    /// Gives the socket what it takes.
    pub(super) fn flush(&mut self) -> Result<(), LinkError> {
        while self.is_writable && !self.output.is_empty() {
            match self.stream.write(self.output.as_slice()) {
                Ok(0) => return Err(LinkError::Closed),
                Ok(count) => {
                    self.traffic.add_sent(count);
                    self.output.consume(count);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_writable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(LinkError::Io(error)),
            }
        }
        Ok(())
    }
}
