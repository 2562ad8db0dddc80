//! Requests that follow keys: how they begin, and how those that wait for a change are answered.

use crate::net::api::follow::{Follow, Goal, Wait, Watch};
use crate::net::api::{Render, render};
use crate::net::event_loop::clients::Waiting;
use crate::net::event_loop::turn::EventLoop;
use crate::net::http::problem::Problem;
use crate::net::http::response::Response;
use crate::net::http::status::Status;
use crate::net::watch::{Fired, TooManyWatchers};
use crate::replica::io::{ChangeKind, Consistency, Outcome, Reply, Request, Storage, Ticket};
use crate::util::time::Millis;

impl<S: Storage> EventLoop<S> {
    /// The replica has answered a request that goes on from there.
    pub(super) fn begin_to_follow(&mut self, now: Millis, waiting: Waiting, follow: Follow, reply: Reply) {
        let is_failure = !matches!(reply.outcome, Outcome::Reached | Outcome::Value(_));
        if is_failure {
            let response = render(Render::Follow(Box::new(follow)), reply, self.observer.view());
            return self.clients.respond(now, waiting.client, waiting.call, response);
        }
        if let Some(problem) = follow.refusal(self.replica.store().applied_index()) {
            return self.refuse(now, &waiting, &problem);
        }
        match follow {
            Follow::Watch(watch) => self.begin_stream(now, waiting, &watch, reply.ticket),
            Follow::Wait(wait) => self.begin_to_wait(now, waiting, wait, reply),
        }
    }

    fn begin_stream(&mut self, now: Millis, waiting: Waiting, watch: &Watch, ticket: Ticket) {
        let (store, history) = (self.replica.store(), self.replica.history());
        let response = self.signed(watch.response(store.applied_index()));
        if watch.is_head {
            return self.clients.respond(now, waiting.client, waiting.call, response);
        }
        let filter = watch.filter.clone();
        match self.hub.watch(now, ticket, filter, watch.format, watch.since, history, store) {
            Ok(()) => {
                let waiting = Waiting { render: Render::Stream, ..waiting };
                self.clients.begin_stream(now, ticket, waiting, response);
            }
            Err(TooManyWatchers) => self.refuse(now, &waiting, &too_many_watchers()),
        }
    }

    fn begin_to_wait(&mut self, now: Millis, waiting: Waiting, wait: Wait, reply: Reply) {
        let since = match (&wait.goal, &reply.outcome) {
            (Goal::Key { .. }, Outcome::Value(item)) => {
                if wait.goal.is_answer(item.as_ref()) || self.stop_by.is_some() {
                    let response = render(wait.render, reply, self.observer.view());
                    return self.clients.respond(now, waiting.client, waiting.call, response);
                }
                reply.revision
            }
            (Goal::List { above, .. }, _) if self.stop_by.is_some() => {
                let response = self.signed(wait.unchanged_listing(*above));
                return self.clients.respond(now, waiting.client, waiting.call, response);
            }
            (Goal::List { above, .. }, _) => *above,
            (Goal::Key { .. }, outcome) => unreachable!("{outcome:?} is no answer to a read"),
        };
        let (store, history) = (self.replica.store(), self.replica.history());
        let (goal, until, since) = (&wait.goal, wait.until, Some(since));
        let taken =
            self.hub.wait(now, reply.ticket, goal.filter(), goal.wait_for(), since, until, history, store);
        match taken {
            Ok(()) => {
                let render = Render::Follow(Box::new(Follow::Wait(wait)));
                self.clients.put_back(reply.ticket, Waiting { render, ..waiting });
            }
            Err(TooManyWatchers) => self.refuse(now, &waiting, &too_many_watchers()),
        }
    }

    /// Hands out what the turn has changed, and answers those who waited for it.
    pub(super) fn follow(&mut self, now: Millis) {
        self.hub.pump(now, self.replica.history(), self.replica.store(), &mut self.clients);
        for (ticket, fired) in self.hub.take_fired() {
            let Some(waiting) = self.clients.take_waiting(ticket) else { continue };
            match waiting.render {
                Render::Follow(follow) => {
                    let Follow::Wait(wait) = *follow else { unreachable!("a stream waits for nothing") };
                    let waiting = Waiting { render: Render::Stream, ..waiting };
                    self.end_wait(now, ticket, waiting, wait, fired);
                }
                render => unreachable!("{render:?} waits for no change"),
            }
        }
    }

    fn end_wait(&mut self, now: Millis, ticket: Ticket, waiting: Waiting, wait: Wait, fired: Fired) {
        match (&wait.goal, fired) {
            (Goal::Key { .. }, Fired::News(change)) => {
                let item = match change.kind {
                    ChangeKind::Put(item) => Some(item),
                    ChangeKind::Delete | ChangeKind::Expire => None,
                };
                let outcome = Outcome::Value(item);
                self.answer_wait(now, &waiting, wait, Reply { ticket, revision: change.revision, outcome });
            }
            (Goal::Key { key, .. }, Fired::TimeUp { .. }) => {
                let reply = self.present(ticket, key);
                self.answer_wait(now, &waiting, wait, reply);
            }
            // Perhaps it goes on.
            (Goal::Key { key, .. }, Fired::Unknown) => {
                let reply = self.present(ticket, key);
                self.begin_to_wait(now, waiting, wait, reply);
            }
            (Goal::List { above, .. }, Fired::TimeUp { seen })
                if seen.is_some() || self.stop_by.is_some() =>
            {
                let revision = seen.map_or(*above, |seen| seen.max(*above));
                let response = self.signed(wait.unchanged_listing(revision));
                self.clients.respond(now, waiting.client, waiting.call, response);
            }
            // Something has changed, or may have.
            (Goal::List { range, listing, .. }, _) => {
                let (range, listing) = ((**range).clone(), *listing);
                let request = Request::List { range, listing, consistency: Consistency::Stale };
                self.clients.put_back(ticket, Waiting { render: wait.render, ..waiting });
                self.replica.submit(now, ticket, request, now.after(self.request_timeout_ms));
            }
        }
    }

    /// A read of what this node has applied.
    fn present(&self, ticket: Ticket, key: &str) -> Reply {
        let store = self.replica.store();
        Reply { ticket, revision: store.applied_index(), outcome: Outcome::Value(store.get(key).cloned()) }
    }

    fn answer_wait(&mut self, now: Millis, waiting: &Waiting, wait: Wait, reply: Reply) {
        let response = render(wait.render, reply, self.observer.view());
        self.clients.respond(now, waiting.client, waiting.call, response);
    }

    fn refuse(&mut self, now: Millis, waiting: &Waiting, problem: &Problem) {
        let response = self.signed(problem.to_response());
        self.clients.respond(now, waiting.client, waiting.call, response);
    }

    fn signed(&self, mut response: Response) -> Response {
        let view = self.observer.view();
        response.node = Some(view.node.clone());
        response.leader.clone_from(&view.leader);
        response
    }
}

fn too_many_watchers() -> Problem {
    Problem::new(
        Status::ServiceUnavailable,
        "overloaded",
        "too many requests follow keys on this node; try again, or use another node",
    )
}
