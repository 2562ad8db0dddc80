//! Listings: what users ask, and whether every page is the state at its revision.

use keva::kv::range::KeyRange;
use serde_json::Value;

use crate::answer::{Answer, decode_percent, encode_percent};
use crate::asks::Request;
use crate::checks::Record;
use crate::checks::model::Content;

/// A listing.
#[derive(Clone, Debug)]
pub(crate) struct List {
    pub(crate) range: KeyRange,
    pub(crate) limit: Option<usize>,
    pub(crate) with_values: bool,
    pub(crate) is_count: bool,
    pub(crate) is_json: bool,
    pub(crate) is_stale: bool,
}

impl List {
    pub(crate) fn to_request(&self) -> Request {
        let mut request = Request::new("GET", "/v1/storage/keys");
        let KeyRange { prefix, start, end, after } = &self.range;
        if !prefix.is_empty() {
            request.query.push(format!("prefix={}", encode_percent(prefix)));
        }
        for (name, bound) in [("start", start), ("end", end), ("after", after)] {
            request.query.extend(bound.iter().map(|key| format!("{name}={}", encode_percent(key))));
        }
        if self.is_count {
            request.query.push("count".to_owned());
        } else {
            request.query.extend(self.limit.map(|limit| format!("limit={limit}")));
            request.query.extend(self.with_values.then(|| "values".to_owned()));
        }
        request.query.extend(self.is_stale.then(|| "consistency=stale".to_owned()));
        request.headers.extend(self.is_json.then(|| "Accept: application/json".to_owned()));
        request
    }

    fn contains(&self, key: &str) -> bool {
        let KeyRange { start, end, after, .. } = &self.range;
        start.as_deref().is_none_or(|start| start <= key)
            && end.as_deref().is_none_or(|end| key < end)
            && after.as_deref().is_none_or(|after| after < key)
    }

    pub(crate) fn check(&self, record: &Record, revision: u64, answer: &Answer) -> Result<(), String> {
        if answer.head.status != 200 {
            return Err("a listing is never refused".to_owned());
        }
        let all = record.model.range(&self.range.prefix, revision).filter(|(key, _)| self.contains(key));
        let all: Vec<(&str, &Content)> = all.map(|(key, content)| (&**key, content)).collect();
        if self.is_count {
            return self.check_count(all.len(), revision, answer);
        }
        let (listed, next) =
            if self.is_json { self.read_json(revision, answer)? } else { read_text(answer)? };
        let names = || all.iter().map(|(key, _)| *key).collect::<Vec<_>>();
        let is_prefix = listed.len() <= all.len().min(self.limit.unwrap_or(1000))
            && listed.iter().zip(&all).all(|(listed, (key, content))| listed.agrees(key, content));
        if !is_prefix {
            return Err(format!("there are {:?}", names()));
        }
        let is_whole = listed.len() == all.len();
        if is_whole == next.is_some() || listed.is_empty() != all.is_empty() {
            return Err(format!("the end is wrong, there are {:?}", names()));
        }
        Ok(())
    }

    fn check_count(&self, count: usize, revision: u64, answer: &Answer) -> Result<(), String> {
        let is_right = if self.is_json {
            let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            body["count"] == count && body["revision"] == revision
        } else {
            *answer.body == *format!("{count}\n").as_bytes()
        };
        if is_right { Ok(()) } else { Err(format!("there are {count} keys")) }
    }

    fn read_json(&self, revision: u64, answer: &Answer) -> Result<(Vec<Listed>, Option<String>), String> {
        let body: Value = serde_json::from_slice(&answer.body).map_err(|error| error.to_string())?;
        if body["revision"] != revision {
            return Err("another revision than in the head".to_owned());
        }
        let keys = body["keys"].as_array().ok_or("no keys")?;
        let listed = keys.iter().map(|key| Listed {
            key: key["key"].as_str().unwrap_or_default().to_owned(),
            size: key["size"].as_u64(),
            revision: key["revision"].as_u64(),
            ttl: Some(key.get("ttl").map(|ttl| ttl.as_u64().expect("a life is a number"))),
            value: self.with_values.then(|| key["value"].as_str().unwrap_or_default().to_owned()),
        });
        Ok((listed.collect(), body["next"].as_str().map(str::to_owned)))
    }

    /// The request for the next page, if there is one.
    pub(crate) fn next_page(&self, answer: &Answer) -> Option<List> {
        if self.is_count || answer.head.status != 200 {
            return None;
        }
        let next = match self.is_json {
            true => serde_json::from_slice::<Value>(&answer.body).ok()?["next"].as_str()?.to_owned(),
            false => answer.head.next.clone()?,
        };
        let range = KeyRange { after: Some(next), ..self.range.clone() };
        Some(List { range, ..self.clone() })
    }
}

/// A key as a listing shows it; `None` for what the listing does not show.
#[derive(Debug)]
struct Listed {
    key: String,
    size: Option<u64>,
    revision: Option<u64>,
    ttl: Option<Option<u64>>,
    value: Option<String>,
}

impl Listed {
    fn agrees(&self, key: &str, content: &Content) -> bool {
        self.key == key
            && self.size.is_none_or(|size| size == content.value.len() as u64)
            && self.revision.is_none_or(|revision| revision == content.revision)
            && self.value.as_ref().is_none_or(|value| *value.as_bytes() == *content.value)
            && self.ttl.is_none_or(|ttl| match (ttl, content.ttl_ms) {
                (None, None) => true,
                (Some(left), Some(ttl_ms)) => left <= ttl_ms.div_ceil(1000),
                _ => false,
            })
    }
}

fn read_text(answer: &Answer) -> Result<(Vec<Listed>, Option<String>), String> {
    let text = std::str::from_utf8(&answer.body).map_err(|error| error.to_string())?;
    let listed = text.lines().map(|line| Listed {
        key: decode_percent(line),
        size: None,
        revision: None,
        ttl: None,
        value: None,
    });
    Ok((listed.collect(), answer.head.next.clone()))
}
