//! What the nodes have taken of the machine: processor, memory, disk, network.

use std::net::Ipv4Addr;
use std::ops::Sub;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// Clock ticks per second in `/proc/PID/stat`: 100 on every Linux that programs get to see (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// Totals of one process since its start.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    /// Processor time, in the program and in the kernel.
    pub processor: Duration,
    /// Bytes of the page cache that it made dirty, as the kernel accounts for them: whole folios, which can be much
    /// larger than what then goes to the disk.
    pub dirtied_bytes: u64,
    /// Resident memory, in bytes. Not a total: the present size.
    pub memory_bytes: u64,
    /// The part of it that is no mapped file, in bytes. Not a total either.
    pub anonymous_bytes: u64,
}

impl Usage {
    /// The present figures of a process.
    pub fn of(pid: u32) -> Usage {
        let stat = read(pid, "stat");
        // The name, in parentheses, may contain blanks.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |position: usize| fields[position].parse::<u64>().expect("ticks are numbers");
        // utime and stime are the fields 14 and 15 of the line, 11 and 12 behind the name.
        let milliseconds = (ticks(11) + ticks(12)) * 1_000 / TICKS_PER_SECOND;
        Usage {
            processor: Duration::from_millis(milliseconds),
            dirtied_bytes: field(&read(pid, "io"), "write_bytes:"),
            memory_bytes: field(&read(pid, "status"), "VmRSS:") << 10,
            anonymous_bytes: field(&read(pid, "status"), "RssAnon:") << 10,
        }
    }
}

impl Sub for Usage {
    type Output = Usage;

    /// What was used since `earlier`. Memory stays as it is now.
    fn sub(self, earlier: Usage) -> Usage {
        Usage {
            processor: self.processor.saturating_sub(earlier.processor),
            dirtied_bytes: self.dirtied_bytes.saturating_sub(earlier.dirtied_bytes),
            memory_bytes: self.memory_bytes,
            anonymous_bytes: self.anonymous_bytes,
        }
    }
}

fn read(pid: u32, name: &str) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/{name}"))
        .unwrap_or_else(|error| panic!("/proc/{pid}/{name}: {error}"))
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel names this field");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Bytes that the files in this directory take on the disk.
pub fn directory_bytes(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
    // Some may be renamed or removed at this moment.
    files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.blocks() * 512).sum()
}

/// Bytes that were written so far to the block device under this directory, by whomever. `None` when the file system
/// is not directly on a block device.
pub fn device_bytes(directory: &Path) -> Option<u64> {
    let device = std::fs::metadata(directory).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    // The seventh field: sectors of 512 bytes written.
    let sectors: u64 = stat.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
}

/// Segments with data that were sent so far on the links between the nodes at this address, in all directions.
/// `None` when `ss` is not installed.
pub fn peer_segments(ip: Ipv4Addr, ports: &[u16]) -> Option<u64> {
    let output = std::process::Command::new("ss").args(["-tinHO", "state", "established"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ends: Vec<String> = ports.iter().map(|port| format!("{ip}:{port}")).collect();
    let links =
        text.lines().filter(|line| line.split_whitespace().any(|word| ends.iter().any(|end| end == word)));
    Some(
        links
            .filter_map(|line| line.split_whitespace().find_map(|word| word.strip_prefix("data_segs_out:")))
            .filter_map(|count| count.parse::<u64>().ok())
            .sum(),
    )
}
