//! Transactions as JSON: `{"if": [...], "then": [...], "else": [...]}`.
//!
//! Strict: what is unknown, missing, given twice or of a wrong type is an error that names its place. Whatever the text
//! says, the memory used for it is a small multiple of what a transaction may have.

use std::fmt;
use std::marker::PhantomData;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::kv::command::{Command, CommandError, Operation, Requirement, Transaction, check_key};
use crate::limits::{CONTENT_TYPE_BYTES_MAX, KEY_BYTES_MAX, TRANSACTION_OPERATIONS_MAX};
use crate::net::api::content_type::is_storable;
use crate::net::api::query::{bad_ttl, parse_ttl_ms};
use crate::net::http::problem::Problem;
use crate::net::http::status::Status;
use crate::raft::types::Index;

/// The whole body.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TransactionJson {
    #[serde(rename = "if", default, deserialize_with = "list_if")]
    conditions: Vec<ConditionJson>,
    #[serde(deserialize_with = "list_then")]
    then: Vec<OperationJson>,
    #[serde(rename = "else", default, deserialize_with = "list_else")]
    otherwise: Option<Vec<OperationJson>>,
}

/// An element of `if`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionJson {
    key: String,
    #[serde(default, deserialize_with = "given")]
    rev: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    absent: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    exists: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    value: Option<String>,
    #[serde(default, deserialize_with = "given")]
    value_base64: Option<String>,
}

/// An element of `then` or `else`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationJson {
    #[serde(default, deserialize_with = "given")]
    put: Option<String>,
    #[serde(default, deserialize_with = "given")]
    add: Option<String>,
    #[serde(default, deserialize_with = "given")]
    delete: Option<String>,
    #[serde(default, deserialize_with = "given")]
    get: Option<String>,
    #[serde(default, deserialize_with = "given")]
    value: Option<String>,
    #[serde(default, deserialize_with = "given")]
    value_base64: Option<String>,
    #[serde(default, deserialize_with = "given")]
    content_type: Option<String>,
    #[serde(default, deserialize_with = "given")]
    ttl: Option<String>,
    #[serde(default, deserialize_with = "given")]
    by: Option<i64>,
}

/// A JSON object. What is derived would also take an array, member by member.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object<T>, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData)).map(Object)
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// An array of objects, counted while it is read, so that short elements cannot take much memory.
struct ListVisitor<T> {
    name: &'static str,
    element: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array for \"{}\"", self.name)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        let name = self.name;
        loop {
            let place = |error| A::Error::custom(format!("{name}[{}]: {error}", list.len()));
            let Some(Object(element)) = sequence.next_element().map_err(place)? else { return Ok(list) };
            if list.len() == TRANSACTION_OPERATIONS_MAX {
                let detail = format!("\"{name}\" has more than {TRANSACTION_OPERATIONS_MAX} elements");
                return Err(A::Error::custom(detail));
            }
            list.push(element);
        }
    }
}

fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    name: &'static str,
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    deserializer.deserialize_seq(ListVisitor { name, element: PhantomData })
}

fn list_if<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ConditionJson>, D::Error> {
    list("if", deserializer)
}

fn list_then<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<OperationJson>, D::Error> {
    list("then", deserializer)
}

fn list_else<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<OperationJson>>, D::Error> {
    list("else", deserializer).map(Some)
}

/// A member that is there: `null` is not the same as leaving it out.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// What is wrong with one element, without its place.
type ElementError = (Status, String);

/// Longest text of a parser's error that is passed on whole: it may quote what the client sent.
const ERROR_CHARS_MAX: usize = 300;

/// Reads a transaction. Values have at most `value_bytes_max` bytes.
///
/// # Errors
/// 400 when it is none, 413 when it or one of its values is too long.
pub fn parse_transaction(body: &[u8], value_bytes_max: usize) -> Result<Transaction, Problem> {
    let Object(json) = serde_json::from_slice::<Object<TransactionJson>>(body).map_err(|error| {
        let detail = format!("the body is no transaction: {}", without_middle(&error.to_string()));
        bad(Status::BadRequest, detail)
    })?;
    let conditions = convert(json.conditions, "if", |json| condition(json, value_bytes_max))?;
    let then = convert(json.then, "then", |json| operation(json, value_bytes_max))?;
    let otherwise = match json.otherwise {
        None => None,
        Some(list) => Some(convert(list, "else", |json| operation(json, value_bytes_max))?),
    };
    Ok(Transaction { conditions, then, otherwise })
}

/// Checks what is to be true of the transaction as a whole.
///
/// # Errors
/// 400 when it does too much, 413 when it is too long.
pub fn check_transaction(command: &Command) -> Result<(), Problem> {
    command.check().map_err(|error| match error {
        CommandError::TransactionTooLong => bad(Status::ContentTooLarge, error.to_string()),
        _ => bad(Status::BadRequest, error.to_string()),
    })
}

/// The beginning, which says what is wrong, and the end, which says where.
fn without_middle(text: &str) -> String {
    let count = text.chars().count();
    if count <= ERROR_CHARS_MAX {
        return text.to_owned();
    }
    let start: String = text.chars().take(ERROR_CHARS_MAX / 2).collect();
    let end: String = text.chars().skip(count - ERROR_CHARS_MAX / 2).collect();
    format!("{start} ... {end}")
}

fn bad(status: Status, detail: String) -> Problem {
    let code = if status == Status::ContentTooLarge { "value-too-large" } else { "bad-transaction" };
    Problem::new(status, code, detail)
}

fn convert<J, T>(
    list: Vec<J>,
    name: &str,
    convert: impl Fn(J) -> Result<T, ElementError>,
) -> Result<Vec<T>, Problem> {
    let elements = list.into_iter().enumerate().map(|(position, json)| {
        convert(json).map_err(|(status, detail)| bad(status, format!("{name}[{position}]: {detail}")))
    });
    elements.collect()
}

fn refuse<T>(detail: impl Into<String>) -> Result<T, ElementError> {
    Err((Status::BadRequest, detail.into()))
}

fn condition(json: ConditionJson, value_bytes_max: usize) -> Result<(String, Requirement), ElementError> {
    let key = key(json.key)?;
    let value = value(json.value, json.value_base64, value_bytes_max)?;
    let requirement = match (json.rev, json.absent, json.exists, value) {
        (Some(0), None, None, None) => {
            return refuse("rev is a revision, from 1; for a key that must not exist write \"absent\":true");
        }
        (Some(revision), None, None, None) => Requirement::Revision(Index(revision)),
        (None, Some(true), None, None) => Requirement::Absent,
        (None, None, Some(true), None) => Requirement::Exists,
        (None, None, None, Some(value)) => Requirement::Value(value),
        (None, Some(false), None, None) => return refuse("for a key that must exist write \"exists\":true"),
        (None, None, Some(false), None) => {
            return refuse("for a key that must not exist write \"absent\":true");
        }
        _ => {
            return refuse(
                "a condition has exactly one of \"rev\", \"absent\", \"exists\", \"value\" and \"value_base64\"",
            );
        }
    };
    Ok((key, requirement))
}

fn operation(json: OperationJson, value_bytes_max: usize) -> Result<Operation, ElementError> {
    let OperationJson { put, add, delete, get, value: text, value_base64, content_type, ttl, by } = json;
    let name = match (&put, &add, &delete, &get) {
        (Some(_), None, None, None) => "put",
        (None, Some(_), None, None) => "add",
        (None, None, Some(_), None) => "delete",
        (None, None, None, Some(_)) => "get",
        _ => return refuse("an operation has exactly one of \"put\", \"add\", \"delete\" and \"get\""),
    };
    let has_value = text.is_some() || value_base64.is_some();
    let surplus = [
        ("value", has_value && name != "put"),
        ("content_type", content_type.is_some() && name != "put"),
        ("ttl", ttl.is_some() && !matches!(name, "put" | "add")),
        ("by", by.is_some() && name != "add"),
    ];
    if let Some((member, _)) = surplus.into_iter().find(|(_, is_there)| *is_there) {
        return refuse(format!("\"{name}\" takes no \"{member}\""));
    }
    let key = key(put.or(add).or(delete).or(get).expect("one of them is there"))?;
    let ttl_ms = ttl_ms(ttl)?;
    match name {
        "put" => {
            let Some(value) = value(text, value_base64, value_bytes_max)? else {
                return refuse("\"put\" needs a \"value\" or a \"value_base64\"");
            };
            Ok(Operation::Put { key, value, content_type: content_type_of(content_type)?, ttl_ms })
        }
        "add" => match by {
            Some(by) => Ok(Operation::Add { key, by, ttl_ms }),
            None => refuse("\"add\" needs \"by\", a whole number"),
        },
        "delete" => Ok(Operation::Delete { key }),
        _ => Ok(Operation::Get { key }),
    }
}

fn key(key: String) -> Result<String, ElementError> {
    match check_key(&key) {
        Ok(()) => Ok(key),
        Err(CommandError::KeyEmpty) => refuse("the key is empty"),
        Err(_) => refuse(format!("the key has {} bytes; at most {KEY_BYTES_MAX} are allowed", key.len())),
    }
}

fn value(
    text: Option<String>,
    base64: Option<String>,
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, ElementError> {
    let value = match (text, base64) {
        (None, None) => return Ok(None),
        (Some(text), None) => text.into_bytes(),
        (None, Some(base64)) => match BASE64.decode(base64) {
            Ok(bytes) => bytes,
            Err(error) => return refuse(format!("\"value_base64\" is not standard base64: {error}")),
        },
        (Some(_), Some(_)) => {
            return refuse("\"value\" and \"value_base64\" exclude one another; give one of them");
        }
    };
    if value.len() > bytes_max {
        let detail = format!("the value has {} bytes; at most {bytes_max} are allowed", value.len());
        return Err((Status::ContentTooLarge, detail));
    }
    Ok(Some(value))
}

fn ttl_ms(ttl: Option<String>) -> Result<Option<u64>, ElementError> {
    let Some(text) = ttl else { return Ok(None) };
    match parse_ttl_ms(&text) {
        Some(ms) => Ok(Some(ms)),
        None => refuse(bad_ttl("\"ttl\"", &text)),
    }
}

/// It becomes a header, so it must be able to be one.
fn content_type_of(name: Option<String>) -> Result<Option<String>, ElementError> {
    match name {
        Some(name) if !is_storable(name.as_bytes()) => {
            refuse(format!("\"content_type\" must be 1 to {CONTENT_TYPE_BYTES_MAX} visible ASCII characters"))
        }
        name => Ok(name),
    }
}
