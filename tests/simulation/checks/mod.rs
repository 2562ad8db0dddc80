//! What must be true at any time, whatever breaks: looked at after every step that can change it.

mod atlas;
pub(crate) mod durable;
mod lives;
pub(crate) mod model;
mod notes;
pub(crate) mod order;
pub(crate) mod record;
mod safety;
mod snapshots;
pub(crate) mod stream;

pub(crate) use atlas::{Harm, place};
pub(crate) use record::Record;
pub(crate) use safety::Checks;
