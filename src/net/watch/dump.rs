//! How far the showing of all keys is that a watcher gets who cannot be told what has changed.
//!
//! Keys are shown in their order, a few at a time, always from the state up to which changes were handed out. A change of
//! a key that was shown is an event, one of a key that was not is none: the key is shown as it is when its turn comes.
//! That makes the whole exact at its end, however long it takes.

/// See the module's text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Dump {
    /// Nothing was sent.
    Reset,
    /// Keys are shown; this is the last one that was.
    Keys(Option<Box<str>>),
    /// All were shown, but that was not said.
    Sync,
}

impl Dump {
    /// Whether the key was shown, or passed by because it was not there.
    pub(super) fn covers(&self, key: &str) -> bool {
        match self {
            Dump::Reset | Dump::Keys(None) => false,
            Dump::Keys(Some(last)) => key <= &**last,
            Dump::Sync => true,
        }
    }
}
