//! What must be true at any time, whatever breaks: looked at after every step that can change it.

mod atlas;
mod durable;
mod record;
mod safety;
mod snapshots;

pub(crate) use atlas::Harm;
pub(crate) use safety::Checks;
