//! keva.toml as it is written, before any rule is checked. Every value remembers its place in the file.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use toml::Spanned;

/// The whole file.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) cluster: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) node: Vec<Spanned<Node>>,
    #[serde(default)]
    pub(super) limits: Limits,
    #[serde(default)]
    pub(super) storage: Storage,
}

/// One `[[node]]` table.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) identity: Option<Spanned<String>>,
    pub(super) address: Option<Spanned<String>>,
    pub(super) bind_address: Option<Spanned<String>>,
    pub(super) keva_port: Option<Spanned<Scalar>>,
    pub(super) user_port: Option<Spanned<Scalar>>,
    pub(super) wait_time: Option<Spanned<Scalar>>,
}

/// The `[limits]` table.
#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) max_value_size: Option<Spanned<Scalar>>,
    pub(super) client_connections: Option<Spanned<Scalar>>,
    pub(super) request_timeout: Option<Spanned<Scalar>>,
    pub(super) idle_timeout: Option<Spanned<Scalar>>,
    pub(super) head_timeout: Option<Spanned<Scalar>>,
    pub(super) stall_timeout: Option<Spanned<Scalar>>,
    pub(super) history_size: Option<Spanned<Scalar>>,
}

/// The `[storage]` table.
#[derive(serde::Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct Storage {
    pub(super) segment_size: Option<Spanned<Scalar>>,
    pub(super) snapshot_log_size: Option<Spanned<Scalar>>,
}

/// A number, or a number in quotes. Kept as text, so that both go through the same checks.
pub(super) struct Scalar(pub(super) String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a number in quotes")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar(number.to_string()))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar(text.to_owned()))
    }
}
