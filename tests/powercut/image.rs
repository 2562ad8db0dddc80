//! The content of a disk, in memory, and as a file that takes no space for zeros.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of the disk: the least with room for a journal and a long run.
pub(crate) const IMAGE_BYTES: usize = 64 << 20;
/// The file system's block.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// The bytes of a disk.
#[derive(Clone)]
pub(crate) struct Image {
    bytes: Vec<u8>,
    /// Numbers of the blocks that may have anything but zeros.
    used: BTreeSet<usize>,
}

impl Image {
    /// A disk that was never used.
    pub(crate) fn empty() -> Image {
        Image { bytes: vec![0; IMAGE_BYTES], used: BTreeSet::new() }
    }

    /// Reads a file.
    pub(crate) fn load(path: &Path) -> io::Result<Image> {
        let bytes = std::fs::read(path)?;
        let blocks = bytes.chunks(BLOCK_BYTES).enumerate();
        let used = blocks.filter(|(_, block)| block.iter().any(|byte| *byte != 0)).map(|(number, _)| number);
        Ok(Image { used: used.collect(), bytes })
    }

    /// All bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes at an offset.
    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.used.extend(offset / BLOCK_BYTES..(offset + bytes.len()).div_ceil(BLOCK_BYTES));
    }

    /// Writes a new file with this content, and with `patches` over it.
    pub(crate) fn save(&self, path: &Path, patches: &[(usize, &[u8])]) -> io::Result<()> {
        let file = File::create(path)?;
        file.set_len(IMAGE_BYTES as u64)?;
        let mut blocks = self.used.iter().copied().peekable();
        while let Some(first) = blocks.next() {
            let mut end = first + 1;
            while blocks.next_if_eq(&end).is_some() {
                end += 1;
            }
            let range = first * BLOCK_BYTES..end * BLOCK_BYTES;
            file.write_all_at(&self.bytes[range.clone()], range.start as u64)?;
        }
        for (offset, bytes) in patches {
            file.write_all_at(bytes, *offset as u64)?;
        }
        Ok(())
    }
}
