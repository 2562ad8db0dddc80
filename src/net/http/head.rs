//! The head of a request: finding its end in a stream of bytes, and taking it apart (RFC 9112, sections 2 to 5).

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::limits::{
    REQUEST_BLANK_LINES_MAX, REQUEST_HEAD_BYTES_MAX, REQUEST_HEADERS_MAX, REQUEST_LINE_BYTES_MAX,
};
use crate::net::http::problem::Problem;
use crate::net::http::status::Status;

/// The first byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// Finds the end of a head. Every byte is looked at once, however the bytes are cut into pieces, and every error is
/// found at a fixed position, so that the same bytes always give the same answer.
#[derive(Debug, Default)]
pub struct HeadScanner {
    /// Where the request line begins: behind the empty lines that a client may send before it.
    start: usize,
    /// Where the current line begins.
    line_start: usize,
    /// Everything before was looked at.
    scanned: usize,
    blank_lines: usize,
}

/// Room for the headers of one request.
pub type HeaderRoom<'b> = [MaybeUninit<httparse::Header<'b>>; REQUEST_HEADERS_MAX];

/// A head taken apart, borrowed from the input.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    /// The method as sent. Methods are case-sensitive.
    pub method: &'b str,
    /// The request target as sent.
    pub target: &'b str,
    /// HTTP/1.0. Otherwise HTTP/1.1.
    pub is_http_10: bool,
    /// The header lines in order, values without surrounding white space.
    pub headers: &'h [httparse::Header<'b>],
}

impl HeadScanner {
    /// Goes on where it stopped. `input` must begin with the bytes of the calls before. Gives the position of the head
    /// when it is complete, up to and with its empty line.
    ///
    /// # Errors
    /// When the bytes cannot become a head, or it is too long.
    pub fn scan(&mut self, input: &[u8]) -> Result<Option<Range<usize>>, Problem> {
        check_first_byte(&input[self.start.min(input.len())..])?;
        loop {
            let limit = input.len().min(self.start + REQUEST_HEAD_BYTES_MAX);
            let Some(offset) = input[self.scanned..limit].iter().position(|byte| *byte == b'\n') else {
                self.scanned = limit;
                return self.check_length(limit).map(|()| None);
            };
            let end = self.scanned + offset;
            self.check_length(end)?;
            if end == self.line_start || input[end - 1] != b'\r' {
                return Err(malformed(
                    "a line of the request's head ends with LF alone; lines end with CR LF",
                ));
            }
            let line = self.line_start..end - 1;
            self.line_start = end + 1;
            self.scanned = end + 1;
            if line.start > self.start {
                if line.is_empty() {
                    return Ok(Some(self.start..end + 1));
                }
            } else if line.is_empty() {
                self.blank_lines += 1;
                if self.blank_lines > REQUEST_BLANK_LINES_MAX {
                    return Err(malformed("there are too many empty lines before the request line"));
                }
                self.start = end + 1;
                check_first_byte(&input[self.start..])?;
            } else {
                check_version(&input[line])?;
            }
        }
    }

    /// How many bytes of empty lines lie before the head.
    #[must_use]
    pub fn skipped(&self) -> usize {
        self.start
    }

    fn check_length(&self, end: usize) -> Result<(), Problem> {
        let length = end - self.start;
        if self.line_start == self.start && length > REQUEST_LINE_BYTES_MAX + "\r".len() {
            let detail = format!("the request line is longer than {REQUEST_LINE_BYTES_MAX} bytes");
            return Err(Problem::new(Status::UriTooLong, "uri-too-long", detail));
        }
        if length >= REQUEST_HEAD_BYTES_MAX {
            let detail = format!("the request's headers are longer than {REQUEST_HEAD_BYTES_MAX} bytes");
            return Err(Problem::new(Status::RequestHeaderFieldsTooLarge, "headers-too-large", detail));
        }
        Ok(())
    }
}

/// A request begins with a method, so much can be told from one byte. That matters when no line end ever comes.
fn check_first_byte(rest: &[u8]) -> Result<(), Problem> {
    match rest.first() {
        None | Some(b'\r' | b'\n') => Ok(()),
        Some(byte) if is_token_byte(*byte) => Ok(()),
        Some(&TLS_HANDSHAKE) => Err(Problem::bad_request(
            "tls-not-supported",
            "this port speaks plain HTTP, not TLS; use http:// instead of https://",
        )),
        Some(_) => Err(malformed("this is not an HTTP request")),
    }
}

/// Looks at the end of the request line as soon as it is there: neither an HTTP/0.9 request nor the preface of
/// HTTP/2 is followed by headers.
fn check_version(line: &[u8]) -> Result<(), Problem> {
    let version = line.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    if version == b"HTTP/1.1" || version == b"HTTP/1.0" {
        return Ok(());
    }
    let is_version = matches!(version, [b'H', b'T', b'T', b'P', b'/', rest @ ..]
        if rest.first().is_some_and(u8::is_ascii_digit));
    if is_version {
        let detail = "this server speaks HTTP/1.1 and HTTP/1.0 only; with curl use --http1.1";
        return Err(Problem::new(Status::HttpVersionNotSupported, "http-version", detail));
    }
    Err(malformed("the request line does not end with HTTP/1.1 or HTTP/1.0"))
}

impl<'h, 'b> RequestHead<'h, 'b> {
    /// Takes a complete head apart.
    ///
    /// # Errors
    /// When it is malformed or has too many headers.
    pub fn parse(bytes: &'b [u8], room: &'h mut HeaderRoom<'b>) -> Result<RequestHead<'h, 'b>, Problem> {
        let mut request = httparse::Request::new(&mut []);
        match request.parse_with_uninit_headers(bytes, room) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(malformed("the request's head is incomplete")),
            Err(error) => return Err(explain(error)),
        }
        let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
        else {
            return Err(malformed("the request line is incomplete"));
        };
        Ok(RequestHead { method, target, is_http_10: minor == 0, headers: request.headers })
    }

    /// The values of all header lines with this name, which must be in lower case.
    pub fn values(&self, name: &'static str) -> impl Iterator<Item = &'b [u8]> {
        self.headers
            .iter()
            .filter(move |header| header.name.eq_ignore_ascii_case(name))
            .map(|header| header.value)
    }

    /// The members of a comma-separated list that may be spread over several lines, without empty members
    /// (RFC 9110, section 5.6.1). Not for lists with quoted strings.
    pub fn members(&self, name: &'static str) -> impl Iterator<Item = &'b [u8]> {
        self.values(name)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty())
    }

    /// The value of a header that may be given once.
    ///
    /// # Errors
    /// When it is given twice.
    pub fn single(&self, name: &'static str) -> Result<Option<&'b [u8]>, Problem> {
        let mut values = self.values(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(malformed(format!("the header {name} is given more than once")));
        }
        Ok(first)
    }
}

/// A 400 for bytes that are not what the RFC asks for.
pub fn malformed(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::bad_request("malformed-request", detail)
}

/// Whether the byte may be part of a token (RFC 9110, section 5.6.2).
#[must_use]
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn explain(error: httparse::Error) -> Problem {
    match error {
        httparse::Error::TooManyHeaders => Problem::new(
            Status::RequestHeaderFieldsTooLarge,
            "headers-too-large",
            format!("the request has more than {REQUEST_HEADERS_MAX} headers"),
        ),
        httparse::Error::HeaderName => malformed(
            "a header's name is malformed: no white space before the colon, no line may begin with white space",
        ),
        httparse::Error::HeaderValue => {
            malformed("a header's value contains a control character or does not end with CR LF")
        }
        httparse::Error::NewLine => malformed("a line of the request's head does not end with CR LF"),
        httparse::Error::Token | httparse::Error::Version | httparse::Error::Status => {
            malformed("the request line is malformed; it is METHOD, one space, target, one space, HTTP/1.1")
        }
    }
}
