//! Log lines on standard error, written so that a reader who stops reading never stops the node.
//!
//! The poll loop is one thread: a blocking write to a full pipe or a paused terminal would take the node out of its
//! cluster. So a line is written only when it surely fits at once. Otherwise it is dropped and counted, and the count
//! is told as soon as lines can be written again.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use log::LevelFilter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};

use crate::limits::{LAST_WORDS_MS_MAX, LOG_LINE_BYTES_MAX};

/// What takes the place of the end of a line that is too long.
const CLIPPED_END: &[u8] = b"...\n";

/// Which records become lines: a level for all, and levels for single parts of the program.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    level: LevelFilter,
    parts: Vec<(String, LevelFilter)>,
}

/// Why a text is no [`Filter`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FilterError {
    item: String,
}

impl Filter {
    /// Reads a level, or levels for parts behind it: `info`, `warn,raft=debug`.
    ///
    /// # Errors
    /// Names the first item that is neither.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        let mut filter = Filter { level: LevelFilter::Info, parts: Vec::new() };
        for item in text.split(',').map(str::trim) {
            let wrong = || FilterError { item: item.to_owned() };
            match item.split_once('=') {
                None => filter.level = item.parse().map_err(|_| wrong())?,
                Some((part, _)) if part.trim().is_empty() => return Err(wrong()),
                Some((part, level)) => {
                    let level = level.trim().parse().map_err(|_| wrong())?;
                    filter.parts.push((format!("keva::{}", part.trim()), level));
                }
            }
        }
        Ok(filter)
    }
}

/// Starts logging. What the program says when an invariant breaks goes the same way.
///
/// # Panics
/// When logging was started before.
pub fn start(filter: &Filter) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(filter.level);
    for (part, level) in &filter.parts {
        builder.filter_module(part, *level);
    }
    builder
        .format(|line, record| {
            let target = record.target().strip_prefix("keva::").unwrap_or(record.target());
            writeln!(
                line,
                "{} {:<5} {target}: {}",
                line.timestamp_millis(),
                record.level(),
                OneLine(record.args())
            )
        })
        .target(env_logger::Target::Pipe(Box::new(LineWriter::new(Output::stderr()))))
        .try_init()
        .expect("the program starts logging once");
    std::panic::set_hook(Box::new(|panic| {
        // The usual hook would wait for a full pipe, and a process that waits looks alive to its peers.
        let mut writer = LineWriter::new(Output::stderr());
        writer.put(format!("keva stops: {}\n", OneLine(&panic.to_string().replace(":\n", ": "))).as_bytes());
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            backtrace.to_string().split_inclusive('\n').for_each(|line| writer.put(line.as_bytes()));
        }
    }));
}

/// Writes what the program says last. A process that ends can wait a moment for a reader who is behind, but not for
/// one who never reads: then the exit code has to do.
pub fn say_last(text: &str) {
    let mut writer = LineWriter::new(Output::stderr());
    writer.patience = Duration::from_millis(LAST_WORDS_MS_MAX);
    writer.put(format!("{text}\n").as_bytes());
}

/// Takes whole lines and never blocks.
struct LineWriter<F> {
    output: F,
    /// How long a line may wait for room. 0 while the node runs.
    patience: Duration,
    /// Lines lost since the last one that was written.
    dropped: u64,
    /// The last line was written in part: its rest is lost, and the next one must not go on in its middle.
    is_torn: bool,
}

impl<F: AsFd> LineWriter<F> {
    fn new(output: F) -> LineWriter<F> {
        LineWriter { output, patience: Duration::ZERO, dropped: 0, is_torn: false }
    }

    /// Writes a line, or counts it as dropped.
    fn put(&mut self, line: &[u8]) {
        if self.is_torn {
            self.is_torn = !self.try_write(b"\n");
        }
        if self.dropped > 0 && !self.is_torn {
            let report = format!("{} log lines dropped, because standard error was not read\n", self.dropped);
            if self.try_write(report.as_bytes()) {
                self.dropped = 0;
            }
        }
        // The line end and the report go first: without them, the output would seem to be complete.
        if self.is_torn || self.dropped > 0 || !self.try_write(&clip(line)) {
            self.dropped += 1;
        }
    }

    /// Whether all of `bytes` were written.
    fn try_write(&mut self, bytes: &[u8]) -> bool {
        let mut descriptors = [PollFd::new(&self.output, PollFlags::OUT)];
        let patience = Timespec::try_from(self.patience).expect("a second or less is a time for the system");
        let is_ready = rustix::io::retry_on_intr(|| poll(&mut descriptors, Some(&patience))).is_ok()
            && descriptors[0].revents().contains(PollFlags::OUT);
        if !is_ready {
            return false;
        }
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.output, bytes)) {
            Ok(written) => {
                self.is_torn = 0 < written && written < bytes.len();
                written == bytes.len()
            }
            Err(_) => false,
        }
    }
}

impl<F: AsFd> Write for LineWriter<F> {
    /// `env_logger` hands over one whole line per call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard error, through a descriptor that does not block where there can be one.
enum Output {
    Own(OwnedFd),
    Shared(io::Stderr),
}

impl Output {
    /// `O_NONBLOCK` belongs to the open file, which other processes share, so it must not be set on standard error.
    /// A pipe or a terminal can be opened once more, and then it is safe even when another process fills it between
    /// our poll and our write. Files do not need that, and sockets take a line when poll says so.
    fn stderr() -> Output {
        let shared = io::stderr();
        let kind = rustix::fs::fstat(&shared).map(|stat| FileType::from_raw_mode(stat.st_mode));
        if !matches!(kind, Ok(FileType::Fifo | FileType::CharacterDevice)) {
            return Output::Shared(shared);
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::open("/proc/self/fd/2", flags, Mode::empty()) {
            Ok(own) => Output::Own(own),
            Err(_) => Output::Shared(shared),
        }
    }
}

impl AsFd for Output {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Output::Own(own) => own.as_fd(),
            Output::Shared(shared) => shared.as_fd(),
        }
    }
}

/// Shows a text with its control characters escaped: what a client sends cannot forge a line or drive a terminal.
struct OneLine<T>(T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Write::write_fmt(&mut Escape(f), format_args!("{}", self.0))
    }
}

struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escape<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for part in text.split_inclusive(char::is_control) {
            match part.chars().next_back().filter(|last| last.is_control()) {
                Some(last) => {
                    let start = &part[..part.len() - last.len_utf8()];
                    write!(self.0, "{start}{}", last.escape_default())?;
                }
                None => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// At most `LOG_LINE_BYTES_MAX` bytes of a line, without half a character at its end.
fn clip(line: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    if line.len() <= LOG_LINE_BYTES_MAX {
        return line.into();
    }
    let mut end = LOG_LINE_BYTES_MAX - CLIPPED_END.len();
    // Bytes of the form 10xxxxxx go on with a character (RFC 3629 section 3).
    while end > 0 && line[end] & 0xC0 == 0x80 {
        end -= 1;
    }
    [&line[..end], CLIPPED_END].concat().into()
}

impl std::error::Error for FilterError {}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "log level {:?} is unknown; use off, error, warn, info or debug, and for parts such as info,raft=debug",
            self.item
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::mpsc;

    use super::*;

    /// Fills a pipe to its last byte, and leaves it in blocking mode: a write that waits would hang.
    fn fill(writer: &io::PipeWriter) -> usize {
        let flags = rustix::fs::fcntl_getfl(writer).unwrap();
        rustix::fs::fcntl_setfl(writer, flags | OFlags::NONBLOCK).unwrap();
        let mut filled = 0;
        while let Ok(written) = rustix::io::write(writer, b"x") {
            filled += written;
        }
        rustix::fs::fcntl_setfl(writer, flags).unwrap();
        filled
    }

    fn read_exactly(reader: &mut io::PipeReader, bytes: usize) -> String {
        let mut buffer = vec![0; bytes];
        reader.read_exact(&mut buffer).unwrap();
        String::from_utf8(buffer).unwrap()
    }

    /// H6: lines for a pipe that nobody reads are dropped at once, and their number is told when somebody does.
    #[test]
    fn full_pipe_drops_and_reports() {
        let (mut reader, writer) = io::pipe().unwrap();
        let filled = fill(&writer);
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = LineWriter::new(writer);
            for _ in 0..3 {
                lines.put(b"lost\n");
            }
            done.send(lines).unwrap();
        });
        let mut lines = is_done.recv_timeout(Duration::from_secs(30)).expect("a full pipe must not block");
        read_exactly(&mut reader, filled);
        lines.put(b"first after\n");
        lines.put(b"second after\n");
        drop(lines);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(
            text,
            "3 log lines dropped, because standard error was not read\nfirst after\nsecond after\n"
        );
    }

    /// H6: the longest line goes into a pipe with one free page without waiting, whole.
    #[test]
    fn longest_line_fits_where_poll_says_so() {
        let (mut reader, writer) = io::pipe().unwrap();
        let filled = fill(&writer);
        read_exactly(&mut reader, LOG_LINE_BYTES_MAX);
        let mut lines = LineWriter::new(writer);
        lines.put(&[b'y'; 3 * LOG_LINE_BYTES_MAX]);
        assert_eq!(lines.dropped, 0, "there was a free page");
        lines.put(b"lost\n");
        assert_eq!(lines.dropped, 1, "the pipe was full again");
        read_exactly(&mut reader, filled - LOG_LINE_BYTES_MAX);
        let line = read_exactly(&mut reader, LOG_LINE_BYTES_MAX);
        assert!(line.starts_with("yyyy") && line.ends_with("y...\n"), "{line}");
    }

    /// H6: a reader that is gone is no error either.
    #[test]
    fn closed_pipe_is_survived() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut lines = LineWriter::new(writer);
        lines.put(b"lost\n");
        assert_eq!(lines.dropped, 1);
    }

    /// A descriptor that takes only part of a line loses the rest, and the next line still starts on its own.
    #[test]
    fn torn_line_is_ended_before_the_next() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut lines = LineWriter { output: writer, patience: Duration::ZERO, dropped: 1, is_torn: true };
        lines.put(b"next\n");
        drop(lines);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "\n1 log lines dropped, because standard error was not read\nnext\n");
    }

    #[test]
    fn clipping_keeps_characters_whole() {
        for pad in 0..4 {
            let line = format!("{}{}\n", "a".repeat(pad), "\u{1F980}".repeat(LOG_LINE_BYTES_MAX));
            let clipped = clip(line.as_bytes()).into_owned();
            assert!(clipped.len() <= LOG_LINE_BYTES_MAX);
            assert!(clipped.len() > LOG_LINE_BYTES_MAX - 4, "no more is cut than one character");
            assert!(String::from_utf8(clipped).unwrap().ends_with("...\n"));
        }
        assert_eq!(&*clip(b"short\n"), b"short\n");
    }

    /// A key or a header in a message cannot begin a second line or change the terminal's colour.
    #[test]
    fn control_characters_are_escaped() {
        let shown = OneLine("a\nb\u{1b}[31m\u{9b}\u{7f}é").to_string();
        assert_eq!(shown, "a\\nb\\u{1b}[31m\\u{9b}\\u{7f}é");
    }

    #[test]
    fn filters() {
        let parse = |text: &str| Filter::parse(text);
        let plain = Filter { level: LevelFilter::Debug, parts: Vec::new() };
        assert_eq!(parse("debug"), Ok(plain));
        let parts =
            vec![("keva::raft".to_owned(), LevelFilter::Debug), ("keva::net".to_owned(), LevelFilter::Off)];
        assert_eq!(parse("WARN, raft=debug,net = off"), Ok(Filter { level: LevelFilter::Warn, parts }));
        for wrong in ["", "loud", "info,raft=loud", "=info", "info,,warn"] {
            let message = parse(wrong).unwrap_err().to_string();
            assert!(message.contains("use off, error, warn, info or debug"), "{wrong}: {message}");
        }
    }
}
