//! What a client wants to read: content negotiation (RFC 9110, section 12.5.1).

use crate::net::http::head::RequestHead;

/// How much a client wants something, in thousandths. 0: not at all.
type Quality = u16;

const QUALITY_MAX: Quality = 1000;

/// How exactly a media range names a type: the most exact one that fits decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Anything,
    MainType,
    Exact,
}

/// The position of the type that the client likes best among `offered`, which are `type/subtype` in lower case, the
/// server's favourite first. The favourite also wins among equals, and when the client says nothing, nothing that is
/// understood, or accepts none of them: an answer in another form serves people better than 406.
#[must_use]
pub fn preferred(head: &RequestHead<'_, '_>, offered: &[&str]) -> usize {
    let qualities = offered.iter().map(|offer| quality_of(head, offer));
    let best = qualities.enumerate().fold(
        (0, 0),
        |best, (position, quality)| {
            if quality > best.1 { (position, quality) } else { best }
        },
    );
    best.0
}

fn quality_of(head: &RequestHead<'_, '_>, offer: &str) -> Quality {
    let ranges = head.members("accept").filter_map(|member| {
        let member = std::str::from_utf8(member).ok()?;
        let (range, parameters) = member.split_once(';').unwrap_or((member, ""));
        Some((fit(range.trim(), offer)?, quality(parameters)))
    });
    // Of two equally exact ones the first counts.
    let best = ranges.reduce(|best, next| if next.0 > best.0 { next } else { best });
    best.map_or(0, |(_, quality)| quality)
}

fn fit(range: &str, offer: &str) -> Option<Fit> {
    let (main, sub) = range.split_once('/')?;
    let (offer_main, offer_sub) = offer.split_once('/')?;
    match (main, sub) {
        ("*", "*") => Some(Fit::Anything),
        (main, "*") if main.eq_ignore_ascii_case(offer_main) => Some(Fit::MainType),
        (main, sub) if main.eq_ignore_ascii_case(offer_main) && sub.eq_ignore_ascii_case(offer_sub) => {
            Some(Fit::Exact)
        }
        _ => None,
    }
}

/// `q` among the parameters of a media range. A malformed one counts as not being there.
fn quality(parameters: &str) -> Quality {
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim())
    });
    value.and_then(parse_quality).unwrap_or(QUALITY_MAX)
}

/// `0`, `1`, or one of them with up to three decimals (RFC 9110, section 12.4.2).
fn parse_quality(text: &str) -> Option<Quality> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 || !decimals.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let thousandths: Quality = format!("{decimals:0<3}").parse().ok()?;
    match whole {
        "0" => Some(thousandths),
        "1" if thousandths == 0 => Some(QUALITY_MAX),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(accept: &[&str], offered: &[&'static str]) -> &'static str {
        let headers: Vec<httparse::Header<'_>> =
            accept.iter().map(|value| httparse::Header { name: "Accept", value: value.as_bytes() }).collect();
        let head = RequestHead { method: "GET", target: "/", is_http_10: false, headers: &headers };
        offered[preferred(&head, offered)]
    }

    #[test]
    fn the_best_quality_wins_and_the_favourite_among_equals() {
        let offered = ["text/plain", "application/json"];
        let rows: &[(&[&str], &str)] = &[
            (&[], "text/plain"),
            (&["*/*"], "text/plain"),
            (&["application/json"], "application/json"),
            (&["Application/JSON; charset=utf-8"], "application/json"),
            (&["application/json, text/plain, */*"], "text/plain"),
            (&["application/json, */*;q=0.8"], "application/json"),
            (&["text/plain;q=0.5, application/*;q=0.501"], "application/json"),
            (&["text/plain;q=0.5", "application/json"], "application/json"),
            (&["*/*, text/plain;q=0.1"], "application/json"),
            (&["text/plain;q=0, application/json;q=0.001"], "application/json"),
            (&["application/json;q=0"], "text/plain"),
            (&["image/png"], "text/plain"),
            (&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], "text/plain"),
            (&["application/json;q=2", "text/plain;q=1.000"], "text/plain"),
            (&["json", "*", "/", ";q=1", ", ,"], "text/plain"),
            (&["application/json; q = 0.3 , text/plain;level=1;Q=0.2"], "application/json"),
        ];
        for (accept, expected) in rows {
            assert_eq!(chosen(accept, &offered), *expected, "{accept:?}");
        }
    }

    #[test]
    fn browsers_get_pages_and_curl_gets_text() {
        let offered = ["text/plain", "text/html"];
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(chosen(&[firefox], &offered), "text/html");
        assert_eq!(chosen(&["*/*"], &offered), "text/plain");
    }

    #[test]
    fn qualities() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1", Some(1000)),
            ("0.", Some(0)),
            ("0.5", Some(500)),
            ("0.123", Some(123)),
            ("1.000", Some(1000)),
            ("1.001", None),
            ("2", None),
            ("0.1234", None),
            ("-0", None),
            ("0.+1", None),
            (".5", None),
            ("", None),
        ] {
            assert_eq!(parse_quality(text), expected, "{text}");
        }
    }
}
