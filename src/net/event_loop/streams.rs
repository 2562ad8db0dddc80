//! The table of connections as the place where events of watched keys go.

use std::sync::Arc;

use crate::net::event_loop::clients::{Clients, Waiting};
use crate::net::http::response::Response;
use crate::net::slab::Key;
use crate::net::watch::Outlets;
use crate::replica::io::Ticket;
use crate::util::time::Millis;

impl Clients {
    /// Keeps a ticket open that was taken: the answer comes later.
    ///
    /// # Panics
    /// When the client is not there: its ticket was just taken.
    pub(super) fn put_back(&mut self, ticket: Ticket, waiting: Waiting) {
        let socket = self.table.get_mut(waiting.client).expect("its ticket was just taken");
        socket.tickets.push(ticket);
        self.waiting.insert(ticket, waiting);
    }

    /// Answers a request with a stream. Its ticket stays open until the connection ends.
    ///
    /// # Panics
    /// When the client is not there: its ticket was just taken.
    pub(super) fn begin_stream(&mut self, now: Millis, ticket: Ticket, waiting: Waiting, response: Response) {
        let (client, call) = (waiting.client, waiting.call);
        self.put_back(ticket, waiting);
        self.table.get_mut(client).expect("its ticket was just taken").begin_stream(ticket);
        self.respond(now, client, call, response);
    }

    /// Streams that take more than they did.
    pub(super) fn take_drained(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.drained)
    }

    fn stream_of(&self, ticket: Ticket) -> Option<Key> {
        self.waiting.get(&ticket).map(|waiting| waiting.client)
    }
}

impl Outlets<Ticket> for Clients {
    fn unsent_bytes(&self, id: Ticket) -> Option<usize> {
        let socket = self.table.get(self.stream_of(id)?).filter(|socket| !socket.is_closing)?;
        socket.connection.stream_unsent_bytes()
    }

    fn send(&mut self, now: Millis, id: Ticket, event: &Arc<[u8]>) {
        let Some(key) = self.stream_of(id) else { return };
        let Some(socket) = self.table.get_mut(key).filter(|socket| !socket.is_closing) else { return };
        socket.connection.send_piece(now, event);
        socket.handle_stream_full();
        self.touch(key);
    }

    fn close(&mut self, id: Ticket) {
        let Some(key) = self.stream_of(id) else { return };
        log::debug!("closed a stream of changes: its client reads too slowly");
        self.table
            .get_mut(key)
            .expect("tickets of closed connections are forgotten")
            .connection
            .abort_stream();
        self.touch(key);
    }
}
