//! How requests were answered.

use std::cell::Cell;

use crate::net::http::status::Status;

/// The names of the classes of status codes (RFC 9110, section 15), as they are counted.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Requests that were answered, by the class of the answer's status.
#[derive(Debug, Default)]
pub struct Responses {
    counts: [Cell<u64>; CLASSES.len()],
}

impl Responses {
    /// Counts an answer.
    pub fn count(&self, status: Status) {
        let class = usize::from(status.code() / 100 - 1);
        self.counts[class].update(|count| count + 1);
    }

    /// Each class and how many answers there were of it.
    pub fn by_class(&self) -> impl Iterator<Item = (&'static str, u64)> {
        // Nothing is answered with an interim response alone.
        CLASSES.into_iter().zip(self.counts.iter().map(Cell::get)).skip(1)
    }
}
