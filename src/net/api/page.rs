//! Answers that are part of the program.

/// `GET /v1/version`.
pub(crate) const VERSION: &str = concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n");

/// `GET /v1/openapi.json`.
pub(crate) const OPENAPI: &str = include_str!("openapi.json");

/// `GET /` for shells.
pub(crate) const ROOT: &str = concat!(
    "Keva ",
    env!("CARGO_PKG_VERSION"),
    ", a replicated, linearizable key-value store

  PUT, POST  /v1/storage/key/KEY          store the request's body
  GET, HEAD  /v1/storage/key/KEY          read it: 200, or 204 when the key is missing
  DELETE     /v1/storage/key/KEY          delete it; also POST /v1/storage/key/KEY?delete
  POST       /v1/storage/key/KEY?append   add the body behind the value
  POST       /v1/storage/key/KEY?add=N    add a whole number to the value; a missing one is 0
  GET, HEAD  /v1/storage/keys             list keys: ?prefix= &start= &end= &after= &limit= &values &count
  GET        /v1/storage/keys?watch       follow the keys of a range; also GET /v1/storage/key/KEY?watch
  GET        /v1/storage/keys?wait=60s    answer when one has changed; also GET /v1/storage/key/KEY?wait=60s
  DELETE     /v1/storage/keys?prefix=P    delete all keys that begin with P, or every key with ?all
  POST       /v1/storage/txn              several conditions, reads and writes at once, as JSON
  GET        /v1/cluster                  the cluster's state as JSON
  GET        /v1/cluster/leader           the leader's identity
  POST       /v1/cluster/leader?to=NODE   hand leadership over
  GET        /v1/version                  the program's version
  GET        /metrics                     what the node counts, for Prometheus
  GET        /v1/openapi.json             all of this for programs
  GET        /livez                       is the process alive?
  GET        /readyz?verbose              can this node serve reads, and if not, why?

Writes of one key take If-Match and If-None-Match, or ?if_rev=REVISION and ?if_absent.
Writes that give a value take ?ttl=30s: the key is deleted when the time is over.
Every write takes Idempotency-Key: a name for it, so that sending it again does not repeat it.
Reads take If-None-Match, ?consistency=linearizable|stale and ?missing=404.
A watch takes ?since=REVISION or Last-Event-ID; with since=0 it begins with all keys. A wait takes If-None-Match.
Every request that needs the cluster takes ?timeout=5s.

  curl -d hello http://HOST:PORT/v1/storage/key/greeting
  curl http://HOST:PORT/v1/storage/key/greeting
  curl -X POST 'http://HOST:PORT/v1/storage/key/visits?add=1'
  curl 'http://HOST:PORT/v1/storage/keys?prefix=app/'
"
);
