//! Requests that follow keys, on a node: what `keva::net::event_loop::following` does.

use keva::net::api::follow::{Follow, Goal, Wait, Watch};
use keva::net::api::{Render, render};
use keva::net::http::response::Response;
use keva::net::watch::Fired;
use keva::replica::io::{ChangeKind, Consistency, Outcome, Reply, Request, Ticket};

use keva::util::time::Millis;

use crate::env::Env;
use crate::marks::Mark;
use crate::node::{Node, Process};
use crate::sessions::Waiting;

impl Node {
    /// Hands out what the turn has changed, and answers those who waited for it.
    pub(crate) fn follow(&mut self, env: &mut Env) {
        let process = self.process.as_mut().expect("only living processes have turns");
        let now = process.now;
        process.hub.pump(now, process.replica.history(), process.replica.store(), &mut process.sessions);
        for _ in 0..std::mem::take(&mut process.sessions.broken_off) {
            env.mark(Mark::WatchLagged);
        }
        for (ticket, fired) in process.hub.take_fired() {
            let Some(waiting) = process.sessions.take_waiting(ticket) else { continue };
            let Render::Follow(follow) = waiting.render else {
                panic!("{:?} waits for no change", waiting.render)
            };
            let Follow::Wait(wait) = *follow else { panic!("a stream waits for nothing") };
            let waiting = Waiting { render: Render::Stream, ..waiting };
            process.end_wait(env, ticket, waiting, wait, fired);
        }
        let is_late = process.hub.next_deadline().is_some_and(|deadline| deadline <= now);
        let is_held_up = !process.replica.store().is_settled();
        if is_held_up {
            env.mark(Mark::RemovalInParts);
        }
        assert!(
            is_held_up || !is_late || process.hub.has_work(process.replica.history()),
            "a request waits for too long"
        );
    }
}

impl Process {
    /// A reply becomes a response, or the beginning of one.
    pub(crate) fn respond(&mut self, env: &Env, reply: Reply) {
        // Nobody waits when the connection broke in this turn.
        let Some(waiting) = self.sessions.take_waiting(reply.ticket) else { return };
        match waiting.render {
            Render::Follow(follow) => {
                let waiting = Waiting { render: Render::Stream, ..waiting };
                self.begin_to_follow(env, waiting, *follow, reply);
            }
            how => {
                let response = render(how, reply, &self.view);
                self.sessions.respond(self.now, waiting.socket, waiting.call, response);
            }
        }
    }

    fn begin_to_follow(&mut self, env: &Env, waiting: Waiting, follow: Follow, reply: Reply) {
        if !matches!(reply.outcome, Outcome::Reached | Outcome::Value(_)) {
            let response = render(Render::Follow(Box::new(follow)), reply, &self.view);
            return self.sessions.respond(self.now, waiting.socket, waiting.call, response);
        }
        if let Some(problem) = follow.refusal(self.replica.store().applied_index()) {
            let response = self.signed(problem.to_response());
            return self.sessions.respond(self.now, waiting.socket, waiting.call, response);
        }
        match follow {
            Follow::Watch(watch) => self.begin_stream(waiting, &watch, reply.ticket),
            Follow::Wait(wait) => self.begin_to_wait(env, waiting, wait, reply),
        }
    }

    fn begin_stream(&mut self, waiting: Waiting, watch: &Watch, ticket: Ticket) {
        let (store, history) = (self.replica.store(), self.replica.history());
        let response = self.signed(watch.response(store.applied_index()));
        let filter = watch.filter.clone();
        let taken = self.hub.watch(self.now, ticket, filter, watch.format, watch.since, history, store);
        taken.expect("there are few followers");
        let waiting = Waiting { render: Render::Stream, ..waiting };
        self.sessions.begin_stream(self.now, ticket, waiting, response);
    }

    fn begin_to_wait(&mut self, env: &Env, waiting: Waiting, wait: Wait, reply: Reply) {
        let since = match (&wait.goal, &reply.outcome) {
            (Goal::Key { .. }, Outcome::Value(item)) => {
                if wait.goal.is_answer(item.as_ref()) || self.stop_by.is_some() {
                    return self.answer_wait(&waiting, wait, reply);
                }
                reply.revision
            }
            (Goal::List { above, .. }, _) if self.stop_by.is_some() => {
                let response = self.signed(wait.unchanged_listing(*above));
                return self.sessions.respond(self.now, waiting.socket, waiting.call, response);
            }
            (Goal::List { above, .. }, _) => *above,
            (Goal::Key { .. }, outcome) => panic!("{outcome:?} is no answer to a read"),
        };
        let (store, history) = (self.replica.store(), self.replica.history());
        let (goal, until) = (&wait.goal, wait.until);
        let (filter, wait_for) = (goal.filter(), goal.wait_for());
        let taken =
            self.hub.wait(self.now, reply.ticket, filter, wait_for, Some(since), until, history, store);
        taken.expect("there are few followers");
        env.trace(|| format!("{:?} waits for {:?} above {since}", reply.ticket, wait.goal));
        // The hub looks after its time.
        let deadline = Millis::NEVER;
        let render = Render::Follow(Box::new(Follow::Wait(wait)));
        self.sessions.put_back(reply.ticket, Waiting { render, deadline, ..waiting });
    }

    fn end_wait(&mut self, env: &mut Env, ticket: Ticket, waiting: Waiting, wait: Wait, fired: Fired) {
        let mark =
            if matches!(fired, Fired::TimeUp { .. }) { Mark::PollTimedOut } else { Mark::PollAnswered };
        env.mark(mark);
        match (&wait.goal, fired) {
            (Goal::Key { .. }, Fired::News(change)) => {
                let item = match change.kind {
                    ChangeKind::Put(item) => Some(item),
                    ChangeKind::Delete | ChangeKind::Expire => None,
                };
                let outcome = Outcome::Value(item);
                self.answer_wait(&waiting, wait, Reply { ticket, revision: change.revision, outcome });
            }
            (Goal::Key { key, .. }, Fired::TimeUp { .. }) => {
                let reply = self.present(ticket, key);
                self.answer_wait(&waiting, wait, reply);
            }
            (Goal::Key { key, .. }, Fired::Unknown) => {
                let reply = self.present(ticket, key);
                self.begin_to_wait(env, waiting, wait, reply);
            }
            (Goal::List { above, .. }, Fired::TimeUp { seen })
                if seen.is_some() || self.stop_by.is_some() =>
            {
                let revision = seen.map_or(*above, |seen| seen.max(*above));
                let response = self.signed(wait.unchanged_listing(revision));
                self.sessions.respond(self.now, waiting.socket, waiting.call, response);
            }
            // Something has changed, or may have.
            (Goal::List { range, listing, .. }, _) => {
                let (range, listing) = ((**range).clone(), *listing);
                let request = Request::List { range, listing, consistency: Consistency::Stale };
                let deadline = self.now.after(env.plan.timeout_ms);
                self.sessions.put_back(ticket, Waiting { render: wait.render, deadline, ..waiting });
                self.replica.submit(self.now, ticket, request, deadline);
            }
        }
    }

    /// A read of what this node has applied.
    fn present(&self, ticket: Ticket, key: &str) -> Reply {
        let store = self.replica.store();
        Reply { ticket, revision: store.applied_index(), outcome: Outcome::Value(store.get(key).cloned()) }
    }

    fn answer_wait(&mut self, waiting: &Waiting, wait: Wait, reply: Reply) {
        let response = render(wait.render, reply, &self.view);
        self.sessions.respond(self.now, waiting.socket, waiting.call, response);
    }

    fn signed(&self, mut response: Response) -> Response {
        response.node = Some(self.view.node.clone());
        response.leader.clone_from(&self.view.leader);
        response
    }
}
