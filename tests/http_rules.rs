//! What a connection does with well-made and malicious requests: RFC 9112 and RFC 9110, as raw bytes.

#[path = "support/http.rs"]
mod http;

use http::Client;

/// Whether the connection can be used on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Open,
    Closed,
}
use Fate::{Closed, Open};

const K: &str = "/v1/storage/key/k";

fn check(name: &str, request: &[u8], statuses: &[u16], fate: Fate) {
    let mut client = Client::new();
    client.feed(request);
    assert_eq!(client.statuses(), statuses, "{name}: {}", String::from_utf8_lossy(&client.sent));
    let closing = if client.is_closing() { Closed } else { Open };
    assert_eq!(closing, fate, "{name}");
    let responses = client.responses();
    if let Some(last) = responses.last() {
        assert_eq!(last.header("connection") == Some("close"), fate == Closed, "{name}: Connection header");
    }
    if fate == Open && !statuses.is_empty() {
        client.sent.clear();
        client.feed(http::get("usable"));
        assert_eq!(client.statuses(), [204], "{name}: the next request must be understood");
    } else if fate == Closed {
        let calls = client.calls.len();
        client.feed(http::get("smuggled"));
        assert_eq!(client.calls.len(), calls, "{name}: nothing may be understood after the end");
    }
}

fn with_headers(headers: &str) -> Vec<u8> {
    format!("PUT {K} HTTP/1.1\r\nHost: h\r\n{headers}\r\n").into_bytes()
}

/// E10: whatever leaves the end of a request in doubt is refused, and nothing after it is taken for a request.
#[test]
fn framing_attacks() {
    let smuggled = "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n";
    let rows: &[(&str, String, u16)] = &[
        ("length and coding", "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(), 400),
        ("coding and length", "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n".into(), 400),
        ("differing lengths", "Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd".into(), 400),
        ("equal lengths", "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc".into(), 400),
        ("list of lengths", "Content-Length: 3, 3\r\n\r\nabc".into(), 400),
        ("signed length", "Content-Length: +3\r\n\r\nabc".into(), 400),
        ("negative length", "Content-Length: -3\r\n\r\nabc".into(), 400),
        ("hexadecimal length", "Content-Length: 0x3\r\n\r\nabc".into(), 400),
        ("empty length", "Content-Length:\r\n\r\n".into(), 400),
        ("length with space inside", "Content-Length: 1 1\r\n\r\nabc".into(), 400),
        ("length beyond 64 bits", "Content-Length: 18446744073709551620\r\n\r\nabc".into(), 413),
        ("length above the limit", "Content-Length: 200001\r\n\r\nabc".into(), 413),
        ("folded line", "X-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n".into(), 400),
        ("folded with tab", "X-A: 1\r\n\t2\r\nContent-Length: 0\r\n\r\n".into(), 400),
        ("space before the colon", "Content-Length : 3\r\n\r\nabc".into(), 400),
        ("tab before the colon", "Transfer-Encoding\t: chunked\r\n\r\n".into(), 400),
        ("space in a name", "X A: 1\r\nContent-Length: 0\r\n\r\n".into(), 400),
        ("no colon", "Content-Length\r\n\r\n".into(), 400),
        ("no name", ": 3\r\n\r\n".into(), 400),
        ("NUL in a value", "X: a\0b\r\nContent-Length: 0\r\n\r\n".into(), 400),
        ("control character in a value", "X: a\x08b\r\nContent-Length: 0\r\n\r\n".into(), 400),
        ("bare CR in a value", "X: a\rContent-Length: 3\r\n\r\n".into(), 400),
        ("bare LF after a header", "X: a\nContent-Length: 0\r\n\r\n".into(), 400),
        ("bare LF at the end", "Content-Length: 0\r\n\n".into(), 400),
        ("CR CR LF", "Content-Length: 0\r\r\n\r\n".into(), 400),
        ("unknown coding", "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".into(), 501),
        ("chunked not last", "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n".into(), 400),
        ("no chunked at all", "Transfer-Encoding: gzip\r\n\r\n".into(), 400),
        ("identity", "Transfer-Encoding: identity\r\n\r\n".into(), 400),
        ("empty coding", "Transfer-Encoding:\r\n\r\n".into(), 400),
        ("chunked twice", "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n".into(), 400),
        (
            "chunked twice on two lines",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".into(),
            400,
        ),
        ("chunked in disguise", "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n".into(), 400),
        ("chunked with a parameter", "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n".into(), 400),
        ("xchunked", "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n".into(), 400),
        ("two hosts", "Host: other\r\nContent-Length: 0\r\n\r\n".into(), 400),
    ];
    for (name, headers, status) in rows {
        let mut request = with_headers(headers);
        request.truncate(request.len() - 2);
        request.extend_from_slice(smuggled.as_bytes());
        check(name, &request, &[*status], Closed);
    }
}

#[test]
fn chunked_bodies() {
    let good: &[(&str, &str, &str)] = &[
        ("empty", "0\r\n\r\n", ""),
        ("one chunk", "3\r\nabc\r\n0\r\n\r\n", "abc"),
        ("several", "1\r\na\r\n0000000000000002\r\nbc\r\n0\r\n\r\n", "abc"),
        ("capital digits", "A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
        ("extensions", "3;a=b;c=\"d e\"\r\nabc\r\n0;z\r\n\r\n", "abc"),
        ("space before an extension", "3 \t;a\r\nabc\r\n0\r\n\r\n", "abc"),
        ("trailers", "3\r\nabc\r\n0\r\nX-Sum: 1\r\nY:\r\n\r\n", "abc"),
        ("a chunk that looks like an end", "7\r\n\r\n0\r\n\r\n\r\n0\r\n\r\n", "\r\n0\r\n\r\n"),
    ];
    for (name, body, value) in good {
        let mut client = Client::new();
        let head = format!("PUT {K} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n");
        client.feed(head + body + &http::get("k"));
        let answers = client.responses();
        assert_eq!(answers.len(), 2, "{name}");
        assert_eq!(answers[1].text(), *value, "{name}");
        assert!(!client.is_closing(), "{name}");
    }

    let long_extension = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(300));
    let many_extensions = format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(100) + "0\r\n\r\n";
    let long_trailer = format!("0\r\nX: {}\r\n\r\n", "x".repeat(5000));
    let many_trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(1000));
    let grows = "8000\r\n".to_owned() + &"x".repeat(0x8000) + "\r\n";
    let too_large = grows.repeat(10);
    let bad: &[(&str, &str, u16)] = &[
        ("no size", "\r\nabc\r\n0\r\n\r\n", 400),
        ("no size, and nothing else", "\r\n\r\n", 400),
        ("not hexadecimal", "g\r\nabc\r\n0\r\n\r\n", 400),
        ("0x", "0x3\r\nabc\r\n0\r\n\r\n", 400),
        ("negative", "-3\r\nabc\r\n0\r\n\r\n", 400),
        ("plus", "+3\r\nabc\r\n0\r\n\r\n", 400),
        ("leading space", " 3\r\nabc\r\n0\r\n\r\n", 400),
        ("trailing space", "3 \r\nabc\r\n0\r\n\r\n", 400),
        ("64 bits and more", "10000000000000003\r\nabc\r\n0\r\n\r\n", 400),
        ("almost 64 bits", "ffffffffffffffff\r\nabc", 413),
        ("sum overflows", "3\r\nabc\r\nfffffffffffffffe\r\nabc", 413),
        ("endless zeros", &"0".repeat(20), 400),
        ("LF after the size", "3\nabc\r\n0\r\n\r\n", 400),
        ("CR without LF after the size", "3\rabc\r\n0\r\n\r\n", 400),
        ("LF in an extension", "3;a\nabc\r\n0\r\n\r\n", 400),
        ("CR in an extension", "3;a\rb\r\nabc\r\n0\r\n\r\n", 400),
        ("NUL in an extension", "3;a\0\r\nabc\r\n0\r\n\r\n", 400),
        ("long extension", &long_extension, 400),
        ("many extensions", &many_extensions, 400),
        ("chunk too long", "3\r\nabcd\r\n0\r\n\r\n", 400),
        ("chunk too short", "3\r\nab\r\n0\r\n\r\n", 400),
        ("LF after a chunk", "3\r\nabc\n0\r\n\r\n", 400),
        ("trailer without a colon", "0\r\nabc\r\n\r\n", 400),
        ("trailer with a space in its name", "0\r\na b: c\r\n\r\n", 400),
        ("folded trailer", "0\r\na: b\r\n c\r\n\r\n", 400),
        ("LF after a trailer", "0\r\na: b\n\r\n", 400),
        ("LF instead of the end", "0\r\n\n", 400),
        ("long trailer", &long_trailer, 431),
        ("many trailers", &many_trailers, 431),
        ("grows too large", &too_large, 413),
    ];
    for (name, body, status) in bad {
        let request = [&with_headers("Transfer-Encoding: chunked\r\n"), body.as_bytes()].concat();
        check(name, &request, &[*status], Closed);
    }
}

#[test]
fn request_lines() {
    let host = "Host: h\r\n\r\n";
    let rows: &[(&str, String, u16, Fate)] = &[
        ("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505, Closed),
        ("HTTP/1.2", format!("GET / HTTP/1.2\r\n{host}"), 505, Closed),
        ("HTTP/3", format!("GET / HTTP/3\r\n{host}"), 505, Closed),
        ("HTTP/0.9", "GET /\r\n".into(), 400, Closed),
        ("TLS hello behind an empty line", "\r\n\x16\x03\x01".into(), 400, Closed),
        ("TLS hello", "\x16\x03\x01\x02\0\x01\0".into(), 400, Closed),
        ("Redis", "*1\r\n$4\r\nPING\r\n".into(), 400, Closed),
        ("binary", "\0\0\0\x01".into(), 400, Closed),
        ("lower-case version", format!("GET / http/1.1\r\n{host}"), 400, Closed),
        ("two spaces", format!("GET  / HTTP/1.1\r\n{host}"), 400, Closed),
        ("tab", format!("GET\t/ HTTP/1.1\r\n{host}"), 400, Closed),
        ("space in the target", format!("GET /a b HTTP/1.1\r\n{host}"), 400, Closed),
        ("space at the end", format!("GET / HTTP/1.1 \r\n{host}"), 400, Closed),
        ("leading space", format!(" GET / HTTP/1.1\r\n{host}"), 400, Closed),
        ("bare LF", "GET / HTTP/1.1\nHost: h\n\n".into(), 400, Closed),
        ("bare CR", "GET / HTTP/1.1\rHost: h\r\r\n".into(), 400, Closed),
        ("empty lines first", format!("\r\n\r\nGET / HTTP/1.1\r\n{host}"), 200, Open),
        ("too many empty lines", format!("\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\n{host}"), 400, Closed),
        ("empty line with LF", format!("\nGET / HTTP/1.1\r\n{host}"), 400, Closed),
        ("no host", "GET / HTTP/1.1\r\n\r\n".into(), 400, Closed),
        ("empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), 200, Open),
        ("host with port", "GET / HTTP/1.1\r\nhOST: [::1]:80\r\n\r\n".into(), 200, Open),
        ("two names in host", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n".into(), 400, Closed),
        ("path in host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), 400, Closed),
        ("user in host", "GET / HTTP/1.1\r\nHost: u@h\r\n\r\n".into(), 400, Closed),
        ("absolute form", format!("GET http://x:1{K} HTTP/1.1\r\n{host}"), 204, Open),
        ("absolute form without a path", format!("GET HTTP://x HTTP/1.1\r\n{host}"), 200, Open),
        ("absolute form needs Host too", "GET http://x/ HTTP/1.1\r\n\r\n".into(), 400, Closed),
        ("another scheme", format!("GET ftp://x/ HTTP/1.1\r\n{host}"), 400, Open),
        ("authority form", format!("GET x:80 HTTP/1.1\r\n{host}"), 400, Open),
        ("CONNECT", format!("CONNECT x:80 HTTP/1.1\r\n{host}"), 405, Open),
        ("asterisk", format!("OPTIONS * HTTP/1.1\r\n{host}"), 405, Open),
        ("asterisk with GET", format!("GET * HTTP/1.1\r\n{host}"), 400, Open),
        ("fragment", format!("GET {K}#x HTTP/1.1\r\n{host}"), 400, Open),
        ("TRACE", format!("TRACE / HTTP/1.1\r\n{host}"), 405, Open),
        ("own method", format!("FROB {K} HTTP/1.1\r\n{host}"), 405, Open),
        ("lower-case method", format!("get {K} HTTP/1.1\r\n{host}"), 405, Open),
        ("longest line", format!("GET /{} HTTP/1.1\r\n{host}", "a".repeat(8192 - 14)), 404, Open),
        ("line too long", format!("GET /{} HTTP/1.1\r\n{host}", "a".repeat(8192 - 13)), 414, Closed),
        ("endless line", "A".repeat(9000), 414, Closed),
        (
            "head too long",
            format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(17_000)),
            431,
            Closed,
        ),
        ("64 headers", format!("GET / HTTP/1.1\r\n{}{host}", "X: a\r\n".repeat(63)), 200, Open),
        ("65 headers", format!("GET / HTTP/1.1\r\n{}{host}", "X: a\r\n".repeat(64)), 431, Closed),
    ];
    for (name, request, status, fate) in rows {
        check(name, request.as_bytes(), &[*status], *fate);
    }
    let not_utf8 = b"GET /v1/storage/key/\xff HTTP/1.1\r\nHost: h\r\n\r\n";
    check("target not UTF-8", not_utf8, &[400], Closed);
}

/// The head may be exactly as long as the limit, and not one byte longer.
#[test]
fn head_limit_is_exact() {
    for (length, status, fate) in [(16 << 10, 200, Open), ((16 << 10) + 1, 431, Closed)] {
        let start = "GET / HTTP/1.1\r\nHost: h\r\nX: ";
        let request = format!("{start}{}\r\n\r\n", "a".repeat(length - start.len() - 4));
        assert_eq!(request.len(), length);
        check("head limit", request.as_bytes(), &[status], fate);
    }
}

/// RFC 9112, section 9.3.
#[test]
fn persistence() {
    let rows: &[(&str, &str, Fate, Option<&str>)] = &[
        ("1.1", "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n", Open, None),
        ("1.1 close", "GET /livez HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", Closed, Some("close")),
        (
            "1.1 close in a list",
            "GET /livez HTTP/1.1\r\nHost: h\r\nConnection: te, CLOSE\r\n\r\n",
            Closed,
            Some("close"),
        ),
        (
            "close wins",
            "GET /livez HTTP/1.1\r\nHost: h\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
            Closed,
            Some("close"),
        ),
        ("1.0", "GET /livez HTTP/1.0\r\n\r\n", Closed, Some("close")),
        ("1.0 keep-alive", "GET /livez HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Open, Some("keep-alive")),
    ];
    for (name, request, fate, header) in rows {
        let mut client = Client::new();
        client.feed(request);
        let answers = client.responses();
        assert_eq!(answers[0].status, 200, "{name}");
        assert_eq!(answers[0].header("connection"), *header, "{name}");
        assert_eq!(client.is_closing(), *fate == Closed, "{name}");
    }
    check(
        "coding in 1.0",
        b"PUT /v1/storage/key/k HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
        Closed,
    );
    let http_10 = format!(
        "PUT {K} HTTP/1.0\r\nConnection: keep-alive\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"
    );
    let mut client = Client::new();
    client.feed(http_10);
    assert!(client.sent.is_empty(), "an HTTP/1.0 client does not know 100 Continue");
    client.feed("x");
    assert_eq!(client.statuses(), [200]);
}

/// Errors that are found in the head: a short body is skipped, a long one ends the connection.
#[test]
fn early_errors_and_bodies() {
    let put = |target: &str, headers: &str, body: &str| {
        format!("PUT {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n{body}").into_bytes()
    };
    let body = "x".repeat(1000);
    check("short body", &put("/nowhere", "Content-Length: 1000\r\n", &body), &[404], Open);
    check("long body", &put("/nowhere", "Content-Length: 100000\r\n", &body), &[404], Closed);
    check("chunked body", &put("/nowhere", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), &[404], Closed);
    check(
        "waiting client",
        &put("/nowhere", "Content-Length: 1000\r\nExpect: 100-continue\r\n", ""),
        &[404],
        Closed,
    );
    check(
        "too large, waiting",
        &put(K, "Content-Length: 999999\r\nExpect: 100-continue\r\n", ""),
        &[413],
        Closed,
    );
    check("too large", &put(K, "Content-Length: 999999\r\n", &body), &[413], Closed);
    check("unknown expectation", &put(K, "Content-Length: 1000\r\nExpect: tea\r\n", &body), &[417], Closed);
    check("unknown expectation, no body", &put(K, "Content-Length: 0\r\nExpect: tea\r\n", ""), &[417], Open);
    check("no length", &put(K, "", ""), &[411], Open);

    // A body that means nothing is skipped too.
    let get = format!("GET {K} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n{body}");
    check("GET with a body", get.as_bytes(), &[204], Open);
    let delete =
        format!("DELETE {K} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    check("DELETE with a body", delete.as_bytes(), &[200], Open);
}

/// E10: half a request never reaches the node, and says so when the client still listens.
#[test]
fn half_a_request_is_none() {
    let whole = http::put("k", "value");
    for cut in 0..whole.len() {
        let mut client = Client::new();
        client.feed(&whole.as_bytes()[..cut]).end();
        assert!(client.calls.is_empty(), "cut at {cut}");
        assert_eq!(client.statuses(), if cut == 0 { vec![] } else { vec![400] }, "cut at {cut}");
        assert!(client.connection.is_finished(), "cut at {cut}");
    }
    let mut client = Client::new();
    client.feed(&whole).end();
    assert_eq!(client.statuses(), [200], "a client may close its sending side and wait for the answer");
    assert!(client.connection.is_finished());
    let mut client = Client::new();
    client.feed(whole + "\r\n").end();
    assert_eq!(client.statuses(), [200], "an empty line after a body is no request");
}

/// Browsers send what web pages of other sites want, also from inside a trusted network.
#[test]
fn pages_of_other_origins_cannot_write() {
    let rows = [
        ("", 200),
        ("Sec-Fetch-Site: cross-site\r\n", 403),
        ("Sec-Fetch-Site: same-site\r\n", 403),
        ("Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n", 403),
        ("Sec-Fetch-Site: same-origin\r\nOrigin: http://behind.a.proxy\r\n", 200),
        ("Sec-Fetch-Site: none\r\n", 200),
        // Browsers do not send it to other machines without TLS.
        ("Origin: http://evil.example\r\n", 403),
        ("Origin: null\r\n", 403),
        ("Origin: http://h:8380\r\n", 403),
        ("Origin: http://H\r\n", 200),
        ("Origin: https://h\r\n", 200),
    ];
    for (headers, status) in rows {
        for (method, target, body) in [
            ("POST", K, "v"),
            ("PUT", K, "v"),
            ("DELETE", K, ""),
            ("POST", "/v1/storage/key/k?add=0", ""),
            ("POST", "/v1/storage/txn", "{\"then\":[]}"),
            ("DELETE", "/v1/storage/keys?all", ""),
            ("POST", "/v1/cluster/leader", ""),
        ] {
            let mut client = Client::new();
            let answer = client.tell(method, target, headers, body);
            assert_eq!(answer.status, status, "{method} {target} {headers}");
            if status == 403 {
                assert_eq!((answer.problem(), client.calls.len()), ((403, "cross-site".into()), 0));
                assert_eq!(answer.member("applied"), "no");
            }
        }
        let read = Client::new().tell("GET", K, headers, "");
        assert_eq!(read.status, 204, "what a page reads there, browsers do not show it");
    }
}
