//! Query parameters. Every one must be known: a misspelled condition must not become an unconditional write.

use std::borrow::Cow;

use crate::limits::REQUEST_TIMEOUT_MS_MAX;
use crate::net::api::target::percent_decode;
use crate::net::http::problem::Problem;

/// Most parameters any request knows.
const KNOWN_MAX: usize = 8;

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
}

/// A 400 about a parameter's value.
pub fn bad_parameter(detail: String) -> Problem {
    Problem::bad_request("bad-parameter", detail)
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let known = if known.is_empty() { String::from("there are none") } else { known.join(", ") };
    let detail = format!("unknown query parameter \"{name}\"; known for this request: {known}");
    Problem::bad_request("unknown-parameter", detail)
}

/// `<digits>ms`, `<digits>s` or `<digits>m`.
pub(super) fn parse_duration_ms(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
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
        for bad in [
            "",
            "5",
            "s",
            "-5s",
            "+5s",
            "1.5s",
            "5 s",
            "5h",
            "5S",
            "99999999999999999999s",
            "307445734561826m",
        ] {
            assert_eq!(parse_duration_ms(bad), None, "{bad}");
        }
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
