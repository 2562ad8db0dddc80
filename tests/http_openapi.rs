//! The OpenAPI document is true: what it names is there, what is there is named, and every answer is as it says.
#![allow(clippy::unwrap_used, reason = "a test may end that way")]

#[path = "support/http.rs"]
mod http;

use std::collections::BTreeSet;

use http::{Answer, Client, VALUE_BYTES_MAX, request};
use keva::util::time::LogicalTime;
use serde_json::Value;

/// The document.
struct Document(Value);

/// One operation of it.
struct Operation<'a> {
    document: &'a Document,
    /// With `{key}` for the key.
    path: &'a str,
    method: String,
    operation: &'a Value,
}

impl Document {
    fn get() -> Document {
        let answer = Client::new().tell("GET", "/v1/openapi.json", "", "");
        assert_eq!(answer.header("content-type"), Some("application/json; charset=utf-8"));
        Document(answer.json())
    }

    /// What a `$ref` means; anything else means itself.
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref") {
            None => value,
            Some(reference) => {
                let pointer =
                    reference.as_str().unwrap().strip_prefix('#').expect("a reference within the document");
                self.0.pointer(pointer).unwrap_or_else(|| panic!("{pointer} is nowhere"))
            }
        }
    }

    fn operations(&self) -> Vec<Operation<'_>> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        let methods = paths.flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().iter().filter(|(name, _)| *name != "parameters");
            methods.map(move |(method, operation)| (path, method, operation))
        });
        methods
            .map(|(path, method, operation)| Operation {
                document: self,
                path,
                method: method.to_uppercase(),
                operation,
            })
            .collect()
    }

    fn operation(&self, method: &str, path: &str) -> Operation<'_> {
        let path = if path.starts_with("/v1/storage/key/") { "/v1/storage/key/{key}" } else { path };
        let found = self.operations().into_iter().find(|one| one.method == method && one.path == path);
        found.unwrap_or_else(|| panic!("{method} {path} is not in the document"))
    }

    /// Checks a value against a schema: the words that the document uses, and no others.
    fn check(&self, value: &Value, schema: &Value) -> Result<(), String> {
        let schema = self.resolve(schema);
        for (word, rule) in schema.as_object().expect("a schema is an object") {
            let holds = match word.as_str() {
                "type" => match rule {
                    Value::Array(types) => types.iter().any(|name| is_type(value, name.as_str().unwrap())),
                    name => is_type(value, name.as_str().unwrap()),
                },
                "const" => value == rule,
                "enum" => rule.as_array().unwrap().contains(value),
                "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
                "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
                "minLength" => value.as_str().is_none_or(|text| text.len() as u64 >= rule.as_u64().unwrap()),
                "maxLength" => value.as_str().is_none_or(|text| text.len() as u64 <= rule.as_u64().unwrap()),
                "minItems" => value.as_array().is_none_or(|list| list.len() as u64 >= rule.as_u64().unwrap()),
                "maxItems" => value.as_array().is_none_or(|list| list.len() as u64 <= rule.as_u64().unwrap()),
                "required" => {
                    let names = rule.as_array().unwrap();
                    names.iter().all(|name| value.get(name.as_str().unwrap()).is_some())
                }
                "items" => {
                    for item in value.as_array().into_iter().flatten() {
                        self.check(item, rule)?;
                    }
                    true
                }
                "properties" => {
                    for (name, schema) in rule.as_object().unwrap() {
                        if let Some(member) = value.get(name) {
                            self.check(member, schema).map_err(|error| format!("{name}: {error}"))?;
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let known = schema["properties"].as_object().unwrap();
                    value.as_object().is_none_or(|object| object.keys().all(|name| known.contains_key(name)))
                }
                "oneOf" => {
                    let fits = rule.as_array().unwrap().iter().filter(|one| self.check(value, one).is_ok());
                    fits.count() == 1
                }
                // Patterns are for readers; the rest only describes.
                "pattern" | "format" | "description" | "default" | "contentEncoding" => true,
                other => panic!("the word {other} is new to this test"),
            };
            if !holds {
                return Err(format!("{value} breaks {word}: {rule}"));
            }
        }
        Ok(())
    }
}

fn is_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("the type {other} is new to this test"),
    }
}

impl Operation<'_> {
    /// The names of the parameters at this place.
    fn parameters(&self, place: &str) -> BTreeSet<String> {
        let common = self.document.0["paths"][self.path].get("parameters");
        let lists = [common, self.operation.get("parameters")];
        let all = lists.into_iter().flatten().flat_map(|list| list.as_array().unwrap());
        all.map(|parameter| self.document.resolve(parameter))
            .filter(|parameter| parameter["in"] == place)
            .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
            .collect()
    }

    fn target(&self) -> String {
        self.path.replace("{key}", "k")
    }

    /// Checks that an answer is one that this operation may give.
    fn check(&self, answer: &Answer) {
        let what = format!("{} {}: {answer:?}", self.method, self.path);
        let response = self.operation["responses"].get(answer.status.to_string());
        let response = self.document.resolve(response.unwrap_or_else(|| panic!("an unknown status: {what}")));
        let headers = response["headers"].as_object().unwrap();
        for (name, value) in &answer.headers {
            if ["Content-Type", "Content-Length", "Connection", "Date"].contains(&name.as_str()) {
                continue;
            }
            let header = headers.get(name).unwrap_or_else(|| panic!("an unknown header {name}: {what}"));
            let schema = &self.document.resolve(header)["schema"];
            let schema = self.document.resolve(schema);
            let value = match schema["type"].as_str().unwrap() {
                "integer" => Value::from(value.parse::<u64>().unwrap()),
                _ => Value::from(value.as_str()),
            };
            self.document.check(&value, schema).unwrap_or_else(|error| panic!("{name}: {error}: {what}"));
        }
        let Some(content) = response.get("content").and_then(Value::as_object) else {
            assert_eq!(answer.body, b"", "{what}");
            return;
        };
        if content.contains_key("*/*") || self.method == "HEAD" {
            return;
        }
        let media_type = answer.header("content-type").unwrap_or_else(|| panic!("no type: {what}"));
        let media = content.get(media_type).unwrap_or_else(|| panic!("an unknown type: {what}"));
        let value = if media_type.contains("json") { answer.json() } else { Value::from(answer.text()) };
        self.document.check(&value, &media["schema"]).unwrap_or_else(|error| panic!("{error}: {what}"));
    }
}

#[test]
fn the_document_is_of_this_version_and_whole() {
    let document = Document::get();
    assert_eq!(document.0["openapi"], "3.1.0");
    assert_eq!(document.0["info"]["version"], env!("CARGO_PKG_VERSION"));
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
        match value {
            Value::Object(members) => {
                if members.contains_key("$ref") {
                    found.push(value);
                }
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document.0, &mut found);
    let used: BTreeSet<*const Value> =
        found.iter().map(|one| std::ptr::from_ref(document.resolve(one))).collect();
    for (kind, parts) in document.0["components"].as_object().unwrap() {
        for (name, part) in parts.as_object().unwrap() {
            assert!(used.contains(&std::ptr::from_ref(part)), "{kind}/{name} is used nowhere");
        }
    }
    let ids: BTreeSet<&str> =
        document.operations().iter().map(|one| one.operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), document.operations().len(), "every operation has its own name");
}

/// Every path and method of the document is there, and no others are at its paths.
#[test]
fn paths_and_methods() {
    let document = Document::get();
    for path in document.0["paths"].as_object().unwrap().keys() {
        let target = path.replace("{key}", "k");
        let known: BTreeSet<String> = document
            .operations()
            .iter()
            .filter(|one| one.path == path)
            .map(|one| one.method.clone())
            .collect();
        let refused = Client::new().tell("PATCH", &target, "", "");
        assert_eq!(refused.status, 405, "{path}");
        let allowed: BTreeSet<String> =
            refused.header("allow").unwrap().split(", ").map(String::from).collect();
        assert_eq!(known, allowed, "{path}");
    }
    let listed = Client::new().tell("GET", "/", "", "");
    for line in listed.text().lines().filter(|line| line.starts_with("  ") && line.contains(" /")) {
        let place = line.split_whitespace().find(|word| word.starts_with('/')).unwrap();
        let path = place.split('?').next().unwrap().replace("KEY", "{key}");
        assert!(document.0["paths"].get(&path).is_some(), "{path} is not in the document");
    }
}

/// The parameters of the document are those that the server knows.
#[test]
fn parameters() {
    let document = Document::get();
    for operation in document.operations() {
        let target = format!("{}?nobody-knows-this", operation.target());
        let mut client = Client::new();
        client.feed(request(&operation.method, &target, "", "x"));
        let sent = String::from_utf8(client.sent.clone()).unwrap();
        let status = if operation.method == "HEAD" { &sent[9..12] } else { "400" };
        assert_eq!(status, "400", "{target}");
        if operation.method == "HEAD" {
            continue;
        }
        let detail = client.responses()[0].member("detail");
        let known = detail.split("known for this request: ").nth(1).unwrap_or_else(|| panic!("{detail}"));
        let known: BTreeSet<String> = known.split(", ").map(String::from).collect();
        assert_eq!(operation.parameters("query"), known, "{} {target}", operation.method);
        let as_head =
            document.operations().into_iter().find(|one| one.path == operation.path && one.method == "HEAD");
        if let Some(head) = as_head.filter(|_| operation.method == "GET") {
            assert_eq!(head.parameters("query"), known, "HEAD {target}");
        }
    }
}

/// The schemas' examples of transactions are transactions.
#[test]
fn examples() {
    let document = Document::get();
    let media = &document.operation("POST", "/v1/storage/txn").operation["requestBody"]["content"]["application/json"];
    document.check(&media["example"], &media["schema"]).unwrap();
    let answer = Client::new().tell("POST", "/v1/storage/txn", "", &media["example"].to_string());
    assert_eq!(answer.status, 200);
    for bad in [
        serde_json::json!({"then": [{"get": ""}]}),
        serde_json::json!({"then": [{"get": "a", "put": "a"}]}),
        serde_json::json!({"then": [], "if": [{"key": "a", "rev": 0}]}),
        serde_json::json!({"if": []}),
    ] {
        assert!(document.check(&bad, &media["schema"]).is_err(), "{bad}");
        assert_eq!(Client::new().tell("POST", "/v1/storage/txn", "", &bad.to_string()).status, 400);
    }
}

/// Answers of all kinds, each compared with what the document says of its operation.
#[test]
fn answers() {
    let document = Document::get();
    let key = "/v1/storage/key/a";
    let keys = "/v1/storage/keys";
    let txn = "/v1/storage/txn";
    let too_long = "x".repeat(VALUE_BYTES_MAX + 1);
    let json = "Accept: application/json\r\n";
    let rows: &[(&str, &str, &str, &str, &str, u16)] = &[
        ("GET", key, "", "", "", 204),
        ("GET", key, "?missing=404", "", "", 404),
        ("PUT", key, "?ttl=30s", "", "1", 200),
        ("GET", key, "", "", "", 200),
        ("HEAD", key, "", "", "", 200),
        ("GET", key, "", "If-None-Match: \"1\"\r\n", "", 304),
        ("HEAD", key, "", "If-None-Match: \"1\"\r\n", "", 304),
        ("GET", key, "", "If-Match: \"9\"\r\n", "", 412),
        ("GET", key, "?bogus", "", "", 400),
        ("PUT", key, "?if_rev=9", "", "1", 412),
        ("PUT", key, "", "Sec-Fetch-Site: cross-site\r\n", "1", 403),
        ("POST", txn, "", "Origin: null\r\n", "{}", 403),
        ("PUT", key, "", "Content-Encoding: gzip\r\n", "1", 415),
        ("PUT", key, "", "Expect: nothing\r\n", "1", 417),
        ("PUT", key, "", "", &too_long, 413),
        ("POST", key, "?add=4", "Idempotency-Key: k\r\n", "", 200),
        ("POST", key, "?add=5", "Idempotency-Key: k\r\n", "", 422),
        ("POST", key, "?add=9223372036854775807", "", "", 409),
        ("POST", key, "?append", "", "x", 200),
        ("POST", key, "?add=1", "", "", 409),
        ("POST", key, "?append&if_absent", "", "x", 412),
        ("POST", key, "?delete&if_rev=1", "", "", 412),
        ("GET", keys, "", "", "", 200),
        ("HEAD", keys, "", "", "", 200),
        ("GET", keys, "?limit=1&values", json, "", 200),
        ("GET", keys, "?count", "", "", 200),
        ("GET", keys, "?count", json, "", 200),
        ("GET", keys, "", "If-None-Match: *\r\n", "", 304),
        ("GET", keys, "", "If-Match: \"99\"\r\n", "", 412),
        ("GET", keys, "?values", "", "", 400),
        (
            "POST",
            txn,
            "",
            "",
            "{\"then\":[{\"put\":\"b\",\"value_base64\":\"/w==\",\"ttl\":\"1m\"},{\"get\":\"b\"},{\"get\":\"c\"},{\"get\":\"a\"},{\"delete\":\"c\"},{\"add\":\"n\",\"by\":1}]}",
            200,
        ),
        ("POST", txn, "", "", "{\"if\":[{\"key\":\"b\",\"absent\":true}],\"then\":[]}", 412),
        ("POST", txn, "", "", "{\"then\":[{\"add\":\"b\",\"by\":1}]}", 409),
        ("POST", txn, "", "", "{\"then\":1}", 400),
        ("POST", txn, "", "Idempotency-Key: k\r\n", "{\"then\":[]}", 422),
        ("GET", keys, "?values&limit=2", json, "", 200),
        ("GET", keys, "?limit=1", "", "", 200),
        ("DELETE", keys, "?prefix=b", "", "", 200),
        ("DELETE", keys, "", "", "", 400),
        ("DELETE", keys, "?all", "Idempotency-Key: k\r\n", "", 422),
        ("DELETE", key, "?if_absent", "", "", 412),
        ("DELETE", key, "", "", "", 200),
        ("GET", "/v1/cluster", "", "", "", 200),
        ("HEAD", "/v1/cluster", "", "", "", 200),
        ("GET", "/v1/cluster/leader", "", "", "", 200),
        ("POST", "/v1/cluster/leader", "?to=host1", "", "", 200),
        ("POST", "/v1/cluster/leader", "?to=nobody", "", "", 400),
        ("GET", "/v1/version", "", "", "", 200),
        ("GET", "/v1/openapi.json", "", "", "", 200),
        ("GET", "/livez", "", "", "", 200),
        ("GET", "/readyz", "?verbose", "", "", 200),
        ("GET", "/", "", "", "", 200),
        ("GET", "/", "", "Accept: text/html\r\n", "", 200),
        ("HEAD", "/", "", "Accept: text/html\r\n", "", 200),
    ];
    let mut client = Client::new();
    client.node.time = LogicalTime(1_000);
    for (method, path, query, headers, body, status) in rows {
        let bytes = request(method, &format!("{path}{query}"), headers, body);
        let answer = client.ask(bytes);
        if client.is_closing() {
            let node = std::mem::take(&mut client.node);
            client = Client { node, ..Client::new() };
        }
        assert_eq!(answer.status, *status, "{method} {path}{query} {answer:?}");
        document.operation(method, path).check(&answer);
    }
    let head = "GET /livez HTTP/1.1\r\nHost: h\r\n";
    for (bytes, status) in [
        (String::from("GET /livez HTTP/2.0\r\nHost: h\r\n\r\n"), 505),
        (format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n"), 501),
        (format!("{head}X: {}\r\n\r\n", "x".repeat(17_000)), 431),
        (format!("GET /livez?{} HTTP/1.1\r\n", "x".repeat(9_000)), 414),
        (format!("{head}Content-Length: {}\r\n\r\n", VALUE_BYTES_MAX + 1), 413),
        (format!("{head}Host: h\r\n\r\n"), 400),
    ] {
        let answer = Client::new().ask(bytes);
        assert_eq!(answer.status, status, "{answer:?}");
        for operation in
            document.operations().iter().filter(|one| one.method != "HEAD" && one.path == "/livez")
        {
            operation.check(&answer);
        }
    }
}

/// What may happen to any request may happen to every operation.
#[test]
fn every_operation_names_the_common_failures() {
    let document = Document::get();
    for operation in document.operations() {
        if matches!(operation.method.as_str(), "POST" | "PUT" | "DELETE") {
            let is_named = operation.operation["responses"].get("403").is_some();
            assert!(is_named, "{} {} may come from a page", operation.method, operation.path);
        }
        for status in ["200", "400", "408", "413", "414", "417", "431", "501", "503", "505"] {
            let is_named = operation.operation["responses"].get(status).is_some();
            assert!(is_named, "{} {} may end with {status}", operation.method, operation.path);
        }
    }
}
