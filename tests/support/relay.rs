//! TCP relays between the nodes of a test cluster, to take links down without touching the nodes or the kernel.
//!
//! Each node dials each other node through a relay of its own. A relay that holds delivers nothing, in neither
//! direction, and loses nothing either: what it held arrives when it is opened, as it does when a network comes back
//! and TCP sends again. It can do so in one direction only, deliver late, or deliver in small pieces with pauses between
//! them. It can also break the connections that stand.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How often a relay looks whether it still holds, and whether it is to end.
const PAUSE: Duration = Duration::from_millis(2);
/// The pause behind each small piece.
const PIECE_PAUSE: Duration = Duration::from_micros(500);

/// All relays of a cluster.
#[derive(Debug, Default)]
pub struct Relays {
    links: Vec<Arc<Link>>,
}

/// The connections that one node dials to another one.
#[derive(Debug)]
struct Link {
    from: usize,
    to: usize,
    target: SocketAddr,
    /// What the one that dialled sends.
    forth: Way,
    /// What it is sent.
    back: Way,
    /// Counts the times the connections were broken.
    breaks: AtomicU32,
    ended: AtomicBool,
}

/// One direction of a link.
#[derive(Debug, Default)]
struct Way {
    held: AtomicBool,
    /// Milliseconds that everything waits before it is delivered.
    delay_ms: AtomicU32,
    /// The most bytes that are delivered at once, 0 for no limit.
    piece_bytes: AtomicUsize,
}

impl Relays {
    /// Relays what `from` dials at `listen` to the node `to` at `target`.
    pub fn add(&mut self, from: usize, to: usize, listen: SocketAddr, target: SocketAddr) {
        let listener = TcpListener::bind(listen).expect("the address is this cluster's own");
        listener.set_nonblocking(true).expect("a socket option");
        let (forth, back) = (Way::default(), Way::default());
        let (breaks, ended) = (AtomicU32::new(0), AtomicBool::new(false));
        let link = Arc::new(Link { from, to, target, forth, back, breaks, ended });
        self.links.push(Arc::clone(&link));
        std::thread::spawn(move || link.accept(&listener));
    }

    /// Lets nothing through between this node and all others.
    pub fn isolate(&self, node: usize) {
        self.hold(|sender, receiver| sender == node || receiver == node);
    }

    /// Lets nothing through between these two.
    pub fn separate(&self, one: usize, other: usize) {
        self.hold(|sender, receiver| {
            (sender, receiver) == (one, other) || (sender, receiver) == (other, one)
        });
    }

    /// Lets nothing through that any of the senders sends to any of the receivers. The other direction stays open.
    pub fn hold_one_way(&self, senders: &[usize], receivers: &[usize]) {
        self.hold(|sender, receiver| senders.contains(&sender) && receivers.contains(&receiver));
    }

    /// Lets nothing through between nodes of this group and nodes outside it.
    pub fn split(&self, group: &[usize]) {
        self.hold(|sender, receiver| group.contains(&sender) != group.contains(&receiver));
    }

    /// Delivers everything that this node sends and is sent later by so many milliseconds.
    pub fn delay(&self, node: usize, delay_ms: u32) {
        self.ways(|sender, receiver, way| {
            if sender == node || receiver == node {
                way.delay_ms.store(delay_ms, Ordering::SeqCst);
            }
        });
    }

    /// Delivers everything that this node sends and is sent in pieces of at most so many bytes, with pauses.
    pub fn chop(&self, node: usize, piece_bytes: usize) {
        self.ways(|sender, receiver, way| {
            if sender == node || receiver == node {
                way.piece_bytes.store(piece_bytes, Ordering::SeqCst);
            }
        });
    }

    fn hold(&self, concerns: impl Fn(usize, usize) -> bool) {
        self.ways(|sender, receiver, way| {
            if concerns(sender, receiver) {
                way.held.store(true, Ordering::SeqCst);
            }
        });
    }

    /// Visits every direction of every link, with its sender and its receiver.
    fn ways(&self, visit: impl Fn(usize, usize, &Way)) {
        for link in &self.links {
            visit(link.from, link.to, &link.forth);
            visit(link.to, link.from, &link.back);
        }
    }

    /// Lets everything through again, at once and whole, what was held first.
    pub fn heal(&self) {
        self.ways(|_, _, way| {
            way.held.store(false, Ordering::SeqCst);
            way.delay_ms.store(0, Ordering::SeqCst);
            way.piece_bytes.store(0, Ordering::SeqCst);
        });
    }

    /// Breaks all connections of this node. They may be dialled again.
    pub fn break_links(&self, node: usize) {
        for link in self.links.iter().filter(|link| link.from == node || link.to == node) {
            link.breaks.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Relays {
    fn drop(&mut self) {
        for link in &self.links {
            link.ended.store(true, Ordering::SeqCst);
        }
    }
}

impl Link {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Whether a connection made after so many breaks must go.
    fn is_broken(&self, breaks: u32) -> bool {
        self.has_ended() || self.breaks.load(Ordering::SeqCst) != breaks
    }

    fn accept(self: &Arc<Link>, listener: &TcpListener) {
        while !self.has_ended() {
            match listener.accept() {
                Ok((incoming, _)) => {
                    let link = Arc::clone(self);
                    std::thread::spawn(move || link.connect(incoming));
                }
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
    }

    /// Joins an accepted connection with one to the node. If that cannot be had, dropping the first one tells so.
    fn connect(self: &Arc<Link>, incoming: TcpStream) {
        let breaks = self.breaks.load(Ordering::SeqCst);
        // Both directions have a part in a connection's first packets.
        while (self.forth.is_held() || self.back.is_held()) && !self.is_broken(breaks) {
            std::thread::sleep(PAUSE);
        }
        let Ok(outgoing) = TcpStream::connect_timeout(&self.target, Duration::from_secs(1)) else { return };
        let copy = |stream: &TcpStream| stream.try_clone().expect("another handle of the socket");
        let (back_in, back_out) = (copy(&outgoing), copy(&incoming));
        let link = Arc::clone(self);
        std::thread::spawn(move || link.pump(&link.back, back_in, back_out, breaks));
        self.pump(&self.forth, incoming, outgoing, breaks);
    }

    /// Carries bytes in one direction until either side or the relay ends the connection.
    fn pump(&self, way: &Way, mut source: TcpStream, mut sink: TcpStream, breaks: u32) {
        source.set_nonblocking(false).expect("a socket option");
        source.set_read_timeout(Some(PAUSE)).expect("a socket option");
        sink.set_nodelay(true).expect("a socket option");
        let mut buffer = vec![0; 64 << 10];
        while !self.is_broken(breaks) {
            let count = match source.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    continue;
                }
                Err(_) => break,
            };
            let delivered = self.deliver(way, &buffer[..count], &mut sink, breaks);
            if !matches!(delivered, Ok(true)) {
                break;
            }
        }
        let _ = source.shutdown(Shutdown::Both);
        let _ = sink.shutdown(Shutdown::Both);
    }

    /// Hands bytes on as the state of this direction asks for. Says whether the connection is still wanted.
    fn deliver(&self, way: &Way, bytes: &[u8], sink: &mut TcpStream, breaks: u32) -> std::io::Result<bool> {
        let read_at = Instant::now();
        let mut rest = bytes;
        while !rest.is_empty() {
            // Looked at again and again: whoever heals the links waits for nothing.
            while way.is_held() || read_at.elapsed() < way.delay() {
                if self.is_broken(breaks) {
                    return Ok(false);
                }
                std::thread::sleep(PAUSE);
            }
            let piece_bytes = way.piece_bytes.load(Ordering::SeqCst);
            let (piece, others) =
                rest.split_at(if piece_bytes == 0 { rest.len() } else { piece_bytes.min(rest.len()) });
            sink.write_all(piece)?;
            if !others.is_empty() {
                std::thread::sleep(PIECE_PAUSE);
            }
            rest = others;
        }
        Ok(!self.is_broken(breaks))
    }
}

impl Way {
    fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    fn delay(&self) -> Duration {
        Duration::from_millis(u64::from(self.delay_ms.load(Ordering::SeqCst)))
    }
}
