//! The life of a connection: order, interim responses, back-pressure, time, and how it ends.

#[path = "support/http.rs"]
mod http;

use std::rc::Rc;

use http::{Client, VALUE_BYTES_MAX, context, get, parse, put, request};
use keva::kv::store::Store;
use keva::limits::{
    LINGER_BYTES_MAX, LINGER_MS, PIPELINED_REQUESTS_MAX, SHUTDOWN_LAST_CALL_MS, UNSENT_BYTES_MAX,
};
use keva::net::client::{Call, ClientConnection};
use keva::net::http::response::{Body, Response, TEXT};
use keva::net::http::status::Status;
use keva::util::time::Millis;

const K: &str = "/v1/storage/key/k";

fn text(body: &str) -> Response {
    Response::new(Status::Ok, TEXT, Body::Owned(body.as_bytes().to_vec()))
}

fn calls(client: &mut Client) -> Vec<Call> {
    std::iter::from_fn(|| client.next_call()).collect()
}

/// E10: responses leave in the order of the requests, in whatever order they come.
#[test]
fn responses_keep_the_order_of_requests() {
    let orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2], [2, 3, 0, 1], [3, 0, 1, 2]];
    for order in orders {
        let mut client = Client::new();
        let pipeline: String = (0..4).map(|i| get(&format!("k{i}"))).collect();
        // An answer that needs no node waits for its turn too.
        let pipeline = pipeline + "GET /livez HTTP/1.1\r\nHost: h\r\n\r\n";
        client.connection.receive(client.now, pipeline.as_bytes());
        let calls = calls(&mut client);
        assert_eq!(calls.len(), 4);
        for position in order {
            client.connection.respond(client.now, calls[position].id, text(&position.to_string()));
            client.drain();
        }
        let bodies: Vec<String> = client.responses().iter().map(|answer| answer.text().to_owned()).collect();
        assert_eq!(bodies, ["0", "1", "2", "3", "ok\n"], "answered in the order {order:?}");
    }
}

#[test]
#[should_panic(expected = "answered once")]
fn a_call_is_answered_once() {
    let mut client = Client::new();
    client.connection.receive(client.now, (get("a") + &get("b")).as_bytes());
    let calls = calls(&mut client);
    client.connection.respond(client.now, calls[1].id, text("b"));
    client.connection.respond(client.now, calls[1].id, text("b"));
}

/// RFC 9110, section 10.1.1: leave to send the body comes after all earlier responses, and before the own one.
#[test]
fn continue_comes_in_order() {
    let head = format!("PUT {K} HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 3\r\n\r\n");
    let mut client = Client::new();
    client.connection.receive(client.now, (get("a") + &head).as_bytes());
    let first = calls(&mut client);
    assert_eq!((first.len(), client.drain()), (1, 0), "no leave before the earlier response");
    client.now = Millis(500_000);
    client.connection.handle_deadline(client.now);
    assert!(!client.connection.is_finished(), "the client waits for leave, so its time does not run");
    client.connection.respond(client.now, first[0].id, text("a"));
    client.run();
    assert_eq!(client.statuses(), [200, 100]);
    client.at(529_999);
    assert_eq!(client.connection.next_deadline(), Millis(530_000), "the body's time begins with the leave");
    client.feed("abc");
    assert_eq!(client.statuses(), [200, 100, 200]);

    let mut client = Client::new();
    client.feed(&head);
    assert_eq!(client.statuses(), [100]);
    client.feed("a").feed("b").feed("c");
    assert_eq!(client.statuses(), [100, 200], "leave is given once");

    let mut client = Client::new();
    client.feed(head + "abc");
    assert_eq!(client.statuses(), [200], "who did not wait needs no leave");

    let chunked =
        format!("PUT {K} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut client = Client::new();
    client.feed(&chunked).feed("3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(client.statuses(), [100, 200]);
    let empty = format!("PUT {K} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n");
    let mut client = Client::new();
    client.feed(empty);
    assert_eq!(client.statuses(), [200], "there is no body to wait for");
}

/// I10: a client that sends many requests and reads nothing holds a bounded number of calls and bytes.
#[test]
fn pipelines_are_bounded() {
    let mut client = Client::new();
    let many = get("k").repeat(200);
    client.connection.receive(client.now, many.as_bytes());
    let first = calls(&mut client);
    assert_eq!(first.len(), PIPELINED_REQUESTS_MAX);
    assert!(!client.connection.wants_input());
    assert_eq!(client.connection.next_deadline(), Millis::NEVER, "the node is slow, not the client");
    // Room is made by answers, in order.
    client.connection.respond(client.now, first[1].id, text("1"));
    assert!(client.next_call().is_none());
    client.connection.respond(client.now, first[0].id, text("0"));
    assert_eq!(calls(&mut client).len(), 2);
    for call in &first[2..] {
        client.connection.respond(client.now, call.id, text(""));
    }
    assert_eq!(calls(&mut client).len(), 62);
}

/// I10: values that wait for the node count as much as values that wait to be sent.
#[test]
fn values_that_wait_are_bounded() {
    let mut client = Client::new();
    let value = "x".repeat(VALUE_BYTES_MAX);
    let mut waiting = Vec::new();
    while client.connection.wants_input() {
        assert!(waiting.len() < PIPELINED_REQUESTS_MAX, "all were let in");
        client.connection.receive(client.now, put("k", &value).as_bytes());
        waiting.append(&mut calls(&mut client));
    }
    let held = waiting.len() * VALUE_BYTES_MAX;
    assert!((UNSENT_BYTES_MAX..UNSENT_BYTES_MAX + VALUE_BYTES_MAX).contains(&held), "{held} bytes");
    assert!(client.connection.memory_bytes() >= held, "what the requests hold counts");
    assert_eq!(client.connection.next_deadline(), Millis::NEVER, "the node is slow, not the client");
    for call in waiting {
        client.connection.respond(client.now, call.id, text("done"));
    }
    assert!(client.connection.wants_input(), "room is made by answers");
    client.run();
    assert!(client.connection.memory_bytes() <= 32 << 10, "{}", client.connection.memory_bytes());
}

/// I10: answers that may be very long, because many keys are read for them, are made one at a time.
#[test]
fn long_answers_come_one_by_one() {
    let list = |query: &str| {
        request("GET", &format!("/v1/storage/keys?{query}"), "Accept: application/json\r\n", "")
    };
    let body = "{\"if\":[],\"then\":[{\"get\":\"k\"}]}";
    let wait = request("GET", "/v1/storage/keys?wait=1s", "If-None-Match: \"1\"\r\n", "");
    for long in [
        list("values"),
        list("limit=10"),
        list("count"),
        request("POST", "/v1/storage/txn", "", body),
        request("POST", "/v1/storage/txn", "", "{\"if\":[],\"then\":[],\"else\":[{\"get\":\"k\"}]}"),
        wait,
    ] {
        let mut client = Client::new();
        client.connection.receive(client.now, long.repeat(64).as_bytes());
        for number in 0..64 {
            let open = calls(&mut client);
            assert_eq!(open.len(), 1, "{long}");
            assert_eq!(client.connection.next_deadline(), Millis::NEVER, "the node is slow, not the client");
            assert!(!client.connection.wants_input());
            client.connection.respond(client.now, open[0].id, text(&number.to_string()));
            client.drain();
        }
        assert!(client.connection.wants_input());
        assert_eq!(client.statuses(), [200; 64]);
    }
    // What is in front of it does not wait for it, and what is behind does.
    let mut client = Client::new();
    let write =
        request("POST", "/v1/storage/txn", "", "{\"if\":[],\"then\":[{\"put\":\"k\",\"value\":\"v\"}]}");
    client.connection.receive(client.now, (get("a") + &write + &list("count") + &get("b")).as_bytes());
    assert_eq!(calls(&mut client).len(), 3);
}

/// Who closes one side behind a request that waits for a change is gone, once everything before it was answered.
#[test]
fn hanging_up_ends_a_wait() {
    let wait = request("GET", "/v1/storage/key/k?wait=5m", "", "");
    for close in ["", "Connection: close\r\n"] {
        let mut client = Client::new();
        let wait = request("GET", "/v1/storage/key/k?wait=5m", close, "");
        client.connection.receive(client.now, wait.as_bytes());
        assert_eq!(calls(&mut client).len(), 1);
        assert!(!client.connection.is_finished());
        client.end();
        assert!(client.connection.is_finished() && client.sent.is_empty());
    }
    // Requests that do not wait are answered, whoever closed one side.
    let mut client = Client::new();
    client.connection.receive(client.now, (get("a") + &wait).as_bytes());
    let open = calls(&mut client);
    client.connection.receive_end(client.now);
    assert!(!client.connection.is_finished());
    client.connection.respond(client.now, open[0].id, text("a"));
    assert!(!client.connection.is_finished());
    client.drain();
    assert!(client.connection.is_finished());
    assert_eq!(client.statuses(), [200]);
    // Also when the end is announced before everything was received.
    let mut client = Client::new();
    client.connection.announce_end(client.now);
    client.feed(get("a")).end();
    assert_eq!(client.statuses(), [204]);
}

#[test]
fn unsent_output_stops_reading() {
    let mut client = Client::new();
    let value = "x".repeat(10_000);
    client.feed(put("k", &value));
    client.sent.clear();
    client.connection.receive(client.now, get("k").repeat(64).as_bytes());
    let mut answered = 0;
    while let Some(Call { id, action }) = client.next_call() {
        let response = client.node.answer(action);
        client.connection.respond(client.now, id, response);
        answered += 1;
    }
    assert!(!client.connection.wants_input());
    assert!(answered < 40, "{answered} responses wait");
    assert!(
        client.connection.memory_bytes() < UNSENT_BYTES_MAX + 64 * 1024,
        "{}",
        client.connection.memory_bytes()
    );
    client.run();
    assert!(client.connection.wants_input());
    assert_eq!(client.statuses(), [200; 64]);
}

/// A body that was let in is read to its end, whatever waits to be sent, and nothing behind it.
#[test]
fn a_body_is_finished_though_the_output_is_full() {
    let mut client = Client::new();
    let (start, rest) = ("PUT /v1/storage/key/k HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab", "cd");
    client.connection.receive(client.now, (get("a") + &get("b") + start).as_bytes());
    for call in calls(&mut client) {
        client.connection.respond(client.now, call.id, text(&"x".repeat(VALUE_BYTES_MAX)));
    }
    assert!(client.connection.wants_input(), "for the body");
    client.connection.receive(client.now, (rest.to_owned() + &get("c")).as_bytes());
    assert_eq!(calls(&mut client).len(), 1);
    assert!(!client.connection.wants_input());
    client.drain();
    assert_eq!(calls(&mut client).len(), 1);
}

/// Long values are lent out, not copied, and survive any way the socket takes them.
#[test]
fn long_values_in_small_writes() {
    let mut client = Client::new();
    let value: String = (0..VALUE_BYTES_MAX / 10).map(|i| format!("{i:09}\n")).collect();
    client.feed(put("k", &value));
    client.sent.clear();
    client.connection.receive(client.now, (get("k") + &get("none") + &get("k")).as_bytes());
    while let Some(Call { id, action }) = client.next_call() {
        let response = client.node.answer(action);
        client.connection.respond(client.now, id, response);
    }
    let mut step = 1;
    while !client.connection.output().is_empty() {
        let count = client.connection.output().len().min(step);
        client.sent.extend_from_slice(&client.connection.output()[..count]);
        client.connection.sent(client.now, count);
        step = step * 7 % 5003 + 1;
    }
    let answers = client.responses();
    assert_eq!(client.statuses(), [200, 204, 200]);
    assert!(answers[0].text() == value && answers[2].text() == value);
}

#[test]
fn memory_is_given_back() {
    let mut client = Client::new();
    let idle = client.connection.memory_bytes();
    assert_eq!(idle, 0, "a new connection costs no buffers");
    let value = "x".repeat(VALUE_BYTES_MAX);
    for chunk in put("k", &value).as_bytes().chunks(50_000) {
        client.feed(chunk);
        assert!(client.connection.memory_bytes() < 2 * VALUE_BYTES_MAX);
    }
    client.feed(get("k"));
    assert_eq!(client.statuses(), [200, 200]);
    assert!(client.connection.memory_bytes() <= 32 << 10, "{}", client.connection.memory_bytes());

    // Announcing a body costs nothing before it comes.
    let mut client = Client::new();
    client.feed(format!("PUT {K} HTTP/1.1\r\nHost: h\r\nContent-Length: {VALUE_BYTES_MAX}\r\n\r\nx"));
    assert!(client.connection.memory_bytes() <= 32 << 10, "{}", client.connection.memory_bytes());
}

/// A value that many clients read at the same time is in memory once. Counted once for each, a few readers of a large
/// one would be over the bound of all connections, and be cut off.
#[test]
fn a_shared_value_is_counted_once() {
    let mut writer = Client::new();
    writer.feed(put("k", &"x".repeat(VALUE_BYTES_MAX)));
    let mut readers: Vec<Client> = (0..20).map(|_| Client::new()).collect();
    for reader in &mut readers {
        reader.node.store = writer.node.store.clone();
        reader.connection.receive(reader.now, (get("k") + &get("k")).as_bytes());
        while let Some(Call { id, action }) = reader.next_call() {
            let response = reader.node.answer(action);
            reader.connection.respond(reader.now, id, response);
        }
    }
    let held: usize = readers.iter().map(|reader| reader.connection.memory_bytes()).sum();
    assert!(held < VALUE_BYTES_MAX + readers.len() * 4096, "{held} bytes");
    // The last one that holds a value which the store has no more holds all of it.
    writer.node.store = Store::default();
    let mut last = readers.pop().unwrap();
    readers.clear();
    last.node.store = Store::default();
    assert!(last.connection.memory_bytes() >= VALUE_BYTES_MAX, "{}", last.connection.memory_bytes());
}

/// I10: every wait for the client has an end.
#[test]
fn slow_clients() {
    // Not a byte: closed without a word.
    let mut client = Client::new();
    assert_eq!(client.connection.next_deadline(), Millis(11_000));
    client.at(10_999);
    assert!(!client.connection.is_finished());
    client.at(11_000);
    assert!(client.connection.is_finished() && client.sent.is_empty());

    // A head that drips in: its time runs from its first byte, whatever comes after.
    let mut client = Client::new();
    for (offset, byte) in get("k").bytes().enumerate().take(9) {
        client.at(1_000 + offset as u64 * 1_200).feed([byte]);
    }
    client.at(10_999);
    assert!(client.sent.is_empty());
    client.at(11_000);
    assert_eq!(client.statuses(), [408]);
    assert_eq!(client.responses()[0].header("connection"), Some("close"));
    assert!(client.calls.is_empty() && client.is_closing());

    // A body that stops.
    let mut client = Client::new();
    client.feed(put("k", "value").strip_suffix("lue").unwrap()).at(30_999);
    assert!(client.sent.is_empty());
    client.at(31_000);
    assert_eq!(client.statuses(), [408]);
    assert!(client.calls.is_empty());

    // A body that trickles.
    let mut client = Client::new();
    client.feed(put("k", &"x".repeat(1000)).trim_end_matches('x'));
    let mut time = 1_000;
    while client.sent.is_empty() && time < 100_000 {
        time += 1_000;
        client.at(time);
        client.feed("x");
    }
    assert_eq!(client.statuses(), [408]);
    assert!((30_000..33_000).contains(&time), "{time}");

    // An idle connection that was used has more time, and is closed without a word.
    let mut client = Client::new();
    client.feed(get("k")).at(120_999);
    assert!(!client.connection.is_finished());
    client.at(121_000);
    assert!(client.connection.is_finished());
    assert_eq!(client.statuses(), [204]);

    // A refused request whose body does not come gets no second answer.
    let mut client = Client::new();
    client.feed("PUT /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n").at(31_000);
    assert_eq!(client.statuses(), [404]);
    assert!(client.is_closing());
}

#[test]
fn clients_that_do_not_read() {
    let mut client = Client::new();
    client.feed(put("k", &"x".repeat(VALUE_BYTES_MAX)));
    client.connection.receive(client.now, get("k").as_bytes());
    let Call { id, action } = client.next_call().unwrap();
    let response = client.node.answer(action);
    client.connection.respond(Millis(5_000), id, response);
    assert_eq!(client.connection.next_deadline(), Millis(35_000));
    client.connection.sent(Millis(20_000), 100);
    assert_eq!(
        client.connection.next_deadline(),
        Millis(35_097),
        "a hundred bytes earn a hundred milliseconds"
    );
    client.connection.handle_deadline(Millis(35_096));
    assert!(!client.connection.is_finished());
    client.connection.handle_deadline(Millis(35_097));
    assert!(client.connection.is_finished(), "nobody is there to be told");
}

/// RFC 9112, section 9.6: the writing side closes first, input is thrown away for a while.
#[test]
fn lingering_close() {
    let bad = "GET / HTTP/1.1\r\nHost : h\r\n\r\n";
    let mut client = Client::new();
    client.connection.receive(client.now, bad.as_bytes());
    assert!(client.next_call().is_none());
    assert!(!client.connection.wants_shutdown_write(), "first the response");
    assert!(!client.connection.wants_input());
    client.run();
    assert!(client.connection.wants_shutdown_write() && client.connection.wants_input());
    assert!(!client.connection.is_finished());
    client.feed(get("k"));
    assert_eq!((client.statuses(), client.calls.len()), (vec![400], 0));
    client.end();
    assert!(client.connection.is_finished(), "the client has seen the end");

    let mut client = Client::new();
    client.feed(bad);
    assert_eq!(client.connection.next_deadline(), Millis(1_000 + LINGER_MS));
    client.at(1_000 + LINGER_MS);
    assert!(client.connection.is_finished(), "time is bounded");

    let mut client = Client::new();
    client.feed(bad);
    let chunk = vec![0; 1 << 20];
    for _ in 0..LINGER_BYTES_MAX >> 20 {
        assert!(!client.connection.is_finished());
        client.feed(&chunk);
    }
    assert!(client.connection.is_finished(), "bytes are bounded");
    assert!(client.connection.memory_bytes() <= 32 << 10);
}

#[test]
fn shutdown() {
    // Idle: a request may be on its way. It gets its answer, which is the last.
    let mut client = Client::new();
    client.feed(get("k"));
    client.connection.start_shutdown(client.now);
    assert!(client.connection.wants_input() && !client.is_closing());
    client.feed(put("k", "v"));
    assert_eq!(client.statuses(), [204, 200]);
    assert_eq!(client.responses()[1].header("connection"), Some("close"));
    assert!(client.is_closing() && client.connection.wants_shutdown_write());

    // None comes: closed without a word, also when one has begun.
    for start in ["", "GET /v1/sto"] {
        let mut client = Client::new();
        client.feed(get("k") + start);
        client.connection.start_shutdown(client.now);
        let end = client.now.after(SHUTDOWN_LAST_CALL_MS);
        assert_eq!(client.connection.next_deadline(), end);
        client.at(end.0 - 1);
        assert!(!client.connection.is_finished());
        client.at(end.0);
        assert!(client.connection.is_finished());
        assert_eq!(client.statuses(), [204]);
    }

    // Everything that was received is answered; only the last answer ends the connection.
    let mut client = Client::new();
    client.connection.receive(client.now, (get("a") + &get("b") + "GET /v1/sto").as_bytes());
    let waiting = calls(&mut client);
    client.connection.start_shutdown(client.now);
    assert!(!client.connection.wants_input() && !client.connection.is_finished());
    for call in &waiting {
        client.connection.respond(client.now, call.id, text("late"));
        assert!(client.next_call().is_none());
    }
    client.run();
    let answers = client.responses();
    assert_eq!(client.statuses(), [200, 200]);
    assert_eq!((answers[0].header("connection"), answers[1].header("connection")), (None, Some("close")));
    assert!(client.connection.wants_shutdown_write());

    // More requests than were let in at once: still answered.
    let mut client = Client::new();
    client.connection.receive(client.now, get("k").repeat(70).as_bytes());
    let first = calls(&mut client);
    client.connection.start_shutdown(client.now);
    client.connection.respond(client.now, first[0].id, text("0"));
    client.connection.respond(client.now, first[1].id, text("1"));
    let second = calls(&mut client);
    assert_eq!(second.len(), 2);
    for call in first[2..].iter().chain(&second) {
        client.connection.respond(client.now, call.id, text("x"));
        client.run();
    }
    assert_eq!(client.statuses(), [&[200; 66][..], &[204; 4]].concat());
    assert_eq!(client.responses()[69].header("connection"), Some("close"));

    // Half a body: refused, and surely not applied.
    let mut client = Client::new();
    client.feed(put("k", "value").strip_suffix("lue").unwrap());
    client.connection.start_shutdown(client.now);
    client.run();
    let answers = client.responses();
    assert_eq!((answers[0].status, answers[0].member("applied").as_str()), (503, "no"));
    assert!(client.calls.is_empty() && client.is_closing());
}

#[test]
fn too_many_connections() {
    let context = context();
    context.date.set(784_111_777);
    let mut connection = ClientConnection::refused(Millis(0), Rc::clone(&context));
    let answers = parse(connection.output(), |_| false);
    assert_eq!((answers.len(), answers[0].status, answers[0].header("retry-after")), (1, 503, Some("1")));
    assert_eq!(answers[0].header("connection"), Some("close"));
    assert_eq!(answers[0].header("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    let count = connection.output().len();
    connection.receive(Millis(0), get("k").as_bytes());
    assert!(connection.next_call(Millis(0)).is_none());
    connection.sent(Millis(0), count);
    assert!(connection.wants_shutdown_write());
}
