//! One turn of the loop, step by step.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll};

use crate::limits::{ACCEPTS_PER_TURN_MAX, SHUTDOWN_MS_MAX};
use crate::net::api::{Action, ClusterView, StatusPage, render, render_status};
use crate::net::client::{Call, ClientContext};
use crate::net::event_loop::clients::Clients;
use crate::net::event_loop::clock::Clock;
use crate::net::event_loop::house::House;
use crate::net::event_loop::listeners::Listeners;
use crate::net::event_loop::observer::Observer;
use crate::net::event_loop::setup::RunError;
use crate::net::event_loop::source::Source;
use crate::net::http::response::Response;
use crate::net::peer::{PeerEvent, Peers};
use crate::net::signals::Signals;
use crate::net::slab::Key;
use crate::raft::message::Envelope;
use crate::replica::io::{Housekeeping, Reply, Storage, StorageError, TurnOutput};
use crate::replica::replica::Replica;
use crate::util::time::Millis;

/// Everything that a running node consists of.
pub(super) struct EventLoop<S: Storage> {
    pub(super) poll: Poll,
    pub(super) events: Events,
    pub(super) clock: Clock,
    pub(super) signals: Signals,
    pub(super) listeners: Listeners,
    pub(super) peers: Peers,
    pub(super) clients: Clients,
    pub(super) client_context: Rc<ClientContext>,
    /// For requests that name no time of their own.
    pub(super) request_timeout_ms: u64,
    pub(super) replica: Replica<S>,
    pub(super) observer: Observer,
    /// Empty between the steps; kept for its memory.
    pub(super) messages: Vec<Envelope>,
    pub(super) house: House,
    /// The node is stopping, and stops at this time at the latest.
    pub(super) stop_by: Option<Millis>,
}

impl<S: Storage> EventLoop<S> {
    /// One turn, in the order that the module's text explains.
    pub(super) fn turn(&mut self) -> Result<(), RunError> {
        let now = self.wait()?;
        self.read(now)?;
        self.step(now)?;
        self.handle_deadlines(now)?;
        self.send(now)?;
        let output = self.sync(now)?;
        self.answer(now, output.replies);
        self.write(now, &output.messages)?;
        self.house.pay(now, &mut self.replica)?;
        self.reap(now);
        Ok(())
    }

    /// Sleeps until there is something to do, unless there is already. The rest of the turn happens at the time that
    /// this returns.
    fn wait(&mut self) -> Result<Millis, RunError> {
        let timeout = self.timeout()?;
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            Err(source) => return Err(RunError::System { action: "wait for sockets", source }),
        }
        // Only for the Date header of answers; a wrong clock does no harm.
        if let Ok(since_epoch) = SystemTime::now().duration_since(UNIX_EPOCH) {
            self.client_context.date.set(since_epoch.as_secs());
        }
        Ok(self.clock.now())
    }

    /// How long to sleep: not at all when work is left. Time that would be slept goes to the housekeeping.
    ///
    /// The turn that just ended may have been long, so this looks at the clock and not at that turn's time.
    fn timeout(&mut self) -> Result<Option<Duration>, RunError> {
        let now = self.clock.now();
        let is_busy = self.has_work() || self.next_deadline() <= now;
        if is_busy || self.house.keep(now, &mut self.replica)? == Housekeeping::More {
            return Ok(Some(Duration::ZERO));
        }
        // A snapshot that became whole may have left something to do.
        let deadline = self.next_deadline().min(self.house.next_deadline().unwrap_or(Millis::NEVER));
        Ok((deadline < Millis::NEVER).then(|| Duration::from_millis(deadline.0.saturating_sub(now.0))))
    }

    fn has_work(&self) -> bool {
        self.listeners.has_work() || self.peers.has_work() || self.clients.has_work()
    }

    fn next_deadline(&self) -> Millis {
        let others = [
            self.peers.next_deadline(),
            self.clients.next_deadline(),
            self.listeners.next_deadline(),
            self.stop_by,
        ];
        others.into_iter().flatten().fold(self.replica.next_deadline(), Millis::min)
    }

    /// 1: reads each ready socket, within a byte budget.
    fn read(&mut self, now: Millis) -> Result<(), RunError> {
        let mut has_signal = false;
        for event in &self.events {
            match Source::of(event.token()) {
                Source::PeerListener => self.listeners.peers.handle_event(),
                Source::ClientListener => {
                    if let Some(clients) = &mut self.listeners.clients {
                        clients.handle_event();
                    }
                }
                Source::Signals => has_signal = self.signals.take_stop(),
                Source::PeerLink(key) => self.peers.handle_event(now, key, event),
                Source::Client(key) => self.clients.handle_event(key, event),
            }
        }
        self.accept(now);
        self.peers.read(now);
        self.clients.read(now);
        // Last, so that what came before the signal is answered.
        if has_signal {
            self.handle_stop_signal(now)?;
        }
        Ok(())
    }

    fn accept(&mut self, now: Millis) {
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            let Some((stream, remote)) = self.listeners.peers.accept(now) else { break };
            self.peers.accept(now, stream, remote);
        }
        for _ in 0..ACCEPTS_PER_TURN_MAX {
            let listener = self.listeners.clients.as_mut();
            let Some((stream, _)) = listener.and_then(|listener| listener.accept(now)) else { break };
            self.clients.accept(now, stream);
        }
    }

    /// 2: peers first, then clients.
    fn step(&mut self, now: Millis) -> Result<(), StorageError> {
        for event in self.peers.take_events() {
            match event {
                PeerEvent::Message(envelope) => self.replica.handle_envelope(now, envelope)?,
                PeerEvent::Connected { peer, life } => {
                    self.replica.handle_peer_connected(now, peer, life);
                }
                PeerEvent::Lost { peer } => self.replica.handle_peer_lost(now, peer),
            }
        }
        while let Some((client, call)) = self.clients.take_call() {
            self.carry_out(now, client, call);
        }
        Ok(())
    }

    fn carry_out(&mut self, now: Millis, client: Key, call: Call) {
        match call.action {
            Action::Submit { request, timeout_ms, render } => {
                let ticket = self.clients.open_ticket(client, call.id, render);
                let deadline = now.after(timeout_ms.unwrap_or(self.request_timeout_ms));
                self.replica.submit(now, ticket, request, deadline);
            }
            Action::Status(page) => {
                let response = self.describe(now, page);
                self.clients.respond(now, client, call.id, response);
            }
        }
    }

    fn describe(&self, now: Millis, page: StatusPage) -> Response {
        let members = self.observer.members(&self.peers);
        let cluster = ClusterView { now, members: &members };
        render_status(page, &self.replica.status(), &cluster, self.observer.view())
    }

    /// 3: whatever is due, after the input.
    fn handle_deadlines(&mut self, now: Millis) -> Result<(), StorageError> {
        self.replica.handle_deadline(now)?;
        self.peers.handle_deadline(now, &self.clock);
        self.listeners.handle_deadline(now);
        self.clients.handle_deadline(now);
        Ok(())
    }

    /// 4: what needs no sync leaves before it.
    fn send(&mut self, now: Millis) -> Result<(), StorageError> {
        self.replica.drain_immediate(now, &mut self.messages)?;
        for envelope in self.messages.drain(..) {
            self.peers.send(now, &envelope);
        }
        self.peers.flush(now);
        Ok(())
    }

    /// 5 and 6: the turn's one durable point, and what it makes possible.
    fn sync(&mut self, now: Millis) -> Result<TurnOutput, StorageError> {
        let output = self.replica.sync(now)?;
        if self.observer.look(now, &self.replica.status()) {
            self.client_context.names.set(self.observer.view());
        }
        Ok(output)
    }

    /// 6: replies become responses.
    fn answer(&mut self, now: Millis, replies: Vec<Reply>) {
        for reply in replies {
            if let Some(waiting) = self.clients.take_waiting(reply.ticket) {
                let response = render(waiting.render, reply, self.observer.view());
                self.clients.respond(now, waiting.client, waiting.call, response);
            }
        }
    }

    /// 7: promises to peers, then what the sync made possible (a new commit index is announced at once), then answers
    /// to clients.
    fn write(&mut self, now: Millis, promises: &[Envelope]) -> Result<(), StorageError> {
        for envelope in promises {
            self.peers.send(now, envelope);
        }
        self.send(now)?;
        self.clients.write(now);
        Ok(())
    }

    /// 8: closes what was given up. Nobody waits for the answers of connections that ended.
    fn reap(&mut self, _now: Millis) {
        self.peers.reap();
        for ticket in self.clients.reap() {
            self.replica.cancel(ticket);
        }
    }

    /// The first signal begins a clean stop: no new connections, leadership goes to another node, what was received is
    /// answered. The second one ends the process.
    fn handle_stop_signal(&mut self, now: Millis) -> Result<(), RunError> {
        if self.stop_by.is_some() {
            return Err(RunError::Forced);
        }
        log::info!("stopping; a second signal stops at once");
        self.stop_by = Some(now.after(SHUTDOWN_MS_MAX));
        self.listeners.close_clients();
        self.clients.start_shutdown(now);
        self.replica.start_shutdown(now);
        Ok(())
    }

    /// The clean stop is over, or its time.
    pub(super) fn is_done(&self) -> bool {
        let Some(stop_by) = self.stop_by else { return false };
        // With no peer to be reached, nobody is there to take leadership over.
        let is_handed_over =
            self.replica.is_shut_down() || !self.peers.status().any(|peer| peer.is_connected);
        (is_handed_over && self.clients.is_empty()) || stop_by <= self.clock.now()
    }

    /// After the last turn.
    pub(super) fn finish(mut self) -> Result<S, RunError> {
        if !self.clients.is_empty() {
            log::warn!("stopping although some requests are not answered: they took too long");
        }
        self.replica.close()?;
        log::info!("stopped");
        Ok(self.replica.into_storage())
    }
}
