//! SIGTERM and SIGINT as events of the poll.

use std::io;

use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGINT, SIGTERM};

/// The signals that ask the process to stop. While this exists they no longer end the process by themselves.
pub struct Signals(signal_hook_mio::v1_0::Signals);

impl Signals {
    /// Takes the signals over and reports them to the poll.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn register(registry: &Registry, token: Token) -> io::Result<Signals> {
        let mut signals = signal_hook_mio::v1_0::Signals::new([SIGTERM, SIGINT])?;
        registry.register(&mut signals, token, Interest::READABLE)?;
        Ok(Signals(signals))
    }

    /// Whether the process was asked to stop since the last call. Signals that came together count as one.
    pub fn take_stop(&mut self) -> bool {
        self.0.pending().count() > 0
    }
}
