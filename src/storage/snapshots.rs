//! A node's snapshots: the newest whole one, the draft of the next, and the file that the next draft goes into.
//!
//! When a snapshot is replaced, its file stays as the reserve of the next draft, under the name of a temporary file: so
//! there is space for a snapshot even when the disk is full, and the file system need not free and allocate it.

use std::io;

use crate::limits::{SNAPSHOT_BYTES_MAX, SNAPSHOT_SLACK_BYTES};
use crate::raft::storage::{SnapshotDraft, SnapshotMeta, StorageError};
use crate::raft::types::EntryId;
use crate::storage::directory::{Directory, give_name, io_error, sync_names};
use crate::storage::region::Region;
use crate::storage::retired_snapshot::{REMOVED_NAME, Removal, RetiredSnapshot};
use crate::storage::snapshot::{SnapshotFile, snapshot_file_bytes, snapshot_name};
use crate::storage::snapshot_draft::{Draft, DraftCheck, SNAPSHOT_TEMPORARY};
use crate::storage::spare::is_full;
use crate::storage::stamp::Owner;

/// The snapshots. At most one of draft and reserve is there: both are the file [`SNAPSHOT_TEMPORARY`]. While there is a
/// retired one, there is no draft.
#[derive(Debug)]
pub(crate) struct Snapshots<R> {
    newest: Option<SnapshotFile<R>>,
    draft: Option<Draft<R>>,
    reserve: Option<R>,
    retired: Option<RetiredSnapshot<R>>,
    removal: Option<Removal>,
}

/// The size of the file for a content of `bytes`: a bit more than needed, so that it serves again when there is a bit
/// more data.
fn roomy(bytes: u64) -> usize {
    let needed = snapshot_file_bytes(bytes);
    needed + needed / 16
}

/// Whether a file of `size` is right for a content of `bytes`: large enough, and no waste of space.
fn fits(size: usize, bytes: u64) -> bool {
    let needed = snapshot_file_bytes(bytes);
    (needed..=needed + needed / 4 + SNAPSHOT_SLACK_BYTES).contains(&size)
}

impl<R: Region> Snapshots<R> {
    /// Only what recovery found. The reserve is taken if it is of use, else removed.
    pub(crate) fn new<D: Directory<Region = R>>(
        directory: &mut D,
        newest: Option<SnapshotFile<R>>,
        has_temporary: bool,
    ) -> Result<Snapshots<R>, StorageError> {
        let mut snapshots = Snapshots { newest, draft: None, reserve: None, retired: None, removal: None };
        if has_temporary {
            let path = directory.path(SNAPSHOT_TEMPORARY);
            let region = directory.open_unread(SNAPSHOT_TEMPORARY).map_err(io_error("open", path))?;
            snapshots.keep(directory, region)?;
        }
        Ok(snapshots)
    }

    pub(crate) fn meta(&self) -> Option<SnapshotMeta> {
        self.newest.as_ref().map(SnapshotFile::meta)
    }

    /// The last entry that the newest snapshot covers, `0@0` without one.
    pub(crate) fn last(&self) -> EntryId {
        self.meta().map_or(EntryId::default(), |meta| meta.last)
    }

    pub(crate) fn draft(&self) -> Option<SnapshotDraft> {
        self.draft.as_ref().map(Draft::state)
    }

    /// A checked part of the newest snapshot.
    ///
    /// # Panics
    /// When there is no such part.
    pub(crate) fn read(&self, offset: u64, len: usize) -> Result<&[u8], StorageError> {
        self.newest.as_ref().expect("only a node with a snapshot is asked for it").read(offset, len)
    }

    /// Begins a draft. `false`: there is no space for it. Then the file kept for it stays, for when there is less to write.
    pub(crate) fn begin<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        last: EntryId,
        bytes: u64,
    ) -> Result<bool, StorageError> {
        assert!(
            bytes > 0 && last.index > self.last().index,
            "a snapshot is not empty, and newer than the last"
        );
        self.finish_retiring(directory)?;
        if let Some(draft) = self.draft.take() {
            self.reserve = Some(draft.into_region());
        }
        if bytes > SNAPSHOT_BYTES_MAX {
            return Ok(false);
        }
        if !self.reserve.as_ref().is_some_and(|reserve| fits(reserve.size(), bytes)) {
            let kept = self.reserve.as_ref().map(Region::size);
            self.remove_reserve_slowly(directory)?;
            self.reserve = create(directory, roomy(bytes), snapshot_file_bytes(bytes))?;
            if self.reserve.is_none() && self.finish_removal(directory)? {
                self.reserve = create(directory, roomy(bytes), snapshot_file_bytes(bytes))?;
            }
            if let (None, Some(size)) = (&self.reserve, kept) {
                self.reserve = create(directory, size, size)?;
                return Ok(false);
            }
        }
        self.draft = self.reserve.take().map(|region| Draft::new(region, last, bytes));
        Ok(self.draft.is_some())
    }

    /// Writes the next part of the draft.
    pub(crate) fn append<D: Directory>(&mut self, directory: &D, bytes: &[u8]) -> Result<(), StorageError> {
        let draft = self.draft.as_mut().expect("a part of a snapshot follows its beginning");
        draft.append(bytes).map_err(io_error("write", directory.path(SNAPSHOT_TEMPORARY)))
    }

    /// Checks the whole draft, about `budget` bytes; `expected` is what others say of it.
    pub(crate) fn check<D: Directory>(
        &mut self,
        directory: &D,
        owner: Owner,
        expected: Option<SnapshotMeta>,
        budget: usize,
    ) -> Result<DraftCheck, StorageError> {
        let draft = self.draft.as_mut().expect("a snapshot is finished after its beginning");
        if expected.is_some_and(|expected| expected != draft.meta()) {
            return Ok(DraftCheck::Damaged);
        }
        draft.check(owner, budget).map_err(io_error("write or read", directory.path(SNAPSHOT_TEMPORARY)))
    }

    /// What the draft will be once it is published.
    pub(crate) fn draft_meta(&self) -> SnapshotMeta {
        self.draft.as_ref().expect("there is a draft").meta()
    }

    /// Whether the draft was checked, and only its name is missing.
    pub(crate) fn is_draft_sound(&self) -> bool {
        self.draft.as_ref().is_some_and(Draft::is_sound)
    }

    /// Makes the draft, which was checked, the newest snapshot, durably. The one before is left to
    /// [`Snapshots::clean_up`].
    pub(crate) fn publish<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
    ) -> Result<(), StorageError> {
        let draft = self.draft.take().filter(Draft::is_sound).expect("a checked draft is there");
        let meta = draft.meta();
        let name = snapshot_name(meta.last);
        let mut region = draft.into_region();
        give_name(directory, SNAPSHOT_TEMPORARY, &name)?;
        region.seal();
        let path = directory.path(&name);
        let old = self.newest.replace(SnapshotFile::new(meta, region, path));
        assert!(self.retired.is_none(), "the one before was put away before the draft was begun");
        self.retired = old.map(RetiredSnapshot::new);
        Ok(())
    }

    /// Does a part of putting the snapshot before the newest away, and says whether there was anything to do. Its file
    /// becomes that of the next draft, if it is of use, and is removed if not.
    pub(crate) fn clean_up<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
    ) -> Result<bool, StorageError> {
        let size = self.retired.as_ref().map(RetiredSnapshot::size);
        let is_reserve = self.reserve.is_none() && size.is_some_and(|size| self.is_useful(size));
        let Some(retired) = &mut self.retired else { return Ok(false) };
        let was_step = retired.advance(directory, is_reserve)?;
        if matches!(retired, RetiredSnapshot::Renamed { is_reserve: false, .. }) {
            // It has taken the place of the file that was being removed.
            self.removal = None;
        }
        Ok(was_step)
    }

    /// Whether the names must be synced, and then [`Snapshots::on_names_synced`] be called.
    pub(crate) fn has_new_names(&self) -> bool {
        matches!(self.retired, Some(RetiredSnapshot::Renamed { .. }))
    }

    /// Says that all names are durable.
    pub(crate) fn on_names_synced<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
    ) -> Result<(), StorageError> {
        let is_renamed =
            |retired: &mut RetiredSnapshot<R>| matches!(retired, RetiredSnapshot::Renamed { .. });
        let Some(RetiredSnapshot::Renamed { is_reserve, size }) = self.retired.take_if(is_renamed) else {
            return Ok(());
        };
        if is_reserve {
            let path = directory.path(SNAPSHOT_TEMPORARY);
            self.reserve = Some(directory.open_unread(SNAPSHOT_TEMPORARY).map_err(io_error("open", path))?);
        } else {
            self.removal = Some(Removal::new(size));
        }
        Ok(())
    }

    /// Removes a part of a file that is of no use, and says whether there was one.
    pub(crate) fn trim<D: Directory>(&mut self, directory: &mut D) -> Result<bool, StorageError> {
        let Some(removal) = &mut self.removal else { return Ok(false) };
        if removal.advance(directory)? {
            self.removal = None;
        }
        Ok(true)
    }

    /// Whether anything waits for [`Snapshots::clean_up`] or [`Snapshots::trim`], or for durable names.
    pub(crate) fn must_clean_up(&self) -> bool {
        self.retired.is_some() || self.removal.is_some()
    }

    /// Puts the snapshot before the newest away at once: the next draft needs its file, or its name.
    fn finish_retiring<D: Directory<Region = R>>(&mut self, directory: &mut D) -> Result<(), StorageError> {
        while self.clean_up(directory)? {}
        if self.has_new_names() {
            sync_names(directory)?;
            self.on_names_synced(directory)?;
        }
        Ok(())
    }

    /// Removes the rest of a file that is of no use, for its space. Says whether there was one.
    pub(crate) fn finish_removal<D: Directory>(&mut self, directory: &mut D) -> Result<bool, StorageError> {
        let had_removal = self.removal.take().is_some();
        if had_removal {
            let path = directory.path(REMOVED_NAME);
            directory.remove(REMOVED_NAME).map_err(io_error("remove", path))?;
        }
        Ok(had_removal)
    }

    /// Forgets the draft. Its file stays as the reserve, if it is of use.
    pub(crate) fn drop_draft<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
    ) -> Result<(), StorageError> {
        match self.draft.take() {
            Some(draft) => self.keep(directory, draft.into_region()),
            None => Ok(()),
        }
    }

    /// Keeps the temporary file as the reserve, or removes it.
    fn keep<D: Directory<Region = R>>(&mut self, directory: &mut D, region: R) -> Result<(), StorageError> {
        let is_useful = self.is_useful(region.size());
        self.reserve = Some(region);
        if is_useful { Ok(()) } else { self.remove_reserve(directory) }
    }

    /// Whether a file of `size` is likely to be right for the next draft.
    fn is_useful(&self, size: usize) -> bool {
        self.meta().is_some_and(|meta| fits(size, meta.bytes))
    }

    /// Has the reserve removed by and by. What a crash leaves under either name is worth nothing.
    fn remove_reserve_slowly<D: Directory>(&mut self, directory: &mut D) -> Result<(), StorageError> {
        if let Some(reserve) = self.reserve.take() {
            self.finish_removal(directory)?;
            let path = directory.path(SNAPSHOT_TEMPORARY);
            directory.rename(SNAPSHOT_TEMPORARY, REMOVED_NAME).map_err(io_error("rename", path))?;
            self.removal = Some(Removal::new(reserve.size()));
        }
        Ok(())
    }

    fn remove_reserve<D: Directory>(&mut self, directory: &mut D) -> Result<(), StorageError> {
        if self.reserve.take().is_some() {
            let path = directory.path(SNAPSHOT_TEMPORARY);
            directory.remove(SNAPSHOT_TEMPORARY).map_err(io_error("remove", path))?;
        }
        Ok(())
    }
}

/// Makes a file: a roomy one, or else one that is just large enough, or none.
fn create<D: Directory>(
    directory: &mut D,
    roomy: usize,
    enough: usize,
) -> Result<Option<D::Region>, StorageError> {
    for size in [roomy, enough] {
        match directory.create(SNAPSHOT_TEMPORARY, size) {
            Ok(region) => return Ok(Some(region)),
            Err(error) if is_full(&error) || error.kind() == io::ErrorKind::FileTooLarge => {}
            Err(error) => return Err(io_error("create", directory.path(SNAPSHOT_TEMPORARY))(error)),
        }
    }
    Ok(None)
}
