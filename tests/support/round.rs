//! A client that asks one node after the other.

use super::cluster::Cluster;
use super::http_client::HttpClient;
use super::http_message::Answer;

/// Sends every request to the next node, so that no test depends on which one it asks.
#[derive(Debug)]
pub struct Round {
    clients: Vec<HttpClient>,
    next: usize,
}

impl Round {
    /// Of all nodes of a cluster.
    pub fn new(cluster: &Cluster) -> Round {
        Round { clients: (0..cluster.len()).map(|position| cluster.client(position)).collect(), next: 0 }
    }

    /// Sends a request to the next node.
    pub fn ask(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let position = self.next;
        self.next = (position + 1) % self.clients.len();
        let client = &mut self.clients[position];
        let answer = client.request(method, target, headers, body);
        answer.unwrap_or_else(|failure| panic!("{method} {target} at {}: {failure}", client.address()))
    }

    /// Sends the same request to every node.
    pub fn ask_all(&mut self, method: &str, target: &str, headers: &[(&str, &str)]) -> Vec<Answer> {
        (0..self.clients.len()).map(|_| self.ask(method, target, headers, b"")).collect()
    }

    /// Reads something from the next node.
    pub fn get(&mut self, target: &str) -> Answer {
        self.ask("GET", target, &[], b"")
    }

    /// Writes a key through the next node, which must succeed, and returns its revision.
    pub fn put(&mut self, key: &str, value: &str) -> u64 {
        let answer = self.ask("PUT", &format!("/v1/storage/key/{key}"), &[], value.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.etag().expect("a write has a revision")
    }
}
