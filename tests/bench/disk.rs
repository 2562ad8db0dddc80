//! How long the disk itself takes to make 4 KiB durable: the floor under every write.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const FILE_BYTES: usize = 4 << 20;
const BLOCK_BYTES: usize = 4 << 10;

/// Times of `count` times "write one block, then fdatasync" into a file whose blocks exist and were written with
/// zeros, sorted.
pub fn sync_times(directory: &Path, count: usize) -> std::io::Result<Vec<Duration>> {
    let path = directory.join("disk-speed");
    let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path)?;
    for offset in (0..FILE_BYTES).step_by(BLOCK_BYTES) {
        file.write_all_at(&[0; BLOCK_BYTES], offset as u64)?;
    }
    file.sync_all()?;
    let block = [7; BLOCK_BYTES];
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let start = Instant::now();
        file.write_all_at(&block, (number * BLOCK_BYTES % FILE_BYTES) as u64)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    drop(file);
    std::fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times)
}
