//! Addresses for test clusters that no other test, in this process or another, uses at the same time.
//!
//! Every address of 127.0.0.0/8 is this machine. A cluster takes one of them for itself and then uses fixed ports on
//! it, so nothing has to be bound, released and hoped for. Taking an address means to listen on its guard port for as
//! long as it is needed: the kernel lets only one process do so, and lets go when the process ends, however it ends.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// The port whose listener says that the address is taken. Below the range of ports for outgoing connections.
const GUARD_PORT: u16 = 7_000;

/// One address of this machine, taken until dropped.
#[derive(Debug)]
pub struct LoopbackAddress {
    address: Ipv4Addr,
    _guard: TcpListener,
}

impl LoopbackAddress {
    /// Takes a free address.
    pub fn take() -> LoopbackAddress {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Processes start far from one another, so that a clash, which only costs another try, is rare.
        let start = std::process::id().wrapping_mul(2_654_435_761);
        for _ in 0..100_000 {
            let number = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let [_, second, third, fourth] = number.to_be_bytes();
            // 127.0.x.x is left to people, and the last byte stays clear of what looks like a network or broadcast.
            let address = Ipv4Addr::new(127, 1 + second % 254, third, 1 + fourth % 254);
            if let Ok(guard) = TcpListener::bind((address, GUARD_PORT)) {
                return LoopbackAddress { address, _guard: guard };
            }
        }
        panic!("no free address in 127.0.0.0/8: can this machine listen on 127.1.2.3 at all?");
    }

    /// The address itself.
    pub fn ip(&self) -> Ipv4Addr {
        self.address
    }

    /// Where peers reach the node with this position, counted from 0.
    pub fn keva_port(&self, position: usize) -> u16 {
        7_001 + u16::try_from(position).expect("clusters are small")
    }

    /// Where clients reach the node with this position, counted from 0.
    pub fn user_port(&self, position: usize) -> u16 {
        8_001 + u16::try_from(position).expect("clusters are small")
    }
}
