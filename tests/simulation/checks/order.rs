//! Does the order of the log agree with real time, over all keys and kinds of requests? Together with every answer being
//! what the model says at its revision, that is linearizability.

/// A request with a place in the order of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    /// When it began, in the time of the history.
    pub(crate) call: u64,
    pub(crate) end: u64,
    pub(crate) revision: u64,
    /// Whether the entry `revision` is its own.
    pub(crate) is_logged: bool,
}

/// What began after something else was over has a later place; what is no entry may have the same.
///
/// # Panics
/// When it is not so.
pub(crate) fn check(spans: &[Span]) {
    let mut by_call = spans.to_vec();
    by_call.sort_by_key(|span| span.call);
    let mut by_end = spans.to_vec();
    by_end.sort_by_key(|span| span.end);
    let mut over = by_end.into_iter().peekable();
    let mut latest: Option<Span> = None;
    for span in by_call {
        while let Some(earlier) = over.next_if(|earlier| earlier.end < span.call) {
            if latest.is_none_or(|latest| latest.revision < earlier.revision) {
                latest = Some(earlier);
            }
        }
        let Some(latest) = latest else { continue };
        let is_late_enough =
            span.revision > latest.revision || span.revision == latest.revision && !span.is_logged;
        assert!(is_late_enough, "went back in time: {span:?} began after {latest:?} was over");
    }
}
