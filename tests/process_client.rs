//! The tests' own HTTP client tells apart what was never sent, what got no answer, and what was answered.

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use support::http_client::{Failure, HttpClient};

/// A server that treats one connection after the other, each with the next of these.
fn server(treatments: Vec<fn(TcpStream)>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("a bound socket has an address");
    let thread = std::thread::spawn(move || {
        for treatment in treatments {
            treatment(listener.accept().expect("accept").0);
        }
    });
    (address, thread)
}

fn read_request(stream: &mut TcpStream) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        request.push(byte[0]);
    }
}

fn get(client: &mut HttpClient) -> Result<support::http_message::Answer, Failure> {
    client.request("GET", "/", &[], b"")
}

#[test]
fn answers_are_read_in_every_framing() {
    let (address, thread) = server(vec![|mut stream| {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"17\"\r\nKeva-Revision: 18\r\n\r\nhello",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nuntil the end",
        ] {
            read_request(&mut stream);
            for byte in answer.as_bytes() {
                stream.write_all(&[*byte]).expect("send");
            }
        }
    }]);
    let mut client = HttpClient::new(address);
    let answer = get(&mut client).expect("an answer");
    assert_eq!((answer.text().as_str(), answer.etag(), answer.revision()), ("hello", Some(17), Some(18)));
    assert_eq!(get(&mut client).expect("an answer").text(), "hello");
    assert_eq!(get(&mut client).expect("an answer").status, 204);
    assert_eq!(get(&mut client).expect("an answer").text(), "until the end");
    thread.join().expect("the server is through");
}

#[test]
fn refused_connection_means_not_sent() {
    let unused = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = unused.local_addr().expect("a bound socket has an address");
    drop(unused);
    assert!(matches!(get(&mut HttpClient::new(address)), Err(Failure::NotSent(_))));
}

#[test]
fn connection_lost_behind_the_request_means_unknown() {
    let (address, thread) = server(vec![|mut stream| read_request(&mut stream), |mut stream| {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").expect("send");
    }]);
    let mut client = HttpClient::new(address);
    assert!(matches!(get(&mut client), Err(Failure::Unknown(_))));
    assert!(matches!(get(&mut client), Err(Failure::Unknown(_))), "half an answer is none");
    thread.join().expect("the server is through");
}

#[test]
fn silence_means_unknown() {
    let (address, thread) = server(vec![|mut stream| {
        read_request(&mut stream);
        // Until the client gives up.
        let _ = stream.read(&mut [0]);
    }]);
    let mut client = HttpClient::new(address).with_timeout(Duration::from_millis(50));
    assert!(matches!(get(&mut client), Err(Failure::Unknown(_))));
    thread.join().expect("the server is through");
}

#[test]
fn connection_that_was_closed_while_idle_is_replaced() {
    fn answer_and_close(mut stream: TcpStream) {
        read_request(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("send");
    }
    let (address, thread) = server(vec![answer_and_close, answer_and_close]);
    let mut client = HttpClient::new(address);
    assert_eq!(get(&mut client).expect("an answer").text(), "ok");
    // The end of the connection reaches the client in no time, but not in none.
    support::cluster::wait_for("the second answer", || get(&mut client).ok());
    thread.join().expect("the server is through");
}
