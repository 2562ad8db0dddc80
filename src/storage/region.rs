//! One file of fixed size as the log sees it: bytes that are read in place, written by position and made durable.
//!
//! [`Region`] is where the outside world begins: everything above it (records, segments, recovery) runs unchanged on
//! a simulated disk. [`MappedFile`] is the real one. It writes with `pwrite`, makes durable with `fdatasync`, and
//! reads through a read-only memory map of the same file. Writing through the map instead would turn a full disk or
//! a failing one into a signal, and on file systems with large pages in the cache it writes a mebibyte to the disk
//! for every small record.
//!
//! A read-only map still raises SIGBUS when somebody else shortens the file or when a sector cannot be read. The
//! first is prevented by the lock on the working directory; for the second, [`MappedFile::open`] reads the whole
//! file once the ordinary way, and [`Region::reload`] what was just written, so that an unreadable sector is an error
//! with a name and not a signal. A sector that fails later ends the process with a line that says so ([`watch_for_bus_errors`]), and the next start names the file.

use std::fmt;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;

use memmap2::{Mmap, UncheckedAdvice};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Advice;
use rustix::io::Errno;
use signal_hook::consts::SIGBUS;
use signal_hook::low_level;

/// Bytes that are read or written at a time when a whole file is gone through.
pub(crate) const CHUNK_BYTES: usize = 256 << 10;

/// A file of fixed size.
///
/// What [`Region::write_at`] wrote is seen by [`Region::read`] at once and is durable after [`Region::sync`]. Between
/// two syncs nothing is promised: after a crash each block may hold its old or its new bytes, in any combination.
pub trait Region {
    /// The file's size in bytes. It never changes.
    fn size(&self) -> usize;

    /// The bytes at `offset`. Bytes that were never written are 0.
    ///
    /// # Panics
    /// When the range is not inside the file.
    fn read(&self, offset: usize, len: usize) -> &[u8];

    /// Writes at `offset`.
    ///
    /// # Errors
    /// When the system refuses. Nobody knows then which of the bytes are written.
    ///
    /// # Panics
    /// When the range is not inside the file, or after [`Region::seal`].
    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()>;

    /// Makes everything written durable.
    ///
    /// # Errors
    /// When the disk fails. Trying again is useless: the kernel may have dropped what it could not write.
    fn sync(&mut self) -> io::Result<()>;

    /// Has synced bytes come from the disk and not from the cache above it, as far as the system allows, before they are
    /// read: bytes that were read through this region before may still come from the cache.
    ///
    /// # Errors
    /// When the system refuses, or the disk cannot give them back (an [`Unreadable`] inside the error).
    ///
    /// # Panics
    /// When the range is not inside the file, or after [`Region::seal`].
    fn reload(&mut self, offset: usize, len: usize) -> io::Result<()>;

    /// Gives back the memory that reading this part has taken, as far as the system allows. It is read again when it is
    /// asked for.
    ///
    /// # Panics
    /// When the range is not inside the file.
    fn release(&self, offset: usize, len: usize) {
        assert!(offset + len <= self.size(), "only what is in the file can be released");
    }

    /// Says that no write follows; what is only needed for writing may be given back. Everything must be synced.
    fn seal(&mut self);
}

/// A real file: positioned writes, reads through a read-only map.
#[derive(Debug)]
pub struct MappedFile {
    /// Open from before the first write until the last sync, because the kernel reports a failed write-back once per
    /// open file. `None` once sealed: a long log must not hold a descriptor per segment.
    file: Option<File>,
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
    size: usize,
}

/// A part of a file that the disk cannot give back any more. Inside an [`io::Error`].
#[derive(Debug)]
pub struct Unreadable {
    /// Where the part begins that was asked for, in bytes.
    pub offset: u64,
    /// The system's answer.
    pub source: io::Error,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it cannot be read from byte {} on: {}", self.offset, self.source)
    }
}

impl std::error::Error for Unreadable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

impl Unreadable {
    /// The error for a read that failed at `offset`.
    #[must_use]
    pub fn at(offset: usize, source: io::Error) -> io::Error {
        io::Error::other(Unreadable { offset: offset as u64, source })
    }

    /// Whether the disk has lost what was there, so that reading again is useless.
    pub(crate) fn is_damage(&self) -> bool {
        let errno = self.source.raw_os_error().map(Errno::from_raw_os_error);
        matches!(errno, Some(Errno::IO | Errno::NODATA | Errno::BADMSG | Errno::UCLEAN))
    }

    /// What `error` says about an unreadable part, if it is about one.
    pub(crate) fn find(error: &io::Error) -> Option<&Unreadable> {
        error.get_ref()?.downcast_ref()
    }
}

/// What the signal handler says: one write, no allocation.
const BUS_ERROR: &[u8] =
    b"keva: a file in the working directory could not be read (SIGBUS): the disk has failed, or \
    the file was shortened from outside. The process ends; start it again, and it says which file it is\n";

/// Has the process say what happened and end when a mapped file cannot be read (SIGBUS). To be called once, at the
/// start.
///
/// # Errors
/// When the system refuses the handler.
#[allow(
    unsafe_code,
    reason = "a signal handler may do little, which only its author can check; see the SAFETY comments"
)]
pub fn watch_for_bus_errors() -> io::Result<()> {
    let report = || {
        // SAFETY: descriptor 2 is open for as long as the process lives: nothing here closes it. Should something
        // outside have closed it, poll and write fail, which does no harm.
        let stderr = unsafe { BorrowedFd::borrow_raw(2) };
        // A reader that has stopped reading must not keep a process that holds the lock from ending.
        let mut waiting = [PollFd::from_borrowed_fd(stderr, PollFlags::OUT)];
        if poll(&mut waiting, Some(&Timespec::default())) == Ok(1) {
            // The process ends either way.
            let _ = rustix::io::write(stderr, BUS_ERROR);
        }
        low_level::abort();
    };
    // SAFETY: a handler may only call what is safe while any other code of the process is interrupted. This one makes
    // the system calls poll and write, directly and without locks or memory of the heap, and then aborts, which POSIX
    // lists as async-signal-safe; it never returns to the code that it interrupted.
    unsafe { low_level::register(SIGBUS, report) }.map(drop)
}

impl MappedFile {
    /// Takes an existing file with the size that it has.
    ///
    /// # Errors
    /// When a part of it cannot be read (an [`Unreadable`] inside the error), or it cannot be mapped.
    pub fn open(file: File) -> io::Result<MappedFile> {
        let region = MappedFile::map(file)?;
        region.read_through(0, region.size)?;
        Ok(region)
    }

    /// Reads a part the ordinary way, because an error is better than a signal.
    fn read_through(&self, offset: usize, len: usize) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK_BYTES.min(len)];
        let end = offset + len;
        let mut offset = offset;
        while offset < end {
            let len = chunk.len().min(end - offset);
            self.file()
                .read_exact_at(&mut chunk[..len], offset as u64)
                .map_err(|error| Unreadable::at(offset, error))?;
            offset += len;
        }
        Ok(())
    }

    /// Takes a file that was just made and has its final size.
    ///
    /// # Errors
    /// When it cannot be mapped.
    #[allow(
        unsafe_code,
        reason = "a file map is memory that the compiler cannot watch; see the SAFETY comment"
    )]
    pub fn map(file: File) -> io::Result<MappedFile> {
        let size = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        let map = if size == 0 {
            None
        } else {
            // SAFETY: the map is only sound while the bytes behind a shared slice do not change and do not vanish.
            // Change: inside this process the file is written only by `write_at`, which borrows the region mutably,
            // so no slice given out by `read` is alive then. Other processes are kept out by the exclusive lock on
            // the working directory. Vanish: no file is shortened while it is open, its size is read above, and
            // `read` stays inside it.
            Some(unsafe { memmap2::MmapOptions::new().len(size).map(&file)? })
        };
        Ok(MappedFile { file: Some(file), map, size })
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("a sealed file is neither written nor synced")
    }
}

impl Region for MappedFile {
    fn size(&self) -> usize {
        self.size
    }

    fn read(&self, offset: usize, len: usize) -> &[u8] {
        let bytes = self.map.as_deref().unwrap_or(&[]);
        &bytes[offset..offset + len]
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        assert!(offset + bytes.len() <= self.size, "a write must not make the file longer than its map");
        self.file().write_all_at(bytes, offset as u64)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file().sync_data()
    }

    fn reload(&mut self, offset: usize, len: usize) -> io::Result<()> {
        assert!(offset + len <= self.size, "only what is in the file can be read again");
        // A length of 0 would mean everything up to the end.
        let Some(bytes) = NonZeroU64::new(len as u64) else { return Ok(()) };
        rustix::fs::fadvise(self.file(), offset as u64, Some(bytes), Advice::DontNeed)?;
        self.read_through(offset, len)
    }

    #[allow(unsafe_code, reason = "some advice about memory changes what is in it; see the SAFETY comment")]
    fn release(&self, offset: usize, len: usize) {
        assert!(offset + len <= self.size, "only what is in the file can be released");
        if let Some(map) = &self.map {
            // SAFETY: the map is read-only and of a file. What is dropped comes back from that file with the same bytes, so
            // that even a slice that somebody holds is still the same.
            let result = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, offset, len) };
            if let Err(error) = result {
                log::debug!("the memory of a file could not be given back early: {error}");
            }
        }
    }

    fn seal(&mut self) {
        self.file = None;
    }
}
