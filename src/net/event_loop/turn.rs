//! One turn of the loop, step by step.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::{Events, Poll};

use crate::limits::{ACCEPTS_PER_TURN_MAX, SHUTDOWN_MS_MAX};
use crate::net::api::{
    Action, ClusterView, HandedOver, MetricsView, Render, StatusPage, render, render_hand_over,
    render_metrics, render_status,
};
use crate::net::client::{Call, CallId, ClientContext};
use crate::net::event_loop::clients::{Clients, Waiting};
use crate::net::event_loop::clock::Clock;
use crate::net::event_loop::hand_overs::{HandOvers, WaitingHandOver};
use crate::net::event_loop::house::House;
use crate::net::event_loop::listeners::Listeners;
use crate::net::event_loop::metered_storage::MeteredStorage;
use crate::net::event_loop::observer::Observer;
use crate::net::event_loop::setup::RunError;
use crate::net::event_loop::source::Source;
use crate::net::http::response::Response;
use crate::net::metrics::TurnTimes;
use crate::net::peer::{PeerEvent, Peers};
use crate::net::signals::Signals;
use crate::net::slab::Key;
use crate::net::watch::Hub;
use crate::raft::message::Envelope;
use crate::replica::hand_over::HandOverError;
use crate::replica::io::{Housekeeping, Outcome, Reply, Standing, Storage, StorageError, Ticket, TurnOutput};
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
    pub(super) replica: Replica<MeteredStorage<S>>,
    /// Who follows keys.
    pub(super) hub: Hub<Ticket>,
    pub(super) observer: Observer,
    /// Empty between the steps; kept for its memory.
    pub(super) messages: Vec<Envelope>,
    pub(super) house: House,
    pub(super) turns: TurnTimes,
    pub(super) hand_overs: HandOvers,
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
        // The process may have stood still between the look at the clock and the reading. What was read then must not be
        // taken for older than it is: a key's life counts from here.
        let now = self.clock.now();
        self.send(now)?;
        let output = self.sync(now)?;
        self.answer(now, output.replies);
        self.follow(now);
        self.write(now, &output.messages)?;
        self.house.pay(now, &mut self.replica)?;
        self.reap(now);
        Ok(())
    }

    /// Sleeps until there is something to do, unless there is already. What is read in the turn is read at the time that
    /// this returns, or later.
    ///
    /// The turn that just ended may have been long, so this looks at the clock and not at that turn's time.
    fn wait(&mut self) -> Result<Millis, RunError> {
        let now = self.clock.now();
        let sleep = if self.has_work() || self.next_deadline() <= now {
            Some(Some(Duration::ZERO))
        } else {
            // The housekeeping has looked at the sockets already.
            (self.keep_house(now)? != Housekeeping::More).then(|| self.time_to_sleep(now))
        };
        let is_making_snapshot = self.replica.raft().storage().snapshot_draft().is_some();
        self.turns.end(self.clock.elapsed(), is_making_snapshot);
        if let Some(timeout) = sleep {
            self.look_at_sockets(timeout)?;
        }
        let woken = self.clock.elapsed();
        self.turns.begin(woken);
        // Only for the Date header of answers; a wrong clock does no harm.
        if let Ok(since_epoch) = SystemTime::now().duration_since(UNIX_EPOCH) {
            self.client_context.date.set(since_epoch.as_secs());
        }
        Ok(Clock::millis(woken))
    }

    fn look_at_sockets(&mut self, timeout: Option<Duration>) -> Result<(), RunError> {
        match self.poll.poll(&mut self.events, timeout) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            Err(source) => Err(RunError::System { action: "wait for sockets", source }),
        }
    }

    /// Time that would be slept goes to the housekeeping, if no socket has anything to say. [`Housekeeping::More`]: this
    /// is no turn to sleep in.
    fn keep_house(&mut self, now: Millis) -> Result<Housekeeping, RunError> {
        if !self.house.is_due(now, &self.replica) {
            return Ok(Housekeeping::Later);
        }
        self.look_at_sockets(Some(Duration::ZERO))?;
        if !self.events.is_empty() {
            return Ok(Housekeeping::More);
        }
        Ok(self.house.keep(now, &mut self.replica)?)
    }

    /// `None`: until a socket has something to say.
    fn time_to_sleep(&self, now: Millis) -> Option<Duration> {
        // A snapshot that became whole may have left something to do.
        let deadline = self.next_deadline().min(self.house.next_deadline().unwrap_or(Millis::NEVER));
        (deadline < Millis::NEVER).then(|| Duration::from_millis(deadline.0.saturating_sub(now.0)))
    }

    fn has_work(&self) -> bool {
        let has_input = self.listeners.has_work() || self.peers.has_work() || self.clients.has_work();
        has_input || self.hub.has_work(self.replica.history())
    }

    fn next_deadline(&self) -> Millis {
        let others = [
            self.peers.next_deadline(),
            self.clients.next_deadline(),
            self.listeners.next_deadline(),
            self.hub.next_deadline(),
            self.hand_overs.next_deadline(),
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
                Source::Client(key) => self.clients.handle_event(now, key, event),
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
            Action::Submit { request, timeout_ms, mut render } => {
                let mut is_begun = false;
                if let Render::Follow(follow) = &mut render {
                    follow.begin(now);
                    let serves = self.replica.raft().standing() == Standing::Voter && self.stop_by.is_none();
                    is_begun = serves && follow.begins_at_once(self.replica.store().applied_index());
                }
                let ticket = self.clients.open_ticket(client, call.id, render);
                if is_begun {
                    let revision = self.replica.store().applied_index();
                    return self.answer(now, vec![Reply { ticket, revision, outcome: Outcome::Reached }]);
                }
                let deadline = now.after(timeout_ms.unwrap_or(self.request_timeout_ms));
                self.replica.submit(now, ticket, request, deadline);
            }
            Action::Status(page) => {
                let response = self.describe(now, page);
                self.clients.respond(now, client, call.id, response);
            }
            Action::Metrics => {
                let response = self.describe_metrics(now);
                self.clients.respond(now, client, call.id, response);
            }
            Action::HandOver { to, timeout_ms } => {
                let deadline = now.after(timeout_ms.unwrap_or(self.request_timeout_ms));
                if let Err(end) = self.begin_hand_over(now, client, call.id, to, deadline) {
                    self.answer_hand_over(now, client, call.id, end);
                }
            }
        }
    }

    /// Whoever asks waits for the end, unless there is one already.
    fn begin_hand_over(
        &mut self,
        now: Millis,
        client: Key,
        call: CallId,
        to: Option<String>,
        deadline: Millis,
    ) -> Result<(), HandedOver> {
        let to = match to {
            None => None,
            Some(name) => Some(self.observer.member(&name).ok_or(HandedOver::NoSuchNode(name))?),
        };
        let term = self.replica.raft().term();
        let successor = match (self.replica.transfer_leadership_to(now, to), self.replica.raft().leader()) {
            (Ok(successor), _) => successor,
            (Err(HandOverError::NotLeader), Some(leader)) if to == Some(leader) => leader,
            (Err(HandOverError::NotLeader), Some(leader)) => return Err(HandedOver::NotLeader(leader)),
            (Err(HandOverError::NotLeader), None) => return Err(HandedOver::NoLeader),
            (Err(HandOverError::TooEarly), _) => return Err(HandedOver::TooEarly),
            (Err(HandOverError::Busy), _) => return Err(HandedOver::Busy),
            (Err(HandOverError::NoSuccessor), _) => return Err(HandedOver::NoSuccessor(to)),
        };
        self.hand_overs.push(WaitingHandOver { client, call, to: successor, term, deadline });
        Ok(())
    }

    fn answer_hand_over(&mut self, now: Millis, client: Key, call: CallId, end: HandedOver) {
        let members = self.observer.members(&self.peers);
        let cluster = ClusterView { now, members: &members };
        let response = render_hand_over(end, &cluster, self.observer.view());
        self.clients.respond(now, client, call, response);
    }

    fn describe(&self, now: Millis, page: StatusPage) -> Response {
        let members = self.observer.members(&self.peers);
        let cluster = ClusterView { now, members: &members };
        render_status(page, &self.replica.status(), &cluster, self.observer.view())
    }

    fn describe_metrics(&self, now: Millis) -> Response {
        let members = self.observer.members(&self.peers);
        let cluster = ClusterView { now, members: &members };
        let raft = self.replica.raft();
        let metrics = MetricsView {
            in_flight: self.replica.in_flight(),
            synced_index: raft.synced_index(),
            log_bytes: raft.storage().log_bytes(),
            client_connections: self.clients.len(),
            responses: &self.client_context.responses,
            client_traffic: &self.client_context.traffic,
            peer_traffic: self.peers.traffic(),
            storage: raft.storage().usage(),
            turns: &self.turns,
        };
        render_metrics(&metrics, &self.replica.status(), &cluster, self.observer.view())
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
        self.observer.set_time(self.replica.logical_now(now));
        if self.observer.look(now, &self.replica.status()) {
            self.client_context.names.set(self.observer.view());
        }
        Ok(output)
    }

    /// 6: replies become responses.
    fn answer(&mut self, now: Millis, replies: Vec<Reply>) {
        for reply in replies {
            let Some(waiting) = self.clients.take_waiting(reply.ticket) else { continue };
            match waiting.render {
                Render::Follow(follow) => {
                    let waiting = Waiting { render: Render::Stream, ..waiting };
                    self.begin_to_follow(now, waiting, *follow, reply);
                }
                how => {
                    let response = render(how, reply, self.observer.view());
                    self.clients.respond(now, waiting.client, waiting.call, response);
                }
            }
        }
        if !self.hand_overs.is_empty() {
            let is_handing_over = self.replica.is_handing_over();
            for (client, call, end) in
                self.hand_overs.take_ended(now, &self.replica.status(), is_handing_over)
            {
                self.answer_hand_over(now, client, call, end);
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
        for ticket in self.clients.take_drained() {
            self.hub.drained(ticket);
        }
        Ok(())
    }

    /// 8: closes what was given up. Nobody waits for the answers of connections that ended.
    fn reap(&mut self, _now: Millis) {
        self.peers.reap();
        self.hand_overs.forget(|client| !self.clients.has(client));
        for ticket in self.clients.reap() {
            self.replica.cancel(ticket);
            self.hub.remove(ticket);
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
        self.hub.end_waits();
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
        Ok(self.replica.into_storage().into_inner())
    }
}
