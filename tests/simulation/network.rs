//! Connections between hosts: byte streams that keep order and lose nothing, as TCP does, but that are slow, stall, are
//! cut into pieces, and break.
//!
//! Hosts are numbered: nodes first, then users. A connection has two sides, 0 dialled and 1 accepted, and a pipe from
//! each side to the other.

use std::collections::VecDeque;

use fastrand::Rng;
use keva::limits::PEER_SILENCE_MS_MAX;

use crate::env::Event;
use crate::plan::{Plan, exponential, stream};

/// How long TCP waits before it sends lost bytes again.
const RETRANSMISSION_US: u64 = 20_000;

/// One side of a connection: twice the connection's number, plus the side.
pub(crate) type Socket = usize;

#[derive(Debug)]
enum Item {
    /// SYN.
    Dial,
    /// SYN, ACK.
    Accepted,
    Data(Vec<u8>),
    /// FIN.
    End,
    /// RST.
    Reset,
}

/// What is on its way in one direction.
#[derive(Debug, Default)]
struct Pipe {
    items: VecDeque<(u64, Item)>,
    bytes: usize,
    last_due: u64,
    is_scheduled: bool,
    stalled_since: Option<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Connecting,
    Open,
    /// The other side or the network broke it.
    Broken,
    /// Nobody listened.
    Refused,
    /// This side's process has closed it, or is gone.
    Closed,
    /// The host lost its power and with it all memory of the connection.
    Forgotten,
}

#[derive(Debug)]
struct End {
    host: usize,
    status: Status,
    received: Vec<u8>,
    /// The other side sends nothing more.
    is_ended: bool,
    wants_room: bool,
    is_listed: bool,
}

/// A host's part in the network.
#[derive(Debug)]
struct Host {
    is_listening: bool,
    has_power: bool,
    /// Sockets with something new.
    ready: Vec<Socket>,
    accepted: Vec<Socket>,
}

/// What a read found behind the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadEnd {
    Empty,
    Ended,
    Broken,
    Refused,
}

/// See the module's text.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) now: u64,
    rng: Rng,
    pipes: Vec<Pipe>,
    ends: Vec<End>,
    hosts: Vec<Host>,
    nodes: usize,
    blocked: Vec<bool>,
    /// Events for the queue.
    pub(crate) scheduled: Vec<(u64, Event)>,
    /// Hosts that have something to look at.
    pub(crate) woken: Vec<usize>,
    pub(crate) hash: u64,
    pub(crate) stalled_out: u64,
    pub(crate) full: u64,
    delay_min: u64,
    delay_mean: u64,
    loss: u32,
    reset: u32,
    cut: u32,
    capacity: usize,
    /// Of connections with hosts from `followers` on.
    follower_capacity: usize,
    followers: usize,
}

impl Network {
    pub(crate) fn new(plan: &Plan) -> Network {
        let host = || Host { is_listening: false, has_power: true, ready: Vec::new(), accepted: Vec::new() };
        Network {
            now: 0,
            rng: stream(plan.seed, 2),
            pipes: Vec::new(),
            ends: Vec::new(),
            hosts: (0..plan.nodes + plan.users + plan.followers).map(|_| host()).collect(),
            nodes: plan.nodes,
            blocked: vec![false; plan.nodes * plan.nodes],
            scheduled: Vec::new(),
            woken: Vec::new(),
            hash: 0,
            stalled_out: 0,
            full: 0,
            delay_min: plan.delay_min,
            delay_mean: plan.delay_mean,
            loss: plan.loss,
            reset: plan.reset,
            cut: plan.cut,
            capacity: plan.capacity,
            follower_capacity: plan.capacity.min(plan.follower_capacity),
            followers: plan.nodes + plan.users,
        }
    }

    // ---- what hosts do --------------------------------------------------------------------------

    pub(crate) fn dial(&mut self, from: usize, to: usize) -> Socket {
        let socket = self.ends.len();
        for (host, status) in [(from, Status::Connecting), (to, Status::Connecting)] {
            self.ends.push(End {
                host,
                status,
                received: Vec::new(),
                is_ended: false,
                wants_room: false,
                is_listed: false,
            });
            self.pipes.push(Pipe::default());
        }
        self.put(socket, Item::Dial);
        socket
    }

    pub(crate) fn status(&self, socket: Socket) -> Status {
        self.ends[socket].status
    }

    pub(crate) fn host_of(&self, socket: Socket) -> usize {
        self.ends[socket].host
    }

    /// Gives bytes to a connection and says how many it took.
    pub(crate) fn write(&mut self, socket: Socket, bytes: &[u8]) -> usize {
        if self.ends[socket].status != Status::Open {
            return 0;
        }
        let held = self.pipes[socket].bytes + self.ends[socket ^ 1].received.len();
        let is_followers = self.ends[socket ^ 1].host >= self.followers;
        let capacity = if is_followers { self.follower_capacity } else { self.capacity };
        let room = capacity.saturating_sub(held).min(bytes.len());
        if room < bytes.len() {
            self.ends[socket].wants_room = true;
            self.full += 1;
        }
        let mut rest = &bytes[..room];
        while !rest.is_empty() {
            let is_cut = rest.len() > 1 && self.chance(self.cut);
            let len = if is_cut { self.rng.usize(1..rest.len()) } else { rest.len() };
            let (chunk, after) = rest.split_at(len);
            rest = after;
            if self.chance(self.reset) {
                self.put(socket, Item::Data(chunk[..len / 2].to_vec()));
                self.put(socket, Item::Reset);
                return room;
            }
            self.put(socket, Item::Data(chunk.to_vec()));
        }
        room
    }

    /// Takes what has arrived.
    pub(crate) fn read(&mut self, socket: Socket, into: &mut Vec<u8>) -> ReadEnd {
        into.append(&mut self.ends[socket].received);
        let writer = socket ^ 1;
        if self.ends[writer].wants_room {
            self.ends[writer].wants_room = false;
            self.list(writer);
        }
        match self.ends[socket].status {
            Status::Refused => ReadEnd::Refused,
            Status::Broken | Status::Closed | Status::Forgotten => ReadEnd::Broken,
            Status::Open | Status::Connecting if self.ends[socket].is_ended => ReadEnd::Ended,
            Status::Open | Status::Connecting => ReadEnd::Empty,
        }
    }

    /// Whether the other side writes nothing behind what can be read.
    pub(crate) fn is_ended(&self, socket: Socket) -> bool {
        self.ends[socket].is_ended
    }

    /// No more will be written.
    pub(crate) fn shut_write(&mut self, socket: Socket) {
        if self.ends[socket].status == Status::Open {
            self.put(socket, Item::End);
        }
    }

    /// Closes a socket. Unread input makes that a reset, as on a real system.
    pub(crate) fn close(&mut self, socket: Socket) {
        let end = &mut self.ends[socket];
        let is_alive = matches!(end.status, Status::Open | Status::Connecting);
        let has_unread = !end.received.is_empty();
        end.received = Vec::new();
        end.status = Status::Closed;
        if is_alive {
            self.put(socket, if has_unread { Item::Reset } else { Item::End });
        }
    }

    pub(crate) fn take_ready(&mut self, host: usize) -> Vec<Socket> {
        let ready = std::mem::take(&mut self.hosts[host].ready);
        for socket in &ready {
            self.ends[*socket].is_listed = false;
        }
        ready
    }

    /// Connections that have come in, with the host that dialled.
    pub(crate) fn take_accepted(&mut self, host: usize) -> Vec<(Socket, usize)> {
        let accepted = std::mem::take(&mut self.hosts[host].accepted);
        accepted.into_iter().map(|socket| (socket, self.ends[socket ^ 1].host)).collect()
    }

    // ---- what happens to hosts ------------------------------------------------------------------

    pub(crate) fn set_listening(&mut self, host: usize, is_listening: bool) {
        self.hosts[host].is_listening = is_listening;
        self.hosts[host].has_power = true;
    }

    /// The process is gone: its system closes its sockets.
    pub(crate) fn end_process(&mut self, host: usize) {
        self.hosts[host].is_listening = false;
        for socket in self.sockets_of(host) {
            self.close(socket);
        }
        self.forget_lists(host);
    }

    /// The host is gone without a word.
    pub(crate) fn end_power(&mut self, host: usize) {
        self.hosts[host].is_listening = false;
        self.hosts[host].has_power = false;
        for socket in self.sockets_of(host) {
            let end = &mut self.ends[socket];
            end.status = Status::Forgotten;
            end.received = Vec::new();
            self.pipes[socket].items.clear();
            self.pipes[socket].bytes = 0;
            // Nobody acknowledges what the other side sends, and nobody answers its probes.
            let at = self.now + PEER_SILENCE_MS_MAX * 1000;
            self.pipes[socket].stalled_since = Some(self.now);
            self.scheduled.push((at, Event::Silence { pipe: socket, since: self.now }));
        }
        self.forget_lists(host);
    }

    fn forget_lists(&mut self, host: usize) {
        drop(self.take_ready(host));
        self.hosts[host].accepted.clear();
    }

    fn sockets_of(&self, host: usize) -> Vec<Socket> {
        let is_alive = |end: &End| matches!(end.status, Status::Open | Status::Connecting);
        let dialled_or_accepted =
            |socket: &usize| socket.is_multiple_of(2) || self.ends[*socket].status == Status::Open;
        (0..self.ends.len())
            .filter(|socket| self.ends[*socket].host == host && is_alive(&self.ends[*socket]))
            .filter(dialled_or_accepted)
            .collect()
    }

    // ---- what happens to the network ------------------------------------------------------------

    pub(crate) fn block(&mut self, from: usize, to: usize) {
        self.blocked[from * self.nodes + to] = true;
    }

    /// Everything gets through again. What stalled goes on, or is found to be broken.
    pub(crate) fn heal(&mut self) {
        self.blocked.fill(false);
        for pipe in 0..self.pipes.len() {
            if self.pipes[pipe].stalled_since.is_some() && !self.pipes[pipe].items.is_empty() {
                self.pipes[pipe].stalled_since = None;
                let at = self.now + 1 + self.rng.u64(..RETRANSMISSION_US);
                self.pipes[pipe].is_scheduled = true;
                self.scheduled.push((at, Event::Deliver { pipe }));
            }
        }
    }

    /// From here on the network is good.
    pub(crate) fn calm_down(&mut self, delay: u64) {
        (self.loss, self.reset, self.delay_min, self.delay_mean) = (0, 0, delay / 2, delay);
        self.heal();
    }

    /// Breaks a connection at both ends.
    pub(crate) fn break_connection(&mut self, socket: Socket) {
        for side in [socket, socket ^ 1] {
            self.break_end(side);
            self.pipes[side].items.clear();
            self.pipes[side].bytes = 0;
        }
    }

    fn break_end(&mut self, socket: Socket) {
        if matches!(self.ends[socket].status, Status::Open | Status::Connecting) {
            self.ends[socket].status = Status::Broken;
            self.list(socket);
        }
    }

    pub(crate) fn handle_silence(&mut self, pipe: usize, since: u64) {
        if self.pipes[pipe].stalled_since == Some(since) {
            self.stalled_out += 1;
            self.break_connection(pipe);
        }
    }

    // ---- the way --------------------------------------------------------------------------------

    fn chance(&mut self, rate: u32) -> bool {
        rate > 0 && self.rng.u32(..1 << 16) < rate
    }

    fn is_blocked(&self, pipe: usize) -> bool {
        let (from, to) = (self.ends[pipe].host, self.ends[pipe ^ 1].host);
        from < self.nodes && to < self.nodes && self.blocked[from * self.nodes + to]
    }

    fn put(&mut self, pipe: usize, item: Item) {
        let mut delay = self.delay_min + exponential(&mut self.rng, self.delay_mean - self.delay_min);
        if self.chance(self.loss) {
            delay += RETRANSMISSION_US + self.rng.u64(..RETRANSMISSION_US);
        }
        let target = &mut self.pipes[pipe];
        let due = (self.now + delay).max(target.last_due);
        target.last_due = due;
        if let Item::Data(bytes) = &item {
            target.bytes += bytes.len();
        }
        target.items.push_back((due, item));
        if !target.is_scheduled && target.stalled_since.is_none() {
            target.is_scheduled = true;
            self.scheduled.push((due, Event::Deliver { pipe }));
        }
    }

    /// The first items of a pipe are due.
    pub(crate) fn deliver(&mut self, pipe: usize) {
        self.pipes[pipe].is_scheduled = false;
        if self.is_blocked(pipe) {
            if self.pipes[pipe].stalled_since.is_none() {
                self.pipes[pipe].stalled_since = Some(self.now);
                let at = self.now + PEER_SILENCE_MS_MAX * 1000;
                self.scheduled.push((at, Event::Silence { pipe, since: self.now }));
            }
            return;
        }
        while let Some((_, item)) = self.pipes[pipe].items.pop_front_if(|(due, _)| *due <= self.now) {
            self.arrive(pipe, item);
        }
        let target = &mut self.pipes[pipe];
        if let Some((due, _)) = target.items.front()
            && !target.is_scheduled
        {
            target.is_scheduled = true;
            self.scheduled.push((*due, Event::Deliver { pipe }));
        }
    }

    fn arrive(&mut self, pipe: usize, item: Item) {
        let socket = pipe ^ 1;
        let host = self.ends[socket].host;
        if !self.hosts[host].has_power {
            if let Item::Data(bytes) = item {
                self.pipes[pipe].bytes -= bytes.len();
            }
            return;
        }
        match item {
            Item::Dial if self.hosts[host].is_listening => {
                self.ends[socket].status = Status::Open;
                self.hosts[host].accepted.push(socket);
                self.woken.push(host);
                self.put(socket, Item::Accepted);
            }
            Item::Dial => {
                self.ends[socket].status = Status::Closed;
                self.put(socket, Item::Reset);
            }
            Item::Accepted => {
                if self.ends[socket].status == Status::Connecting {
                    self.ends[socket].status = Status::Open;
                    self.list(socket);
                }
            }
            Item::Data(bytes) => self.arrive_data(pipe, &bytes),
            Item::End => {
                if self.ends[socket].status == Status::Open {
                    self.ends[socket].is_ended = true;
                    self.list(socket);
                }
            }
            Item::Reset => {
                if self.ends[socket].status == Status::Connecting {
                    self.ends[socket].status = Status::Refused;
                    self.list(socket);
                }
                self.break_end(socket);
            }
        }
    }

    fn arrive_data(&mut self, pipe: usize, bytes: &[u8]) {
        let socket = pipe ^ 1;
        self.pipes[pipe].bytes -= bytes.len();
        if self.ends[socket].status == Status::Open {
            self.hash = self.hash.rotate_left(7) ^ u64::from(crc32c::crc32c(bytes)) ^ (pipe as u64) << 32;
            self.ends[socket].received.extend_from_slice(bytes);
            self.list(socket);
        } else if matches!(self.ends[socket].status, Status::Closed | Status::Forgotten) {
            self.put(socket, Item::Reset);
        }
    }

    /// Tells the socket's owner that there is something new.
    fn list(&mut self, socket: Socket) {
        let end = &mut self.ends[socket];
        if matches!(end.status, Status::Closed | Status::Forgotten) || end.is_listed {
            return;
        }
        end.is_listed = true;
        self.hosts[end.host].ready.push(socket);
        self.woken.push(end.host);
    }

    /// Any open connection between two nodes, for a fault.
    pub(crate) fn random_node_connection(&mut self) -> Option<Socket> {
        self.random_connection(|_| true)
    }

    /// A connection between this node and another one.
    pub(crate) fn random_connection_of(&mut self, node: usize) -> Option<Socket> {
        self.random_connection(|hosts| hosts.contains(&node))
    }

    fn random_connection(&mut self, is_meant: impl Fn([usize; 2]) -> bool) -> Option<Socket> {
        let open: Vec<Socket> = (0..self.ends.len())
            .step_by(2)
            .filter(|socket| self.ends[*socket].status == Status::Open)
            .filter(|socket| {
                let hosts = [self.ends[*socket].host, self.ends[socket ^ 1].host];
                hosts.iter().all(|host| *host < self.nodes) && is_meant(hosts)
            })
            .collect();
        if open.is_empty() { None } else { Some(open[self.rng.usize(..open.len())]) }
    }
}
