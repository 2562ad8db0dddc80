//! Answers that are part of the program.

/// `GET /v1/version`.
pub(crate) const VERSION: &str = concat!("{\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}\n");

/// `GET /`.
pub(crate) const ROOT: &str = concat!(
    "Keva ",
    env!("CARGO_PKG_VERSION"),
    ", a replicated, linearizable key-value store

  PUT, POST  /v1/storage/key/KEY          store the request's body
  GET, HEAD  /v1/storage/key/KEY          read it: 200, or 204 when the key is missing
  DELETE     /v1/storage/key/KEY          delete it; also POST /v1/storage/key/KEY?delete
  GET        /v1/cluster                  the cluster's state as JSON
  GET        /v1/cluster/leader           the leader's identity
  GET        /v1/version                  the program's version
  GET        /metrics                     what the node counts, for Prometheus
  GET        /livez                       is the process alive?
  GET        /readyz?verbose              can this node serve reads, and if not, why?

Writes take If-Match and If-None-Match, or ?if_rev=REVISION and ?if_absent.
Reads take If-None-Match, ?consistency=linearizable|stale and ?missing=404.
Every request that needs the cluster takes ?timeout=5s.

  curl -d hello http://HOST:PORT/v1/storage/key/greeting
  curl http://HOST:PORT/v1/storage/key/greeting
"
);
