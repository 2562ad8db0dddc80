//! The names of the files in the working directory, and how a file gets one so that a crash leaves no half of it.

use std::io;

use crate::raft::storage::StorageError;
use crate::storage::region::{Region, Unreadable};
use crate::util::mutation::mutant;

/// A flat directory. Creating, renaming and removing are durable only after [`Directory::sync`]; before it, a crash
/// may keep any of them and lose any other.
pub trait Directory {
    /// A file in it.
    type Region: Region;

    /// The file's full path, for messages.
    fn path(&self, name: &str) -> String;

    /// The names of all files, sorted.
    ///
    /// # Errors
    /// When the system refuses.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file of `size` bytes that reads as zeros, with all its space allocated. A file that has the name
    /// already is emptied first.
    ///
    /// # Errors
    /// When the system refuses; [`io::ErrorKind::StorageFull`] when the space is not there. The name is not taken then.
    fn create(&mut self, name: &str, size: usize) -> io::Result<Self::Region>;

    /// Opens an existing file for reading and writing. A file is open at most once.
    ///
    /// # Errors
    /// When it is not there, or a part of it cannot be read: then with an [`Unreadable`](super::region)
    /// inside.
    fn open(&mut self, name: &str) -> io::Result<Self::Region>;

    /// Opens an existing file that is going to be overwritten: like [`Directory::open`], but what it holds is not read
    /// and need not be readable.
    ///
    /// # Errors
    /// When it is not there.
    fn open_unread(&mut self, name: &str) -> io::Result<Self::Region>;

    /// Gives a file another name; a file that has that name already is replaced.
    ///
    /// # Errors
    /// When the system refuses.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// When the system refuses.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// Makes a file, which is not open, longer or shorter. What is new in it reads as zeros and has its space allocated;
    /// what is cut off gives its space back. Not durable before the file is synced.
    ///
    /// # Errors
    /// When the system refuses; [`io::ErrorKind::StorageFull`] when the space is not there. The file is as before then.
    fn resize(&mut self, name: &str, size: usize) -> io::Result<()>;

    /// Makes all names durable.
    ///
    /// # Errors
    /// When the disk fails.
    fn sync(&mut self) -> io::Result<()>;
}

/// An error of the operating system, with what was tried: "cannot sync /var/lib/keva/hard-state".
pub(crate) fn io_error(action: &str, path: String) -> impl FnOnce(io::Error) -> StorageError {
    let action = format!("cannot {action} {path}");
    move |source| StorageError::Io { action, source }
}

/// What a failed [`Directory::open`] means: a part that the disk cannot give back is damage like any other.
pub(crate) fn open_error(path: String) -> impl FnOnce(io::Error) -> StorageError {
    move |error| match Unreadable::find(&error) {
        Some(unreadable) if unreadable.is_damage() => StorageError::Damaged {
            file: path,
            offset: unreadable.offset,
            detail: format!("the disk cannot read it from there on: {}", unreadable.source),
        },
        _ => io_error("open", path)(error),
    }
}

/// Makes the file's content durable, then gives it its final name, then makes the name durable. So the final name
/// never stands for a half-written file.
///
/// # Errors
/// When the disk fails.
pub(crate) fn publish<D: Directory>(
    directory: &mut D,
    region: &mut D::Region,
    temporary: &str,
    name: &str,
) -> Result<(), StorageError> {
    if !mutant("name-before-content") {
        region.sync().map_err(io_error("sync", directory.path(temporary)))?;
    }
    give_name(directory, temporary, name)
}

/// Gives a file that is whole and durable its final name, and makes the name durable.
///
/// # Errors
/// When the disk fails.
pub(crate) fn give_name<D: Directory>(
    directory: &mut D,
    temporary: &str,
    name: &str,
) -> Result<(), StorageError> {
    directory.rename(temporary, name).map_err(io_error("give its name to", directory.path(name)))?;
    if mutant("names-not-synced") {
        return Ok(());
    }
    sync_names(directory)
}

/// Makes all names durable.
///
/// # Errors
/// When the disk fails.
pub(crate) fn sync_names<D: Directory>(directory: &mut D) -> Result<(), StorageError> {
    directory.sync().map_err(io_error("sync the names in", directory.path("")))
}
