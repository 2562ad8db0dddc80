//! What clients were promised about keys that nobody else writes, and whether it was kept.

use super::support::http_client::HttpClient;
use super::support::http_message::Answer;
use super::support::workload::{Acknowledged, Mishap, MishapKind, WriterReport};
use super::tally::Tally;

/// Violations that are told in full. The others are only counted.
const COMPLAINTS_MAX: usize = 20;

/// What is wrong, in words.
#[derive(Debug, Default)]
pub struct Complaints {
    texts: Vec<String>,
}

impl Complaints {
    /// Notes one.
    pub fn add(&mut self, tally: &mut Tally, text: String) {
        tally.violations += 1;
        if self.texts.len() < COMPLAINTS_MAX {
            self.texts.push(text);
        }
    }

    /// The first of them.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }
}

/// Writes by the same clients.
#[derive(Debug, Default)]
pub struct Promises {
    reports: Vec<WriterReport>,
}

impl Promises {
    /// Remembers what a client has seen.
    pub fn add(&mut self, report: WriterReport) {
        self.reports.push(report);
    }

    /// How many writes were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.reports.iter().map(|report| report.acknowledged.len() as u64).sum()
    }

    /// How many writes there were, and of how many the outcome is unknown.
    pub fn operations(&self) -> (u64, u64) {
        let mishaps = || self.reports.iter().flat_map(|report| &report.mishaps);
        let unknown = mishaps().filter(|mishap| mishap.kind == MishapKind::Unknown).count();
        (self.acknowledged() + mishaps().count() as u64, unknown as u64)
    }

    /// Reads every key: an acknowledged write is there exactly once, one that was refused is not there, and of one
    /// with an unknown outcome nothing but its own value is there.
    pub fn check(&self, clients: &mut [HttpClient], tally: &mut Tally, complaints: &mut Complaints) {
        let count = clients.len();
        for (number, report) in self.reports.iter().enumerate() {
            let client = &mut clients[(number + 1) % count];
            for write in &report.acknowledged {
                check_acknowledged(write, client, tally, complaints);
            }
            for mishap in &report.mishaps {
                check_mishap(mishap, client, tally, complaints);
            }
        }
    }
}

fn read(client: &mut HttpClient, key: &str) -> Result<Answer, String> {
    let target = format!("/v1/storage/key/{key}?timeout=20s");
    client.request("GET", &target, &[], b"").map_err(|failure| failure.to_string())
}

fn check_acknowledged(
    write: &Acknowledged,
    client: &mut HttpClient,
    tally: &mut Tally,
    complaints: &mut Complaints,
) {
    tally.kept += 1;
    match read(client, &write.key) {
        Ok(answer) if answer.status == 200 && answer.text() == write.value => {
            if answer.etag() != Some(write.revision) {
                tally.doubled += 1;
                let text = format!(
                    "doubled: {} was written at {}, is at {:?}",
                    write.key,
                    write.revision,
                    answer.etag()
                );
                complaints.add(tally, text);
            }
        }
        Ok(answer) if answer.status == 200 || answer.status == 204 => {
            tally.lost += 1;
            complaints.add(tally, format!("lost: {} of revision {}: {answer:?}", write.key, write.revision));
        }
        other => complaints.add(tally, format!("{} cannot be read in a whole cluster: {other:?}", write.key)),
    }
}

fn check_mishap(mishap: &Mishap, client: &mut HttpClient, tally: &mut Tally, complaints: &mut Complaints) {
    if mishap.kind == MishapKind::Wrong {
        complaints.add(tally, format!("wrong answer: {mishap}"));
        return;
    }
    match read(client, &mishap.key) {
        Ok(answer) if answer.status == 204 => {}
        Ok(answer) if answer.status == 200 && mishap.kind == MishapKind::NotApplied => {
            complaints.add(tally, format!("there although it was refused: {mishap}"));
        }
        Ok(answer) if answer.status == 200 && answer.text() == mishap.value => {}
        other => complaints.add(tally, format!("not what was written: {mishap}: {other:?}")),
    }
}
