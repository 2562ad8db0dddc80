//! The answer to a watch, as it comes.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use keva::net::watch::Format;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the head of the answer may take.
const HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a read waits.
const READ_TIMEOUT: Duration = Duration::from_millis(100);
/// A socket that takes no more than this while its owner sleeps.
const SMALL_BUFFER_BYTES: usize = 32 << 10;

/// A node's refusal of a watch.
#[derive(Debug)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// The head, and what was there of the body.
    pub text: String,
}

/// A connection that a stream of events comes from.
#[derive(Debug)]
pub struct Stream {
    socket: TcpStream,
    format: Format,
    /// Bytes of the connection that were not looked at.
    raw: Vec<u8>,
    /// Bytes of the present chunk that are still to come, with its line end.
    chunk_left: usize,
    /// Bytes of the body without the end of their event.
    body: Vec<u8>,
    /// The last chunk was there.
    has_ended: bool,
}

impl Stream {
    /// Asks for a stream. `Ok(Err(_))`: the node refuses it.
    pub fn open(
        address: SocketAddr,
        target: &str,
        headers: &str,
        format: Format,
        is_small: bool,
    ) -> std::io::Result<Result<Stream, Refusal>> {
        let mut socket = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
        if is_small {
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SMALL_BUFFER_BYTES)?;
        }
        socket.set_write_timeout(Some(CONNECT_TIMEOUT))?;
        socket.set_read_timeout(Some(READ_TIMEOUT))?;
        let accept = format.content_type();
        let request = format!("GET {target} HTTP/1.1\r\nHost: keva\r\nAccept: {accept}\r\n{headers}\r\n");
        socket.write_all(request.as_bytes())?;
        let (raw, chunk_left, body) = (Vec::new(), 0, Vec::new());
        Stream { socket, format, raw, chunk_left, body, has_ended: false }.read_head()
    }

    fn read_head(mut self) -> std::io::Result<Result<Stream, Refusal>> {
        let deadline = Instant::now() + HEAD_TIMEOUT;
        let length = loop {
            if let Some(at) = self.raw.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            match self.receive() {
                Err(error) if is_timeout(&error) && Instant::now() < deadline => {}
                other => other?,
            }
        };
        let head = String::from_utf8_lossy(&self.raw[..length]).into_owned();
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        if status != 200 {
            let text = String::from_utf8_lossy(&self.raw).into_owned();
            return Ok(Err(Refusal { status, text }));
        }
        let says = |line: &str| head.to_ascii_lowercase().contains(line);
        assert!(says("\r\ntransfer-encoding: chunked\r\n"), "a stream has no length: {head}");
        assert!(says(&format!("\r\ncontent-type: {}\r\n", self.format.content_type())), "{head}");
        self.raw.drain(..length);
        Ok(Ok(self))
    }

    fn receive(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 32 << 10];
        match self.socket.read(&mut buffer)? {
            0 => Err(Error::new(ErrorKind::UnexpectedEof, "the connection has ended")),
            count => {
                self.raw.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }

    /// The next bytes of the stream, cut behind the last whole event of them. Empty when nothing comes for some time.
    pub fn read(&mut self) -> std::io::Result<Vec<u8>> {
        if self.has_ended {
            return Err(Error::new(ErrorKind::UnexpectedEof, "the stream has ended"));
        }
        match self.receive() {
            Err(error) if is_timeout(&error) => {}
            other => other?,
        }
        self.unwrap_chunks()?;
        let end: &[u8] = if self.format == Format::JsonLines { b"\n" } else { b"\n\n" };
        let last = self.body.windows(end.len()).rposition(|window| window == end);
        Ok(last.map_or_else(Vec::new, |at| self.body.drain(..at + end.len()).collect()))
    }

    /// RFC 9112, section 7.1.
    fn unwrap_chunks(&mut self) -> std::io::Result<()> {
        let mut at = 0;
        loop {
            let rest = &self.raw[at..];
            if self.chunk_left > 0 {
                let count = rest.len().min(self.chunk_left);
                // The last two bytes are its line end.
                let content = count.min(self.chunk_left.saturating_sub(2));
                self.body.extend_from_slice(&rest[..content]);
                self.chunk_left -= count;
                at += count;
                if self.chunk_left > 0 {
                    break;
                }
                continue;
            }
            let Some(length) = rest.windows(2).position(|window| window == b"\r\n") else { break };
            let size = std::str::from_utf8(&rest[..length]).ok();
            let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
            let size = size.ok_or_else(|| Error::new(ErrorKind::InvalidData, "no size of a chunk"))?;
            at += length + 2;
            if size == 0 {
                self.has_ended = true;
                break;
            }
            self.chunk_left = size + 2;
        }
        self.raw.drain(..at);
        Ok(())
    }
}

fn is_timeout(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
