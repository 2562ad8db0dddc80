//! TCP relays between the nodes of a test cluster, to take links down without touching the nodes or the kernel.
//!
//! Each node dials each other node through a relay of its own. A relay that holds delivers nothing, in neither
//! direction, and loses nothing either: what it held arrives when it is opened, as it does when a network comes back
//! and TCP sends again. It can also break the connections that stand.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// How often a relay looks whether it still holds, and whether it is to end.
const PAUSE: Duration = Duration::from_millis(2);

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
    held: AtomicBool,
    /// Counts the times the connections were broken.
    breaks: AtomicU32,
    ended: AtomicBool,
}

impl Relays {
    /// Relays what `from` dials at `listen` to the node `to` at `target`.
    pub fn add(&mut self, from: usize, to: usize, listen: SocketAddr, target: SocketAddr) {
        let listener = TcpListener::bind(listen).expect("the address is this cluster's own");
        listener.set_nonblocking(true).expect("a socket option");
        let (held, breaks, ended) = (AtomicBool::new(false), AtomicU32::new(0), AtomicBool::new(false));
        let link = Arc::new(Link { from, to, target, held, breaks, ended });
        self.links.push(Arc::clone(&link));
        std::thread::spawn(move || link.accept(&listener));
    }

    /// Lets nothing through between this node and all others.
    pub fn isolate(&self, node: usize) {
        self.hold(|link| link.from == node || link.to == node);
    }

    /// Lets nothing through between these two.
    pub fn separate(&self, one: usize, other: usize) {
        self.hold(|link| (link.from, link.to) == (one, other) || (link.from, link.to) == (other, one));
    }

    fn hold(&self, concerns: impl Fn(&Link) -> bool) {
        for link in self.links.iter().filter(|link| concerns(link)) {
            link.held.store(true, Ordering::SeqCst);
        }
    }

    /// Lets everything through again, what was held first.
    pub fn heal(&self) {
        for link in &self.links {
            link.held.store(false, Ordering::SeqCst);
        }
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
        while self.held.load(Ordering::SeqCst) && !self.is_broken(breaks) {
            std::thread::sleep(PAUSE);
        }
        let Ok(outgoing) = TcpStream::connect_timeout(&self.target, Duration::from_secs(1)) else { return };
        let copy = |stream: &TcpStream| stream.try_clone().expect("another handle of the socket");
        let (back_in, back_out) = (copy(&outgoing), copy(&incoming));
        let link = Arc::clone(self);
        std::thread::spawn(move || link.pump(back_in, back_out, breaks));
        self.pump(incoming, outgoing, breaks);
    }

    /// Carries bytes in one direction until either side or the relay ends the connection.
    fn pump(&self, mut source: TcpStream, mut sink: TcpStream, breaks: u32) {
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
            while self.held.load(Ordering::SeqCst) && !self.is_broken(breaks) {
                std::thread::sleep(PAUSE);
            }
            if self.is_broken(breaks) || sink.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = source.shutdown(Shutdown::Both);
        let _ = sink.shutdown(Shutdown::Both);
    }
}
