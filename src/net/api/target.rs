//! Request targets: their forms, percent-encoding, keys (RFC 9112, section 3.2; RFC 3986, section 2.1).

use std::borrow::Cow;

use crate::limits::KEY_BYTES_MAX;
use crate::net::http::framing::is_host_byte;
use crate::net::http::problem::Problem;

/// A request target without its authority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target<'a> {
    /// From the first `/` up to the question mark, still encoded.
    pub path: &'a str,
    /// What is behind the first question mark, still encoded.
    pub query: &'a str,
}

impl<'a> Target<'a> {
    /// Understands the origin form (`/path?query`) and the absolute form (`http://host/path?query`).
    ///
    /// # Errors
    /// For the other forms, and for a fragment.
    pub fn parse(target: &'a str) -> Result<Target<'a>, Problem> {
        if target.contains('#') {
            return Err(bad_target("the request target contains #; as a part of a key it is written %23"));
        }
        let rest = if target.starts_with('/') { target } else { without_authority(target)? };
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        Ok(Target { path: if path.is_empty() { "/" } else { path }, query })
    }
}

/// What is behind the host of an absolute form. RFC 9112, section 3.2.2: servers must accept it; its host counts
/// instead of the header's, and Keva answers for any host.
fn without_authority(target: &str) -> Result<&str, Problem> {
    let rest = ["http://", "https://"].iter().find_map(|scheme| {
        let (head, rest) = target.split_at_checked(scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let Some(rest) = rest else {
        return Err(bad_target("the request target must begin with / or be an http:// URL"));
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.is_empty() || !authority.bytes().all(is_host_byte) {
        return Err(bad_target("the host in the request target is malformed"));
    }
    Ok(rest)
}

fn bad_target(detail: &'static str) -> Problem {
    Problem::bad_request("bad-target", detail)
}

/// Decodes `%XX`. A plus stays a plus.
///
/// # Errors
/// A percent sign is not followed by two hexadecimal digits, or the result is not UTF-8; the detail names `what`.
pub fn percent_decode<'a>(text: &'a str, what: &str) -> Result<Cow<'a, str>, Problem> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = tail.split_at_checked(2).and_then(|(digits, tail)| {
            rest = tail;
            Some((hex_digit(digits[0])?, hex_digit(digits[1])?))
        });
        let Some((high, low)) = digits else {
            let detail =
                format!("{what} contains a % without two hexadecimal digits; a % itself is written %25");
            return Err(Problem::bad_request("bad-percent-encoding", detail));
        };
        bytes.push(high << 4 | low);
    }
    String::from_utf8(bytes)
        .map(Cow::Owned)
        .map_err(|_| Problem::bad_request("not-utf8", format!("{what} is not UTF-8 after percent-decoding")))
}

/// Appends `text` with everything but unreserved characters and slashes as `%XX`: what [`percent_decode`] reads back,
/// on one line of ASCII.
pub fn percent_encode(text: &str, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(byte);
    let mut rest = text.as_bytes();
    while let Some((first, others)) = rest.split_first() {
        if is_plain(first) {
            // Most keys are plain from one end to the other: what is plain is copied in one piece.
            let len = rest.iter().position(|byte| !is_plain(byte)).unwrap_or(rest.len());
            out.extend_from_slice(&rest[..len]);
            rest = &rest[len..];
        } else {
            out.extend([b'%', DIGITS[usize::from(first >> 4)], DIGITS[usize::from(first & 15)]]);
            rest = others;
        }
    }
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| u8::try_from(digit).expect("a hexadecimal digit is below 16"))
}

/// The key in the rest of a path.
///
/// # Errors
/// It is empty, too long, not UTF-8 or wrongly encoded.
pub fn parse_key(encoded: &str) -> Result<String, Problem> {
    let key = percent_decode(encoded, "the key")?;
    if key.is_empty() {
        let detail = "the key is missing; the URL is /v1/storage/key/ followed by the key";
        return Err(Problem::bad_request("bad-key", detail));
    }
    if key.len() > KEY_BYTES_MAX {
        let detail = format!("the key has {} bytes; at most {KEY_BYTES_MAX} are allowed", key.len());
        return Err(Problem::bad_request("bad-key", detail));
    }
    Ok(key.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_decoded_strictly_and_nothing_else_happens_to_them() {
        let good = [
            ("a", "a"),
            ("a+b", "a+b"),
            ("a%2Bb", "a+b"),
            ("a%2fb/c", "a/b/c"),
            ("../..//.", "../..//."),
            ("%C3%BC", "ü"),
            ("ü", "ü"),
            ("%00%0a", "\0\n"),
            ("%25zz", "%zz"),
            ("/", "/"),
        ];
        for (encoded, key) in good {
            assert_eq!(parse_key(encoded).unwrap(), key);
        }
        for bad in ["", "%", "%4", "%zz", "%+1", "a%2", "%ff", "%C3", "%ED%A0%80"] {
            assert!(parse_key(bad).is_err(), "{bad}");
        }
        assert!(parse_key(&"k".repeat(KEY_BYTES_MAX)).is_ok());
        assert!(parse_key(&"k".repeat(KEY_BYTES_MAX + 1)).is_err());
        assert!(parse_key(&"%41".repeat(KEY_BYTES_MAX)).is_ok(), "the bound is on the decoded key");
    }

    #[test]
    fn encoded_text_is_one_word_and_is_read_back() {
        let encoded = |text: &str| {
            let mut out = Vec::new();
            percent_encode(text, &mut out);
            String::from_utf8(out).unwrap()
        };
        let rows = [
            ("a/b-c.d_e~f", "a/b-c.d_e~f"),
            ("a b+c%d", "a%20b%2Bc%25d"),
            ("\n\0\u{7f}", "%0A%00%7F"),
            ("\u{fc}", "%C3%BC"),
            ("?&=#\"'<", "%3F%26%3D%23%22%27%3C"),
        ];
        for (text, expected) in rows {
            assert_eq!(encoded(text), expected);
            assert_eq!(percent_decode(expected, "it").unwrap(), text);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives_encoding(text in "\\PC*|(?s).*") {
            let mut out = Vec::new();
            percent_encode(&text, &mut out);
            let encoded = String::from_utf8(out).expect("it is ASCII");
            proptest::prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic()));
            proptest::prop_assert_eq!(percent_decode(&encoded, "it").unwrap(), text);
        }
    }

    #[test]
    fn forms_of_targets() {
        let parts = |text| Target::parse(text).map(|target| (target.path, target.query)).ok();
        assert_eq!(parts("/a/b?c=d?e"), Some(("/a/b", "c=d?e")));
        assert_eq!(parts("HTTP://host:80/a?b"), Some(("/a", "b")));
        assert_eq!(parts("https://[::1]:80"), Some(("/", "")));
        assert_eq!(parts("http://h?x"), Some(("/", "x")));
        for bad in
            ["*", "host:80", "http://", "http:///a", "ftp://h/", "/a#b", "http://a b/", "a", "http://u@h/"]
        {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }
}
