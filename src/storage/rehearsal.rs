//! A directory that looks like another one and can be changed, while nothing happens to that other one: what a start
//! would do is found out by starting.

use std::collections::BTreeMap;
use std::io;

use crate::storage::directory::Directory;
use crate::storage::region::Region;

/// The directory, with changes that exist only in memory.
pub(crate) struct Rehearsal<'a, D> {
    directory: &'a mut D,
    /// The name of each file with its real name, `None` for one that was made here.
    names: BTreeMap<String, Option<String>>,
}

/// A file, copied into memory before the first write to it.
pub(crate) struct RehearsedRegion<R> {
    file: Option<R>,
    copy: Option<Vec<u8>>,
}

impl<'a, D: Directory> Rehearsal<'a, D> {
    /// # Errors
    /// When the files cannot be listed.
    pub(crate) fn new(directory: &'a mut D) -> io::Result<Rehearsal<'a, D>> {
        let names = directory.list()?.into_iter().map(|name| (name.clone(), Some(name))).collect();
        Ok(Rehearsal { directory, names })
    }
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, name.to_owned())
}

impl<D: Directory> Directory for Rehearsal<'_, D> {
    type Region = RehearsedRegion<D::Region>;

    fn path(&self, name: &str) -> String {
        self.directory.path(name)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names.keys().cloned().collect())
    }

    fn create(&mut self, name: &str, size: usize) -> io::Result<Self::Region> {
        self.names.insert(name.to_owned(), None);
        Ok(RehearsedRegion { file: None, copy: Some(vec![0; size]) })
    }

    fn open(&mut self, name: &str) -> io::Result<Self::Region> {
        let real = self.names.get(name).and_then(Option::as_ref).ok_or_else(|| not_found(name))?;
        Ok(RehearsedRegion { file: Some(self.directory.open(real)?), copy: None })
    }

    fn open_unread(&mut self, name: &str) -> io::Result<Self::Region> {
        self.open(name)
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let real = self.names.remove(from).ok_or_else(|| not_found(from))?;
        self.names.insert(to.to_owned(), real);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.names.remove(name).map(drop).ok_or_else(|| not_found(name))
    }

    /// No start does that.
    fn resize(&mut self, _name: &str, _size: usize) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<R: Region> RehearsedRegion<R> {
    fn file(&self) -> &R {
        self.file.as_ref().expect("what is not in memory is in a file")
    }
}

impl<R: Region> Region for RehearsedRegion<R> {
    fn size(&self) -> usize {
        self.copy.as_ref().map_or_else(|| self.file().size(), Vec::len)
    }

    fn read(&self, offset: usize, len: usize) -> &[u8] {
        self.copy.as_ref().map_or_else(|| self.file().read(offset, len), |copy| &copy[offset..offset + len])
    }

    fn write_at(&mut self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        if self.copy.is_none() {
            self.copy = Some(self.file().read(0, self.file().size()).to_vec());
        }
        let copy = self.copy.as_mut().expect("just made");
        copy[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn reload(&mut self, offset: usize, len: usize) -> io::Result<()> {
        match &mut self.file {
            Some(file) if self.copy.is_none() => file.reload(offset, len),
            _ => Ok(()),
        }
    }

    fn seal(&mut self) {
        if let Some(file) = &mut self.file {
            file.seal();
        }
    }
}
