//! Following keys: streams of changes, and requests that wait for one.
//!
//! [`Hub`] knows who follows what and how far everybody is. It reads the replica's history of changes and its state, and
//! hands out encoded events; the sockets are behind [`Outlets`]. A change finds its watchers by its key and the prefixes of
//! its key, without a look at the others, and is encoded once for all of them. A watcher that nothing happens to costs
//! nothing but memory.
//!
//! A watcher that cannot take more stays behind: its place is a number in the history, which is bounded, and so is its
//! buffer. When the history has gone on without it, its stream is closed.
//!
//! What a stream promises. Events come in the order of revisions, each once, none left out. Whoever has the event that
//! carries an id (a JSON line without `more`) has everything up to its revision, the whole transaction included, and can
//! go on from there on any node. Where the changes since then are not known, the stream says `reset`, shows every key that
//! there is, and says `sync`; between the two, revisions are those of the keys and not in order. A comment with a
//! revision says that everything up to it was sent.
//!
//! What this leaves out: the values before a change, and filters other than key ranges.

mod dump;
mod event;
mod filter;
mod hub;
mod index;
mod serving;
mod shared;
mod watcher;

pub use event::Format;
pub use filter::Filter;
pub use hub::{Hub, Outlets, TooManyWatchers};
pub use watcher::{Fired, WaitFor};
