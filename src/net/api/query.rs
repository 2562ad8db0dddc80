//! Query parameters. Every one must be known: a misspelled condition must not become an unconditional write.

use std::borrow::Cow;

use crate::limits::{REQUEST_TIMEOUT_MS_MAX, TTL_MS_MAX};
use crate::net::api::target::percent_decode;
use crate::net::http::problem::Problem;
use crate::replica::io::Consistency;

/// Most parameters any request knows.
const KNOWN_MAX: usize = 16;

/// The parameters of one request.
#[derive(Debug)]
pub struct Query<'a> {
    known: &'static [&'static str],
    values: [Option<Cow<'a, str>>; KNOWN_MAX],
}

impl<'a> Query<'a> {
    /// Takes the text behind the question mark apart.
    ///
    /// # Errors
    /// A parameter is not in `known`, is given twice or is wrongly encoded.
    pub fn parse(text: &'a str, known: &'static [&'static str]) -> Result<Query<'a>, Problem> {
        assert!(known.len() <= KNOWN_MAX, "more query parameters than KNOWN_MAX");
        let mut query = Query { known, values: [const { None }; KNOWN_MAX] };
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = percent_decode(name, "the name of a query parameter")?;
            let Some(slot) = known.iter().position(|known| *known == name) else {
                return Err(unknown(&name, known));
            };
            let value = percent_decode(value, "the value of a query parameter")?;
            if query.values[slot].replace(value).is_some() {
                return Err(bad_parameter(format!("the query parameter {name} is given more than once")));
            }
        }
        Ok(query)
    }

    /// The value of a parameter; empty when only the name was given.
    ///
    /// # Panics
    /// When the parameter is not one of those known here.
    #[must_use]
    pub fn get(&self, name: &'static str) -> Option<&str> {
        let slot = self.known.iter().position(|known| *known == name);
        self.values[slot.expect("a parameter is asked for only where it is known")].as_deref()
    }

    /// Whether a parameter without a value is there.
    ///
    /// # Errors
    /// It has a value.
    pub fn flag(&self, name: &'static str) -> Result<bool, Problem> {
        match self.get(name) {
            None => Ok(false),
            Some("") => Ok(true),
            Some(_) => {
                Err(bad_parameter(format!("the query parameter {name} takes no value; write just ?{name}")))
            }
        }
    }

    /// `timeout` in milliseconds, `None` when it is not given.
    ///
    /// # Errors
    /// It is not a duration or out of bounds.
    pub fn timeout_ms(&self) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get("timeout") else { return Ok(None) };
        parse_duration_ms(text).filter(|ms| (1..=REQUEST_TIMEOUT_MS_MAX).contains(ms)).map(Some).ok_or_else(
            || {
                let most = REQUEST_TIMEOUT_MS_MAX / 60_000;
                bad_parameter(format!(
                    "timeout must be like 500ms, 5s or 2m, from 1ms to {most}m, not \"{text}\""
                ))
            },
        )
    }

    /// `consistency`.
    ///
    /// # Errors
    /// It is not one that there is.
    pub fn consistency(&self) -> Result<Consistency, Problem> {
        match self.get("consistency") {
            None | Some("linearizable") => Ok(Consistency::Linearizable),
            Some("stale") => Ok(Consistency::Stale),
            Some(other) => Err(bad_parameter(format!(
                "consistency must be linearizable or stale, not \"{}\"",
                shortened(other)
            ))),
        }
    }

    /// `ttl` in milliseconds, `None` when it is not given.
    ///
    /// # Errors
    /// It is not a duration or out of bounds.
    pub fn ttl_ms(&self) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get("ttl") else { return Ok(None) };
        parse_ttl_ms(text).map(Some).ok_or_else(|| bad_parameter(bad_ttl("ttl", text)))
    }
}

/// A time to live in milliseconds: 1 to [`TTL_MS_MAX`].
#[must_use]
pub fn parse_ttl_ms(text: &str) -> Option<u64> {
    parse_duration_ms(text).filter(|ms| (1..=TTL_MS_MAX).contains(ms))
}

/// What to say about a time to live that is none; `name` is what the request calls it.
#[must_use]
pub fn bad_ttl(name: &str, text: &str) -> String {
    let most = TTL_MS_MAX / (24 * 3600 * 1000);
    format!(
        "{name} must be like 500ms, 30s, 5m, 12h or 7d, from 1ms to {most}d, not \"{}\"; leave it out for a key \
         that is to stay",
        shortened(text)
    )
}

/// A 400 about a parameter's value.
pub fn bad_parameter(detail: String) -> Problem {
    Problem::bad_request("bad-parameter", detail)
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let known = if known.is_empty() { String::from("there are none") } else { known.join(", ") };
    let detail = format!("unknown query parameter \"{}\"; known for this request: {known}", shortened(name));
    Problem::bad_request("unknown-parameter", detail)
}

/// The beginning of a text of the client's, for a message.
#[must_use]
pub fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut result: String = text.chars().take(CHARS_MAX).collect();
    if result.len() < text.len() {
        result.push_str("...");
    }
    result
}

/// A whole number with its unit: `ms`, `s`, `m`, `h` or `d`.
pub(super) fn parse_duration_ms(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration_ms("500ms"), Some(500));
        assert_eq!(parse_duration_ms("5s"), Some(5_000));
        assert_eq!(parse_duration_ms("2m"), Some(120_000));
        assert_eq!(parse_duration_ms("12h"), Some(43_200_000));
        assert_eq!(parse_duration_ms("7d"), Some(604_800_000));
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "+5s",
            "1.5s",
            "5 s",
            "5w",
            "5S",
            "5D",
            "99999999999999999999s",
            "307445734561826m",
        ] {
            assert_eq!(parse_duration_ms(bad), None, "{bad}");
        }
    }

    /// Zero, negative, too long, overflowing and malformed lives are refused.
    #[test]
    fn lives() {
        for (text, ms) in [("1ms", 1), ("30s", 30_000), ("3650d", TTL_MS_MAX), ("007s", 7_000)] {
            assert_eq!(parse_ttl_ms(text), Some(ms), "{text}");
        }
        for bad in ["", "0s", "0ms", "-1s", "3651d", "87601h", "30", "213503982335d", "1e3s", "1s "] {
            assert_eq!(parse_ttl_ms(bad), None, "{bad}");
        }
        assert!(bad_ttl("ttl", &"9".repeat(1_000)).len() < 300);
    }

    #[test]
    fn parameters_are_known_given_once_and_decoded() {
        const KNOWN: &[&str] = &["timeout", "delete"];
        let query = Query::parse("&&timeout=5%73&delete&", KNOWN).unwrap();
        assert_eq!(query.timeout_ms(), Ok(Some(5_000)));
        assert_eq!(query.flag("delete"), Ok(true));
        assert_eq!(Query::parse("", KNOWN).unwrap().timeout_ms(), Ok(None));
        let error = Query::parse("ttl=30s", KNOWN).unwrap_err();
        assert_eq!(error.detail, "unknown query parameter \"ttl\"; known for this request: timeout, delete");
        for bad in ["timeout=1s&timeout=1s", "t%", "timeout=%zz", "Timeout=1s", "timeout+=1s", "=", "=1"] {
            assert!(Query::parse(bad, KNOWN).is_err(), "{bad}");
        }
        for bad in ["timeout", "timeout=0s", "timeout=6m", "timeout=5"] {
            assert!(Query::parse(bad, KNOWN).unwrap().timeout_ms().is_err(), "{bad}");
        }
        assert!(Query::parse("delete=0", KNOWN).unwrap().flag("delete").is_err());
    }
}
