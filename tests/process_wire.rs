//! HTTP/1.1 to the byte, spoken with a running node over real sockets.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use support::cluster::{Cluster, ClusterOptions};
use support::http_message::{Answer, AnswerParser};

/// A socket to the node, and what was received on it.
struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Wire {
    fn connect(cluster: &Cluster) -> Wire {
        let stream = TcpStream::connect(cluster.client_address(0)).expect("connect");
        stream.set_nodelay(true).expect("a socket option");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket option");
        Wire { stream, received: Vec::new() }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("send");
    }

    /// Receives more. False when the node has closed its end.
    fn receive(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.received.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => {
                panic!("no more bytes ({error}) behind {:?}", String::from_utf8_lossy(&self.received))
            }
        }
    }

    fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    fn answer_to(&mut self, method: &str) -> Answer {
        let mut parser = AnswerParser::new(method == "HEAD");
        loop {
            if let Some(answer) = parser.parse(&mut self.received).expect("a proper answer") {
                return answer;
            }
            if !self.receive() {
                return parser.parse_end(&mut self.received).expect("an answer before the end");
            }
        }
    }

    #[track_caller]
    fn assert_closed(&mut self) {
        while self.receive() {}
        assert!(self.received.is_empty(), "unexpected: {:?}", String::from_utf8_lossy(&self.received));
    }
}

fn node() -> Cluster {
    Cluster::start(1)
}

fn put(wire: &mut Wire, key: &str, value: &str) {
    wire.send(format!(
        "PUT /v1/storage/key/{key} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{value}",
        value.len()
    ));
    assert_eq!(wire.answer().status, 200);
}

// E10
#[test]
fn pipelined_requests_are_answered_in_order() {
    let cluster = node();
    let mut wire = Wire::connect(&cluster);
    let mut requests = String::new();
    for number in 0..200 {
        requests += &format!(
            "PUT /v1/storage/key/k{number} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n{number:03}\
             GET /v1/storage/key/k{number} HTTP/1.1\r\nHost: x\r\n\r\n\
             GET /livez HTTP/1.1\r\nHost: x\r\n\r\n\
             GET /v1/storage/key/none HTTP/1.1\r\nHost: x\r\n\r\n"
        );
    }
    wire.send(requests);
    for number in 0..200 {
        assert_eq!(wire.answer().text(), r#"{"done":"true"}"#);
        assert_eq!(
            wire.answer().text(),
            format!("{number:03}"),
            "a read sees the write before it on its connection"
        );
        assert_eq!(wire.answer().status, 200);
        assert_eq!(wire.answer().status, 204);
    }
}

#[test]
fn request_may_come_byte_by_byte() {
    let cluster = node();
    let mut wire = Wire::connect(&cluster);
    for byte in b"PUT /v1/storage/key/slow HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello" {
        wire.send([*byte]);
    }
    assert_eq!(wire.answer().status, 200);
    wire.send("GET /v1/storage/key/slow HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.answer().text(), "hello");
}

#[test]
fn head_is_get_without_the_body() {
    let cluster = node();
    let mut wire = Wire::connect(&cluster);
    put(&mut wire, "h", "hello");
    wire.send(
        "HEAD /v1/storage/key/h HTTP/1.1\r\nHost: x\r\n\r\nGET /v1/storage/key/h HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    let head = wire.answer_to("HEAD");
    let get = wire.answer();
    assert_eq!((head.status, head.header("Content-Length")), (200, Some("5")));
    assert_eq!((get.status, get.text().as_str()), (200, "hello"), "no byte of a body came before it");
    assert_eq!(head.etag(), get.etag());
}

#[test]
fn chunked_body_is_put_together() {
    let cluster = node();
    let mut wire = Wire::connect(&cluster);
    wire.send(
        "PUT /v1/storage/key/c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n7;note=1\r\n, world\r\n0\r\nTrailer: x\r\n\r\n\
         GET /v1/storage/key/c HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    assert_eq!(wire.answer().status, 200);
    assert_eq!(wire.answer().text(), "hello, world");
}

#[test]
fn length_and_chunks_together_are_refused() {
    let cluster = node();
    let mut wire = Wire::connect(&cluster);
    wire.send(
        "PUT /v1/storage/key/s HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    );
    let answer = wire.answer();
    assert_eq!(answer.status, 400);
    assert!(answer.is_last(), "what follows cannot be trusted");
    wire.assert_closed();
    let mut wire = Wire::connect(&cluster);
    wire.send("GET /v1/storage/key/s HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.answer().status, 204);
}

#[test]
fn expect_100_continue_is_answered_before_the_body() {
    let cluster = node();
    let mut wire = Wire::connect(&cluster);
    wire.send(
        "PUT /v1/storage/key/e HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    );
    while !wire.received.ends_with(b"\r\n\r\n") {
        assert!(wire.receive(), "the node must ask for the body");
    }
    assert!(wire.received.starts_with(b"HTTP/1.1 100 "), "{:?}", String::from_utf8_lossy(&wire.received));
    wire.received.clear();
    wire.send("hello");
    assert_eq!(wire.answer().status, 200);

    // A body that is too large is not asked for.
    wire.send("PUT /v1/storage/key/e HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\nExpect: 100-continue\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(answer.status, 413, "and no 100 before it");
}

#[test]
fn http_1_0_closes_unless_asked_to_stay() {
    let cluster = node();
    let mut wire = Wire::connect(&cluster);
    wire.send("GET /livez HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(answer.status, 200);
    assert!(answer.header("Transfer-Encoding").is_none(), "HTTP/1.0 knows no chunks");
    wire.send("GET /livez HTTP/1.0\r\n\r\n");
    assert_eq!(wire.answer().status, 200);
    wire.assert_closed();
}

#[test]
fn connection_close_is_obeyed() {
    let cluster = node();
    let mut wire = Wire::connect(&cluster);
    wire.send("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let answer = wire.answer();
    assert!(answer.is_last());
    wire.assert_closed();
}

#[test]
fn half_closed_client_gets_all_its_answers() {
    let cluster = node();
    let mut wire = Wire::connect(&cluster);
    wire.send(
        "PUT /v1/storage/key/half HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
         GET /v1/storage/key/half HTTP/1.1\r\nHost: x\r\n\r\n",
    );
    wire.stream.shutdown(Shutdown::Write).expect("close one half");
    assert_eq!(wire.answer().status, 200);
    assert_eq!(wire.answer().text(), "hello");
    wire.assert_closed();
}

// E10: half a request never reaches the log.
#[test]
fn half_a_request_has_no_effect() {
    let cluster = node();
    let mut wire = Wire::connect(&cluster);
    wire.send("PUT /v1/storage/key/torn HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhello");
    wire.stream.shutdown(Shutdown::Write).expect("close one half");
    while wire.receive() {}
    let mut wire = Wire::connect(&cluster);
    wire.send("GET /v1/storage/key/torn HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(wire.answer().status, 204);
}

#[test]
fn nonsense_gets_a_clear_answer() {
    let cluster = node();
    for (request, status) in [
        ("GET /v1/storage/key/a b HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nBad Header: x\r\n\r\n".to_owned(), 400),
        ("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n".to_owned(), 400),
        ("GET /v1/storage/key/%zz HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400),
        ("GET /v1/storage/key/ HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400),
        ("GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 404),
        ("PATCH /v1/storage/key/a HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 405),
        ("PUT /v1/storage/key/a HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 411),
        (format!("GET /livez HTTP/1.1\r\nHost: x\r\nLong: {}\r\n\r\n", "x".repeat(100_000)), 431),
        (
            "PUT /v1/storage/key/a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
                .to_owned(),
            501,
        ),
        ("GET / HTTP/3.7\r\nHost: x\r\n\r\n".to_owned(), 505),
    ] {
        let mut wire = Wire::connect(&cluster);
        wire.send(&request);
        let answer = wire.answer();
        let start: String = request.chars().take(60).collect();
        assert_eq!(answer.status, status, "{start:?} was answered with {answer:?}");
        assert_eq!(answer.header("Content-Type"), Some("application/problem+json"), "{start:?}");
    }
}

// I10
#[test]
fn slow_head_gets_408() {
    let cluster = Cluster::start_with(&ClusterOptions::new(1).settings("[limits]\nhead_timeout = '300ms'\n"));
    let mut wire = Wire::connect(&cluster);
    let start = Instant::now();
    wire.send("GET /livez HTTP/1.1\r\nHost:");
    let answer = wire.answer();
    assert_eq!(answer.status, 408);
    assert!(start.elapsed() >= Duration::from_millis(290), "not before its time: {:?}", start.elapsed());
    wire.assert_closed();
}

// I8, I10
#[test]
fn too_many_connections_are_refused_and_the_others_served() {
    let cluster = Cluster::start_with(&ClusterOptions::new(1).settings("[limits]\nclient_connections = 8\n"));
    let serve = |wire: &mut Wire| {
        wire.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
        wire.answer().status
    };
    let mut wires: Vec<Wire> = Vec::new();
    // The connections that this test's own questions used may take a moment to be gone.
    let mut refused = None;
    for _ in 0..20 {
        let mut wire = Wire::connect(&cluster);
        if serve(&mut wire) == 200 {
            wires.push(wire);
        } else {
            refused = Some(wire);
            break;
        }
    }
    let mut refused = refused.expect("there is a bound");
    refused.assert_closed();
    assert!(wires.len() >= 7 && wires.len() <= 8, "{} connections", wires.len());
    for wire in &mut wires {
        assert_eq!(serve(wire), 200, "those within the bound are served");
    }
    wires.pop();
    let mut again = support::cluster::wait_for("the freed place", || {
        let mut wire = Wire::connect(&cluster);
        (serve(&mut wire) == 200).then_some(wire)
    });
    assert_eq!(serve(&mut again), 200);
}

// I10: a client that does not read holds up nobody.
#[test]
fn client_that_does_not_read_holds_up_nobody() {
    let cluster = node();
    let mut writer = Wire::connect(&cluster);
    put(&mut writer, "big", &"x".repeat(1 << 20));
    let mut lazy = Wire::connect(&cluster);
    lazy.stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a socket option");
    let request = b"GET /v1/storage/key/big HTTP/1.1\r\nHost: x\r\n\r\n".repeat(2_000);
    // The node stops reading when it cannot send: either all of this fits into the kernel's buffers, or it times out.
    let _ = lazy.stream.write_all(&request);
    let start = Instant::now();
    for number in 0..50 {
        put(&mut writer, "other", &number.to_string());
    }
    assert!(start.elapsed() < Duration::from_secs(5), "{:?} for 50 writes", start.elapsed());
}
