//! The disk: a file system in this process with one file, on which a loop device lies. It sees every block that is
//! written and every flush of the device's cache, in order.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};

use crate::image::IMAGE_BYTES;
use crate::note::Note;

/// The file's name.
const FILE_NAME: &str = "disk";
const FILE: INodeNo = INodeNo(2);
/// Nothing about the file ever changes.
const TTL: Duration = Duration::from_secs(3600);

/// Something that happened.
#[derive(Debug)]
pub(crate) enum Event {
    /// Bytes were written; they may still be in the disk's cache.
    Write {
        /// Where, in bytes from the disk's start.
        offset: usize,
        /// Whole sectors.
        bytes: Vec<u8>,
    },
    /// Everything written before is durable.
    Flush,
    /// The workload said something.
    Note(Note),
}

/// What is on the disk, and how it came there.
#[derive(Default)]
struct Recording {
    bytes: Vec<u8>,
    events: Vec<Event>,
}

/// The running file system.
pub(crate) struct Recorder {
    recording: Arc<Mutex<Recording>>,
    _session: BackgroundSession,
}

impl Recorder {
    /// Mounts the file system.
    pub(crate) fn mount(directory: &Path) -> Result<Recorder, String> {
        let recording = Arc::new(Mutex::new(Recording::default()));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("keva-powercut".into())];
        let session = fuser::spawn_mount(Disk(Arc::clone(&recording)), directory, &config)
            .map_err(|error| format!("cannot mount FUSE on {}: {error}", directory.display()))?;
        Ok(Recorder { recording, _session: session })
    }

    /// The path of the file.
    pub(crate) fn file(directory: &Path) -> std::path::PathBuf {
        directory.join(FILE_NAME)
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        self.recording.lock().expect("no holder panics")
    }

    /// Puts these bytes on the disk. Nothing may use the file then.
    pub(crate) fn load(&self, bytes: Vec<u8>) {
        assert_eq!(bytes.len(), IMAGE_BYTES, "the file never changes its size");
        *self.lock() = Recording { bytes, events: Vec::new() };
    }

    /// Records a note.
    pub(crate) fn note(&self, note: Note) {
        self.lock().events.push(Event::Note(note));
    }

    /// How many events there are.
    pub(crate) fn position(&self) -> usize {
        self.lock().events.len()
    }

    /// Takes what was recorded since the disk was loaded.
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.lock().events)
    }
}

/// The file system as the kernel sees it.
struct Disk(Arc<Mutex<Recording>>);

fn attributes(number: INodeNo) -> FileAttr {
    let (kind, perm, size) = if number == FILE {
        (FileType::RegularFile, 0o600, IMAGE_BYTES as u64)
    } else {
        (FileType::Directory, 0o700, 0)
    };
    FileAttr {
        ino: number,
        size,
        blocks: size / 512,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == FILE_NAME {
            reply.entry(&TTL, &attributes(FILE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _request: &Request, number: INodeNo, _file: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attributes(number));
    }

    /// Without the page cache between the loop device and this program.
    fn open(&self, _request: &Request, _number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _request: &Request,
        _number: INodeNo,
        _file: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let recording = self.0.lock().expect("no holder panics");
        let start = (offset as usize).min(recording.bytes.len());
        let end = (start + size as usize).min(recording.bytes.len());
        reply.data(&recording.bytes[start..end]);
    }

    fn write(
        &self,
        _request: &Request,
        _number: INodeNo,
        _file: FileHandle,
        offset: u64,
        bytes: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut recording = self.0.lock().expect("no holder panics");
        let offset = offset as usize;
        let Some(place) = recording.bytes.get_mut(offset..offset + bytes.len()) else {
            return reply.error(Errno::ENOSPC);
        };
        place.copy_from_slice(bytes);
        recording.events.push(Event::Write { offset, bytes: bytes.to_vec() });
        reply.written(bytes.len() as u32);
    }

    /// Not a flush of the disk: somebody closed the file.
    fn flush(
        &self,
        _request: &Request,
        _number: INodeNo,
        _file: FileHandle,
        _lock: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    /// What the loop device does when the file system above it flushes the disk's cache.
    fn fsync(&self, _request: &Request, _number: INodeNo, _file: FileHandle, _data: bool, reply: ReplyEmpty) {
        self.0.lock().expect("no holder panics").events.push(Event::Flush);
        reply.ok();
    }
}
