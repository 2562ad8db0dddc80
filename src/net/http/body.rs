//! The body of a request: where it ends, and its bytes without the chunked coding (RFC 9112, sections 6 and 7.1).

use crate::limits::{CHUNK_EXTENSION_BYTES_MAX, CHUNK_LINE_BYTES_MAX, TRAILER_BYTES_MAX};
use crate::net::http::framing::BodyLength;
use crate::net::http::head::{is_token_byte, malformed};
use crate::net::http::problem::Problem;
use crate::net::http::status::Status;

/// Memory taken for a body before its bytes come, in bytes: a client that only announces much must not cost much.
const RESERVE_BYTES: usize = 16 << 10;

/// Takes the bytes of one body out of the input.
#[derive(Debug)]
pub struct BodyDecoder {
    state: State,
    /// Longest body, in bytes.
    limit: u64,
    /// Bytes of the body so far, announced ones of the current chunk included.
    total: u64,
    extension_bytes: usize,
    trailer_bytes: usize,
    /// Whether to keep the bytes, or only to find the end.
    keeps: bool,
    bytes: Vec<u8>,
}

/// Where in the body the decoder is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// This many bytes of a body with a known length are missing.
    Plain(u64),
    /// In the digits of a chunk's size; the length of the line so far.
    Size {
        size: u64,
        digits: usize,
    },
    /// In the white space between a chunk's size and its extensions.
    SizeSpace {
        size: u64,
        line: usize,
    },
    /// In a chunk's extensions.
    Extension {
        size: u64,
        line: usize,
    },
    /// Behind the CR of a chunk's size.
    SizeLf {
        size: u64,
    },
    /// This many bytes of a chunk are missing.
    Data(u64),
    /// Behind a chunk's bytes.
    DataCr,
    DataLf,
    /// At the beginning of a trailer, or of the empty line that ends the body.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    /// Behind the CR of the empty line.
    EndLf,
    Done,
}

impl BodyDecoder {
    /// A decoder for a body of at most `limit` bytes; `keeps` says whether the bytes are wanted.
    ///
    /// # Errors
    /// The announced length is above the limit.
    pub fn new(length: BodyLength, limit: usize, keeps: bool) -> Result<BodyDecoder, Problem> {
        let limit = limit as u64;
        let (state, total) = match length {
            BodyLength::None | BodyLength::Bytes(0) => (State::Done, 0),
            BodyLength::Bytes(count) if count > limit => return Err(too_large(limit)),
            BodyLength::Bytes(count) => (State::Plain(count), count),
            BodyLength::Chunked => (State::Size { size: 0, digits: 0 }, 0),
        };
        let bytes = Vec::new();
        Ok(BodyDecoder { state, limit, total, extension_bytes: 0, trailer_bytes: 0, keeps, bytes })
    }

    /// Whether the end was found.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.state == State::Done
    }

    /// Memory held for the body, in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The body's bytes, if they were to be kept.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes bytes from the front of `input` and says how many; the rest belongs to the next request.
    ///
    /// # Errors
    /// The body is malformed or too large. The connection must be closed.
    pub fn decode(&mut self, input: &[u8]) -> Result<usize, Problem> {
        let mut used = 0;
        while used < input.len() && self.state != State::Done {
            used += match self.state {
                State::Plain(left) => {
                    let count = self.take(&input[used..], left);
                    let left = left - count as u64;
                    self.state = if left == 0 { State::Done } else { State::Plain(left) };
                    count
                }
                State::Data(left) => {
                    let count = self.take(&input[used..], left);
                    let left = left - count as u64;
                    self.state = if left == 0 { State::DataCr } else { State::Data(left) };
                    count
                }
                _ => {
                    self.state = self.step(input[used])?;
                    1
                }
            };
        }
        Ok(used)
    }

    /// Takes up to `left` bytes of content.
    fn take(&mut self, input: &[u8], left: u64) -> usize {
        let count = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        if self.keeps {
            self.reserve(count);
            self.bytes.extend_from_slice(&input[..count]);
        }
        count
    }

    /// Doubles, but never beyond what was announced.
    fn reserve(&mut self, count: usize) {
        let needed = self.bytes.len() + count;
        if needed > self.bytes.capacity() {
            let announced = usize::try_from(self.total).unwrap_or(usize::MAX);
            let wanted = announced.min((2 * self.bytes.capacity()).max(RESERVE_BYTES)).max(needed);
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
    }

    /// One byte of the chunked coding.
    fn step(&mut self, byte: u8) -> Result<State, Problem> {
        match self.state {
            State::Size { size, digits } => self.step_size(byte, size, digits),
            State::SizeSpace { size, line } => match byte {
                b';' => self.extension(size, line),
                b' ' | b'\t' => self.check_line(line).map(|line| State::SizeSpace { size, line }),
                _ => Err(malformed("the size of a chunk is not a hexadecimal number")),
            },
            State::Extension { size, line } => match byte {
                b'\r' => Ok(State::SizeLf { size }),
                b'\t' | b' '..=b'~' | 0x80.. => self.extension(size, line),
                _ => Err(malformed("a chunk's extension contains a control character or ends with LF alone")),
            },
            State::SizeLf { size } => {
                expect_lf(byte)?;
                self.begin_chunk(size)
            }
            State::DataCr if byte == b'\r' => Ok(State::DataLf),
            State::DataCr => Err(malformed("a chunk is longer than its size says")),
            State::DataLf => expect_lf(byte).map(|()| State::Size { size: 0, digits: 0 }),
            State::TrailerStart | State::TrailerName | State::TrailerValue | State::TrailerLf => {
                self.step_trailer(byte)
            }
            State::EndLf => expect_lf(byte).map(|()| State::Done),
            State::Plain(_) | State::Data(_) | State::Done => {
                unreachable!("content is not decoded byte by byte")
            }
        }
    }

    fn step_size(&mut self, byte: u8, size: u64, digits: usize) -> Result<State, Problem> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\r' if digits > 0 => return Ok(State::SizeLf { size }),
            b';' if digits > 0 => return self.extension(size, digits),
            b' ' | b'\t' if digits > 0 => return Ok(State::SizeSpace { size, line: digits + 1 }),
            _ => return Err(malformed("the size of a chunk is not a hexadecimal number")),
        };
        // Sixteen digits are 64 bits: the shift below loses nothing.
        if digits == 16 {
            return Err(malformed("the size of a chunk has more than 16 digits"));
        }
        Ok(State::Size { size: (size << 4) | u64::from(digit), digits: digits + 1 })
    }

    fn extension(&mut self, size: u64, line: usize) -> Result<State, Problem> {
        self.extension_bytes += 1;
        if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX {
            return Err(malformed(format!(
                "the body has more than {CHUNK_EXTENSION_BYTES_MAX} bytes of extensions"
            )));
        }
        self.check_line(line).map(|line| State::Extension { size, line })
    }

    fn check_line(&self, line: usize) -> Result<usize, Problem> {
        if line == CHUNK_LINE_BYTES_MAX {
            return Err(malformed(format!(
                "the line before a chunk is longer than {CHUNK_LINE_BYTES_MAX} bytes"
            )));
        }
        Ok(line + 1)
    }

    fn begin_chunk(&mut self, size: u64) -> Result<State, Problem> {
        if size == 0 {
            return Ok(State::TrailerStart);
        }
        // At most `limit` so far, so the difference cannot be negative.
        if size > self.limit - self.total {
            return Err(too_large(self.limit));
        }
        self.total += size;
        Ok(State::Data(size))
    }

    /// Trailers are checked like headers and thrown away.
    fn step_trailer(&mut self, byte: u8) -> Result<State, Problem> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            let detail = format!("the body's trailers are longer than {TRAILER_BYTES_MAX} bytes");
            return Err(Problem::new(Status::RequestHeaderFieldsTooLarge, "headers-too-large", detail));
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::TrailerStart | State::TrailerName, byte) if is_token_byte(byte) => Ok(State::TrailerName),
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            (State::TrailerLf, byte) => expect_lf(byte).map(|()| State::TrailerStart),
            _ => Err(malformed("a trailer after the body is malformed")),
        }
    }
}

fn expect_lf(byte: u8) -> Result<(), Problem> {
    if byte == b'\n' { Ok(()) } else { Err(malformed("a CR in the chunked body is not followed by LF")) }
}

fn too_large(limit: u64) -> Problem {
    Problem::new(
        Status::ContentTooLarge,
        "value-too-large",
        format!("the body is longer than {limit} bytes, the most that this server takes"),
    )
}
