//! No key loses its life early: checked against true time, with what the simulation itself does to the clocks.
//!
//! Where all clocks run as they should, a life may be short only by the rounding to milliseconds, once per leader. A clock
//! that was ahead of its leader's at any time stays ahead for as long as that leader is in office, and makes lives short
//! when its node leads next. So where clocks leap, stand still or run at different rates, all by which they were apart at
//! any time is granted.

use std::collections::BTreeMap;

use crate::plan::{Class, Plan};

/// See the module's text. Times are in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    pub(crate) now: u64,
    /// How far clocks leapt, or others did while one stood still, all together.
    pub(crate) leapt: u64,
    drifts: bool,
    /// When a request with a number was first sent.
    asked: BTreeMap<u64, u64>,
    /// How many lives ended.
    pub(crate) count: u64,
}

impl Lives {
    pub(crate) fn new(plan: &Plan) -> Lives {
        Lives { drifts: plan.classes.has(Class::Drift), ..Lives::default() }
    }

    /// A request leaves its user for the first time.
    pub(crate) fn on_ask(&mut self, tag: u64) {
        self.asked.entry(tag).or_insert(self.now);
    }

    /// It is known that a key that this request gave a life is gone.
    pub(crate) fn check_expired(&mut self, tag: u64, ttl_ms: u64, terms: u64) {
        let asked = self.asked.get(&tag).expect("somebody asked for it");
        // One clock may have been slow up to here, and another one fast.
        let fast = if self.drifts { self.now * 2 / 5 } else { 0 };
        let lived = self.now - asked;
        let granted = fast + self.leapt + (terms + 1) * 1000;
        self.count += 1;
        assert!(
            lived + granted >= ttl_ms * 1000,
            "a life of {ttl_ms} ms was over after {lived} us; {granted} us are granted"
        );
    }
}
