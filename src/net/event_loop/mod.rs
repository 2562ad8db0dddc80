//! The loop: one thread, one poll, one replica.
//!
//! ```text
//!  poll(no wait if work is left, else until the next deadline)       now = clock
//!   1 read    each ready socket, within a byte budget
//!   2 step    peers first, then clients; appends, queues, never blocks
//!   3 time    deadlines, after the input: a slow turn must not depose a live leader
//!   4 send    what needs no sync -> peers' sockets                   now = clock
//!   5 sync    one fdatasync, or none
//!   6 apply   committed entries -> answers, events of watched keys
//!   7 write   promises and answers -> sockets
//!   8 reap    close what was given up
//! ```
//!
//! The order is what makes it correct and fast. Whatever is read in one turn is made durable by one sync. The leader's
//! entries travel to its peers (4) while its own disk writes them (5). Nothing that promises durability leaves before
//! the sync: it does not exist before (5). Heartbeats that waited in a socket during a long turn are read (1) before the
//! election timer is looked at (3).
//!
//! A failed storage ends the loop in the middle of the turn, so that nothing else leaves the node.
//!
//! Work that has time - the snapshot of the state machine, the log's next file, reading files to see whether they are
//! still right - is done in slices, in turns that would sleep. While a snapshot is in the making and the log grows, a
//! slice follows every busy turn too, as large as the log's growth asks: the log cannot run away from the snapshot that
//! is to make it shorter.
//!
//! Tables: [`clients`] and [`crate::net::peer`] know their sockets; this module moves what they say to the replica and
//! back.
//!
//! What this leaves out: other threads. A long sync holds everything up for as long as it takes; what is written between
//! two syncs is therefore bounded.

pub mod clients;
pub mod clock;
pub mod deadlines;
pub mod listeners;
pub mod source;

mod client_socket;
mod following;
mod hand_overs;
mod house;
mod observer;
mod setup;
mod streams;
mod turn;

use std::rc::Rc;

use mio::{Events, Poll, Token};

pub use self::listeners::Listeners;
pub use self::setup::{NodeSetup, RunError};
use self::turn::EventLoop;
use crate::limits::POLL_EVENTS_MAX;
use crate::net::client::ClientContext;
use crate::net::event_loop::clients::Clients;
use crate::net::event_loop::clock::Clock;
use crate::net::event_loop::hand_overs::HandOvers;
use crate::net::event_loop::house::House;
use crate::net::event_loop::observer::Observer;
use crate::net::event_loop::source::Source;
use crate::net::peer::Peers;
use crate::net::signals::Signals;
use crate::net::watch::Hub;
use crate::replica::io::Storage;
use crate::replica::replica::Replica;

/// Runs a node until SIGTERM or SIGINT, and gives its storage back, with everything durable, to be closed.
///
/// # Errors
/// When the storage fails or the system refuses what the loop cannot do without. The process must end then without
/// using the storage again.
pub fn run<S: Storage>(setup: NodeSetup<'_, S>) -> Result<S, RunError> {
    let mut event_loop = build(setup)?;
    while !event_loop.is_done() {
        event_loop.turn()?;
    }
    event_loop.finish()
}

fn build<S: Storage>(setup: NodeSetup<'_, S>) -> Result<EventLoop<S>, RunError> {
    let clock = Clock::start();
    let now = clock.now();
    let system = |action| move |source| RunError::System { action, source };
    let poll = Poll::new().map_err(system("watch sockets"))?;
    let registry = || poll.registry().try_clone().map_err(system("watch sockets"));
    let signals = Signals::register(poll.registry(), Token::from(Source::Signals))
        .map_err(system("take over signals"))?;
    let redial_pause_max = setup.config.heartbeat_interval_ms();
    let peers = Peers::new(
        setup.identity(),
        setup.peers(),
        registry()?,
        redial_pause_max,
        setup.seed.wrapping_add(1),
    );
    let client_context = Rc::new(ClientContext { limits: setup.client_limits(), ..ClientContext::default() });
    let connections_max = setup::reserve_descriptors(setup.config.limits.client_connections_max);
    let clients = Clients::new(registry()?, Rc::clone(&client_context), connections_max);
    let mut observer = Observer::new(setup.node.id, &setup.config.nodes);
    let replica_config = setup.replica_config();
    let request_timeout_ms = setup.config.limits.request_timeout_ms;
    let mut listeners = setup.listeners;
    let replica = Replica::new(replica_config, setup.storage, now)?;
    let hub = Hub::new(replica.history(), replica.store());
    let status = replica.status();
    observer.look(now, &status);
    client_context.names.set(observer.view());
    log::info!(
        "the log ends at {} in term {}, applied up to {}",
        status.last_index,
        status.term,
        status.applied_index
    );
    listeners.register(poll.registry()).map_err(system("watch sockets"))?;
    Ok(EventLoop {
        events: Events::with_capacity(POLL_EVENTS_MAX),
        poll,
        clock,
        signals,
        listeners,
        peers,
        clients,
        client_context,
        request_timeout_ms,
        replica,
        hub,
        observer,
        messages: Vec::new(),
        house: House::default(),
        hand_overs: HandOvers::default(),
        stop_by: None,
    })
}
