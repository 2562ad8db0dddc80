//! The `Date` header (RFC 9110, section 6.6.1), formatted once per second for all connections.

use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

/// Length of an IMF-fixdate, in bytes.
const DATE_BYTES: usize = 29;

/// The current wall-clock second as text. The event loop sets it, every connection reads it. Without a time no
/// `Date` is sent, as the RFC asks of servers without a clock.
#[derive(Debug, Default)]
pub struct HttpDate {
    second: Cell<Option<u64>>,
    text: Cell<[u8; DATE_BYTES]>,
}

impl HttpDate {
    /// Sets the wall-clock time, in seconds since 1970. Cheap while the second stays the same.
    pub fn set(&self, second: u64) {
        // Year 9999: the format has no fifth digit.
        let second = second.min(253_402_300_799);
        if self.second.get() == Some(second) {
            return;
        }
        let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
        let bytes = text.as_bytes().try_into().expect("an IMF-fixdate always has 29 bytes");
        self.text.set(bytes);
        self.second.set(Some(second));
    }

    /// Adds the header to a head, if a time was set.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        if self.second.get().is_some() {
            out.extend_from_slice(b"Date: ");
            out.extend_from_slice(&self.text.get());
            out.extend_from_slice(b"\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_an_imf_fixdate() {
        let date = HttpDate::default();
        let mut out = Vec::new();
        date.write_to(&mut out);
        assert!(out.is_empty(), "no Date without a clock");
        date.set(784_111_777);
        date.write_to(&mut out);
        assert_eq!(out, b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        date.set(u64::MAX);
    }
}
