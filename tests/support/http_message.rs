//! HTTP answers as a client sees them, and their parser.

use std::io::{self, ErrorKind};

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The header fields in their order.
    pub headers: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
    is_http_1_0: bool,
}

impl Answer {
    /// The first field with this name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `Keva-Revision`: the Raft index that the answer reflects.
    pub fn revision(&self) -> Option<u64> {
        self.header("Keva-Revision")?.parse().ok()
    }

    /// `ETag`: the Raft index of the write that gave the key its value.
    pub fn etag(&self) -> Option<u64> {
        self.header("ETag")?.trim_start_matches("W/").strip_prefix('"')?.strip_suffix('"')?.parse().ok()
    }

    /// Whether the connection ends behind this answer.
    pub fn is_last(&self) -> bool {
        let says = |word: &str| {
            self.header("Connection")
                .is_some_and(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(word)))
        };
        says("close") || (self.is_http_1_0 && !says("keep-alive"))
    }
}

/// Reads answers out of a stream of bytes.
#[derive(Debug)]
pub struct AnswerParser {
    is_head: bool,
}

enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
}

impl AnswerParser {
    /// A parser for the answer to one request. Answers to `HEAD` have no body, whatever their header fields say.
    pub fn new(is_head: bool) -> AnswerParser {
        AnswerParser { is_head }
    }

    /// Takes one complete answer from the front of `bytes`, `None` when there is none yet. 100 is skipped.
    pub fn parse(&mut self, bytes: &mut Vec<u8>) -> io::Result<Option<Answer>> {
        loop {
            let Some((mut answer, head_length, framing)) = self.parse_head(bytes)? else {
                return Ok(None);
            };
            if answer.status == 100 {
                bytes.drain(..head_length);
                continue;
            }
            let length = match framing {
                Framing::UntilClose => return Ok(None),
                Framing::Length(length) => {
                    if bytes.len() < head_length + length {
                        return Ok(None);
                    }
                    answer.body = bytes[head_length..head_length + length].to_vec();
                    length
                }
                Framing::Chunked => match parse_chunks(&bytes[head_length..], &mut answer.body)? {
                    None => return Ok(None),
                    Some(length) => length,
                },
            };
            bytes.drain(..head_length + length);
            return Ok(Some(answer));
        }
    }

    /// The node has closed the connection: the last answer, if its body ends that way.
    pub fn parse_end(&mut self, bytes: &mut Vec<u8>) -> io::Result<Answer> {
        if let Some((mut answer, head_length, Framing::UntilClose)) = self.parse_head(bytes)? {
            answer.body = bytes[head_length..].to_vec();
            bytes.clear();
            return Ok(answer);
        }
        let how_much = if bytes.is_empty() { "before the answer" } else { "in the middle of the answer" };
        Err(io::Error::new(ErrorKind::UnexpectedEof, format!("connection closed {how_much}")))
    }

    fn parse_head(&self, bytes: &[u8]) -> io::Result<Option<(Answer, usize, Framing)>> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut fields);
        let length = match head.parse(bytes).map_err(malformed)? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete(length) => length,
        };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let answer = Answer {
            status: head.code.expect("a complete head has a status"),
            headers: head.headers.iter().map(|field| (field.name.to_owned(), text(field.value))).collect(),
            body: Vec::new(),
            is_http_1_0: head.version == Some(0),
        };
        let framing = self.framing(&answer)?;
        Ok(Some((answer, length, framing)))
    }

    /// RFC 9112, section 6.3.
    fn framing(&self, answer: &Answer) -> io::Result<Framing> {
        if self.is_head || answer.status < 200 || matches!(answer.status, 204 | 304) {
            return Ok(Framing::Length(0));
        }
        if answer.header("Transfer-Encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Ok(Framing::Chunked);
        }
        match answer.header("Content-Length") {
            None => Ok(Framing::UntilClose),
            Some(length) => Ok(Framing::Length(length.parse().map_err(malformed)?)),
        }
    }
}

/// Takes a chunked body apart. Returns how many bytes it had, framing included, or `None` when it is not complete.
fn parse_chunks(bytes: &[u8], body: &mut Vec<u8>) -> io::Result<Option<usize>> {
    let mut position = 0;
    loop {
        let (digits, size) = match httparse::parse_chunk_size(&bytes[position..]) {
            Ok(httparse::Status::Complete(parsed)) => parsed,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(malformed("bad chunk size")),
        };
        let size = usize::try_from(size).map_err(malformed)?;
        let start = position + digits;
        let end = start + size;
        if bytes.len() < end + 2 {
            return Ok(None);
        }
        if &bytes[end..end + 2] != b"\r\n" {
            return Err(malformed("no line end behind a chunk"));
        }
        body.extend_from_slice(&bytes[start..end]);
        position = end + 2;
        if size == 0 {
            return Ok(Some(position));
        }
    }
}

fn malformed(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("malformed answer: {error}"))
}
