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
//! file once the ordinary way, so that an unreadable sector is an error with a name and not a signal.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use memmap2::Mmap;
use rustix::fs::Advice;

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

    /// Has the next read of synced bytes ask the disk and not the cache above it, as far as the system allows: bytes that
    /// were read through this region before may still come from the cache.
    ///
    /// # Errors
    /// When the system refuses.
    ///
    /// # Panics
    /// When the range is not inside the file, or after [`Region::seal`].
    fn drop_cache(&mut self, offset: usize, len: usize) -> io::Result<()>;

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

impl MappedFile {
    /// Takes an existing file with the size that it has.
    ///
    /// # Errors
    /// When a part of it cannot be read, or it cannot be mapped.
    pub fn open(file: File) -> io::Result<MappedFile> {
        let region = MappedFile::map(file)?;
        let mut chunk = vec![0; CHUNK_BYTES.min(region.size)];
        let mut offset = 0;
        while offset < region.size {
            let len = chunk.len().min(region.size - offset);
            region.file().read_exact_at(&mut chunk[..len], offset as u64)?;
            offset += len;
        }
        Ok(region)
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
            // the working directory. Vanish: the file is never shortened here, its size is read above, and `read`
            // stays inside it.
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

    fn drop_cache(&mut self, offset: usize, len: usize) -> io::Result<()> {
        assert!(offset + len <= self.size, "only what is in the file can be dropped");
        // A length of 0 would mean everything up to the end.
        let Some(len) = NonZeroU64::new(len as u64) else { return Ok(()) };
        Ok(rustix::fs::fadvise(self.file(), offset as u64, Some(len), Advice::DontNeed)?)
    }

    fn seal(&mut self) {
        self.file = None;
    }
}
