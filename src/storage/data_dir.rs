//! The working directory on a real disk, and the lock that keeps a second process out of it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::raft::storage::StorageError;
use crate::storage::directory::{Directory, io_error};
use crate::storage::identity::IDENTITY_NAME;
use crate::storage::region::{CHUNK_BYTES, MappedFile};
use crate::storage::spare::is_full;

/// The file whose lock stands for the whole directory.
const LOCK_NAME: &str = "LOCK";

/// A locked working directory. Dropping it gives the lock back; so does the end of the process, however it comes.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The directory itself, for making names durable.
    handle: File,
    access: Access,
    /// Held, never used. `None` when there is no lock file and none may be made.
    _lock: Option<File>,
}

/// What may be done to the files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Access {
    ReadWrite,
    ReadOnly,
}

impl DataDir {
    /// Makes the directory if it is missing, readable by this user only, and locks it.
    ///
    /// The lock belongs to the open file, not to the process number written in it: a number left by a process that
    /// is gone, or reused, or counted in a container of its own, never blocks anyone.
    ///
    /// # Errors
    /// [`StorageError::Refused`] with the holder's number when another process has the lock; otherwise what the
    /// system says.
    pub fn open(path: &Path) -> Result<DataDir, StorageError> {
        let shown = path.display().to_string();
        make_directory(path).map_err(io_error("make the working directory", shown.clone()))?;
        let handle = File::open(path).map_err(io_error("open the working directory", shown))?;
        let lock = lock(path)?;
        Ok(DataDir { path: path.to_path_buf(), handle, access: Access::ReadWrite, _lock: Some(lock) })
    }

    /// Locks an existing directory to read what is in it. Nothing is changed, not even the number in the lock file.
    ///
    /// # Errors
    /// As [`DataDir::open`].
    pub fn open_to_read(path: &Path) -> Result<DataDir, StorageError> {
        let handle = File::open(path).map_err(io_error("open", path.display().to_string()))?;
        let lock = match File::open(path.join(LOCK_NAME)) {
            Ok(mut file) => {
                take_lock(&mut file, path)?;
                Some(file)
            }
            // Every node makes the file before anything else.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io_error("open", path.join(LOCK_NAME).display().to_string())(error)),
        };
        Ok(DataDir { path: path.to_path_buf(), handle, access: Access::ReadOnly, _lock: lock })
    }

    fn assert_writable(&self) {
        assert!(self.access == Access::ReadWrite, "a directory that was opened to be read is not changed");
    }
}

/// Makes the directory with those above it, and makes the names of all that may be new durable.
fn make_directory(path: &Path) -> io::Result<()> {
    let is_missing = |above: &&Path| !above.as_os_str().is_empty() && !above.is_dir();
    let missing = path.ancestors().take_while(is_missing).count();
    if missing > 0 {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    }
    for (number, parent) in unsettled_parents(path).into_iter().enumerate() {
        match File::open(parent).and_then(|parent| parent.sync_all()) {
            // One that was there and may not be read: whoever made it has seen to it.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && number >= missing => {}
            result => result?,
        }
    }
    Ok(())
}

/// The directories with names on the way to `path` that are perhaps not durable, from below: until the first start is
/// through, it may have been cut short right after it had made them.
fn unsettled_parents(path: &Path) -> Vec<&Path> {
    if path.join(IDENTITY_NAME).exists() {
        return Vec::new();
    }
    let parents = path.ancestors().skip(1);
    parents.map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent }).collect()
}

fn lock(directory: &Path) -> Result<File, StorageError> {
    let path = directory.join(LOCK_NAME);
    let shown = path.display().to_string();
    let mut file = private_file().open(&path).map_err(io_error("open", shown.clone()))?;
    take_lock(&mut file, directory)?;
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())
    };
    match write_pid(&mut file) {
        // The number is a courtesy; a node on a full disk starts without it.
        Err(error) if !is_full(&error) => Err(io_error("write", shown)(error)),
        _ => Ok(file),
    }
}

fn take_lock(file: &mut File, directory: &Path) -> Result<(), StorageError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message; an unreadable number is no reason to hide the real one.
            let _ = file.read_to_string(&mut holder);
            let holder =
                holder.trim().parse::<u32>().map_or("another process".into(), |pid| format!("process {pid}"));
            Err(StorageError::Refused(format!(
                "the working directory {} is in use by {holder}: stop it first, or give this node a directory of its own",
                directory.display()
            )))
        }
        Err(TryLockError::Error(source)) => {
            Err(io_error("lock", directory.join(LOCK_NAME).display().to_string())(source))
        }
    }
}

/// Read and write, made when missing, for this user only.
fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

/// Gives a file that has `from` bytes its size with all space allocated, so that neither a later write nor a read
/// through a map can run out of space.
fn allocate(file: &File, from: usize, size: usize) -> io::Result<()> {
    if size == from {
        return Ok(());
    }
    match rustix::fs::fallocate(file, FallocateFlags::empty(), from as u64, (size - from) as u64) {
        Ok(()) => Ok(()),
        // This file system cannot reserve space; writing zeros takes it for real.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            let zeros = vec![0; CHUNK_BYTES.min(size - from)];
            let mut offset = from;
            while offset < size {
                let len = zeros.len().min(size - offset);
                file.write_all_at(&zeros[..len], offset as u64)?;
                offset += len;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

impl Directory for DataDir {
    type Region = MappedFile;

    fn path(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&mut self, name: &str, size: usize) -> io::Result<MappedFile> {
        self.assert_writable();
        let path = self.path.join(name);
        let file = private_file().truncate(true).open(&path)?;
        allocate(&file, 0, size).and_then(|()| MappedFile::map(file)).inspect_err(|_| {
            // Space taken by half a file is space that nobody can use. The first error is the one that counts.
            let _ = fs::remove_file(&path);
        })
    }

    fn open(&mut self, name: &str) -> io::Result<MappedFile> {
        let writable = self.access == Access::ReadWrite;
        MappedFile::open(OpenOptions::new().read(true).write(writable).open(self.path.join(name))?)
    }

    fn open_unread(&mut self, name: &str) -> io::Result<MappedFile> {
        MappedFile::map(OpenOptions::new().read(true).write(true).open(self.path.join(name))?)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.assert_writable();
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.assert_writable();
        fs::remove_file(self.path.join(name))
    }

    fn resize(&mut self, name: &str, size: usize) -> io::Result<()> {
        self.assert_writable();
        let file = OpenOptions::new().write(true).open(self.path.join(name))?;
        let before = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if size <= before {
            return file.set_len(size as u64);
        }
        allocate(&file, before, size).inspect_err(|_| {
            // Some file systems keep what they have found so far. The first error is the one that counts.
            let _ = file.set_len(before as u64);
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F4: a first start that was cut short before the names above it were durable is made up for by the next one.
    #[test]
    fn parents_are_synced_until_the_first_start_is_through() {
        assert_eq!(unsettled_parents(Path::new("/srv/keva/a")), ["/srv/keva", "/srv", "/"].map(Path::new));
        assert_eq!(unsettled_parents(Path::new("keva/a")), ["keva", "."].map(Path::new));
        let scratch = tempfile::tempdir().expect("there is space");
        let path = scratch.path().join("made/on/demand");
        make_directory(&path).expect("it can be made");
        assert_eq!(
            unsettled_parents(&path)[..2],
            [path.join(".."), path.join("../..")].map(|p| p.canonicalize().expect("it is there"))
        );
        make_directory(&path).expect("it is there");
        fs::write(path.join(IDENTITY_NAME), "whoever").expect("there is space");
        assert!(unsettled_parents(&path).is_empty());
    }
}
