//! What must be true at any time, whatever breaks: looked at after every step that can change it.

mod durable;
mod record;
mod safety;

pub(crate) use safety::Checks;
