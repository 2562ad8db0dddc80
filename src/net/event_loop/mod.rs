//! x
pub mod clock;
pub mod deadlines;
pub mod source;
