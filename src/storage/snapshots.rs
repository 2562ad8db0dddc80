//! A node's snapshots: the newest whole one, the draft of the next, and the file that the next draft goes into.
//!
//! When a snapshot is replaced, its file stays as the reserve of the next draft, under the name of a temporary file: so
//! there is space for a snapshot even when the disk is full, and the file system need not free and allocate it. It is
//! made longer when the data has grown, and shorter, bit by bit, when there is less: so there are never more than two
//! files for snapshots, of about the data's size each. Two exceptions: a file that is very much larger than the next
//! draft is removed bit by bit while that is written; and one whose blocks are bad keeps them until the next draft has
//! others.

use std::io;

use crate::limits::{REMOVED_BYTES_PER_TURN, SNAPSHOT_BYTES_MAX, SNAPSHOT_SLACK_BYTES, SNAPSHOT_SMALL_SHARE};
use crate::raft::storage::{SnapshotDraft, SnapshotMeta, StorageError};
use crate::raft::types::EntryId;
use crate::storage::directory::{Directory, give_name, io_error, sync_names};
use crate::storage::region::Region;
use crate::storage::retired_snapshot::{REMOVED_NAME, Removal, RetiredSnapshot};
use crate::storage::snapshot::{SnapshotFile, snapshot_file_bytes, snapshot_name};
use crate::storage::snapshot_draft::{Draft, DraftCheck, SNAPSHOT_TEMPORARY};
use crate::storage::spare::is_full;
use crate::storage::stamp::Owner;
use crate::util::mutation::mutant;

/// The snapshots. At most one of draft and reserve is there: both are the file [`SNAPSHOT_TEMPORARY`]. While there is a
/// retired one, there is no draft; while a removal waits, there is neither retired one nor reserve.
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

/// Whether a file of `size` is a waste of space for a content of `bytes`.
fn is_oversized(size: usize, bytes: u64) -> bool {
    size > roomy(bytes) + SNAPSHOT_SLACK_BYTES
}

/// Whether a file for a content of `bytes` is so small that it may be made beside one of `size` that is still to go.
fn is_small_beside(size: usize, bytes: u64) -> bool {
    roomy(bytes) <= size / SNAPSHOT_SMALL_SHARE
}

/// Whether a file of `size` is so large for a content of `bytes` that it is removed and not made shorter.
fn is_vast(size: usize, bytes: u64) -> bool {
    is_oversized(size, bytes) && is_small_beside(size, bytes)
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
        if bytes > SNAPSHOT_BYTES_MAX || !self.make_place(directory, bytes)? {
            return Ok(false);
        }
        self.draft = self.reserve.take().map(|region| Draft::new(region, last, bytes));
        Ok(self.draft.is_some())
    }

    /// Has the reserve be right for a content of `bytes`, and says whether it is.
    fn make_place<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        bytes: u64,
    ) -> Result<bool, StorageError> {
        let is_third = |removal: &Removal| !removal.waits() && !is_small_beside(removal.left(), bytes);
        if self.removal.as_ref().is_some_and(is_third) {
            // Three large files would be more than the disk was to hold.
            self.finish_removal(directory)?;
        }
        if self.reserve.as_ref().is_some_and(|reserve| is_vast(reserve.size(), bytes)) {
            self.remove_reserve_slowly(directory)?;
        }
        let made = self.try_to_make_place(directory, bytes)?
            || self.finish_removal(directory)? && self.try_to_make_place(directory, bytes)?;
        if let Some(removal) = self.removal.as_mut().filter(|_| made) {
            removal.go_on();
        }
        Ok(made)
    }

    fn try_to_make_place<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        bytes: u64,
    ) -> Result<bool, StorageError> {
        let (roomy, enough) = (roomy(bytes), snapshot_file_bytes(bytes));
        match self.reserve.as_ref().map(Region::size) {
            None => {
                self.reserve = create(directory, roomy, enough)?;
                Ok(self.reserve.is_some())
            }
            Some(size) if is_oversized(size, bytes) => self.resize_reserve(directory, roomy),
            Some(size) => Ok(size >= enough
                || self.resize_reserve(directory, roomy)?
                || self.resize_reserve(directory, enough)?),
        }
    }

    /// Gives the reserve another size. `false`: there is no space for that, and it is as it was.
    fn resize_reserve<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        size: usize,
    ) -> Result<bool, StorageError> {
        // A file that is open keeps its size.
        self.reserve = None;
        let has_size = match directory.resize(SNAPSHOT_TEMPORARY, size) {
            Ok(()) => true,
            Err(error) if is_no_space(&error) => false,
            Err(error) => return Err(io_error("resize", directory.path(SNAPSHOT_TEMPORARY))(error)),
        };
        self.open_reserve(directory)?;
        Ok(has_size)
    }

    fn open_reserve<D: Directory<Region = R>>(&mut self, directory: &mut D) -> Result<(), StorageError> {
        let path = directory.path(SNAPSHOT_TEMPORARY);
        self.reserve = Some(directory.open_unread(SNAPSHOT_TEMPORARY).map_err(io_error("open", path))?);
        Ok(())
    }

    /// Does a step of what [`Snapshots::begin`] with so many bytes would else do at once, and says whether there was one.
    pub(crate) fn prepare<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        bytes: u64,
    ) -> Result<bool, StorageError> {
        Ok(self.advance_removal(directory)?
            || bytes <= SNAPSHOT_BYTES_MAX && self.shorten_reserve(directory, bytes)?)
    }

    /// Gives back a part of what is too much of the reserve for a content of `bytes`, and says whether anything was.
    fn shorten_reserve<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
        bytes: u64,
    ) -> Result<bool, StorageError> {
        match self.reserve.as_ref().map(Region::size) {
            Some(size) if is_oversized(size, bytes) && !is_vast(size, bytes) => {
                self.resize_reserve(directory, roomy(bytes).max(size.saturating_sub(REMOVED_BYTES_PER_TURN)))
            }
            _ => Ok(false),
        }
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
        let Some(retired) = &self.retired else { return Ok(false) };
        let is_reserve = self.is_useful(retired.size());
        if retired.is_released() && !is_reserve && self.removal.is_some() {
            // The name is taken by a file that goes bit by bit as well.
            return self.trim(directory);
        }
        self.retired.as_mut().map_or(Ok(false), |retired| retired.advance(directory, is_reserve))
    }

    /// Whether the snapshot before the newest is not put away yet.
    pub(crate) fn is_retiring(&self) -> bool {
        self.retired.is_some()
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
            return self.open_reserve(directory);
        }
        self.removal = Some(Removal::new(size));
        Ok(())
    }

    /// Removes a part of a file that is of no use, or of what is too much of the reserve, and says whether there was one.
    pub(crate) fn trim<D: Directory<Region = R>>(&mut self, directory: &mut D) -> Result<bool, StorageError> {
        if self.advance_removal(directory)? {
            return Ok(true);
        }
        self.meta().map_or(Ok(false), |meta| self.shorten_reserve(directory, meta.bytes))
    }

    fn advance_removal<D: Directory>(&mut self, directory: &mut D) -> Result<bool, StorageError> {
        let Some(removal) = self.removal.as_mut().filter(|removal| !removal.waits()) else {
            return Ok(false);
        };
        if removal.advance(directory)? {
            self.removal = None;
        }
        Ok(true)
    }

    /// The size that the reserve should have, if it is larger.
    fn reserve_excess(&self) -> Option<usize> {
        let (reserve, bytes) = (self.reserve.as_ref()?, self.meta()?.bytes);
        let size = reserve.size();
        (is_oversized(size, bytes) && !is_vast(size, bytes)).then(|| roomy(bytes))
    }

    /// Whether anything waits for [`Snapshots::clean_up`] or [`Snapshots::trim`], or for durable names.
    pub(crate) fn must_clean_up(&self) -> bool {
        self.retired.is_some()
            || self.removal.as_ref().is_some_and(|removal| !removal.waits())
            || self.reserve_excess().is_some()
    }

    /// Puts the snapshot before the newest away at once: the next draft needs its file, or its name.
    fn finish_retiring<D: Directory<Region = R>>(&mut self, directory: &mut D) -> Result<(), StorageError> {
        if self.retired.as_ref().is_some_and(|retired| !self.is_useful(retired.size())) {
            self.finish_removal(directory)?;
        }
        while self.clean_up(directory)? {}
        if self.has_new_names() {
            sync_names(directory)?;
            self.on_names_synced(directory)?;
        }
        Ok(())
    }

    /// Gives back all that [`Snapshots::trim`] would, for the space. Says whether there was anything.
    pub(crate) fn finish_trimming<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
    ) -> Result<bool, StorageError> {
        if self.finish_removal(directory)? {
            return Ok(true);
        }
        self.reserve_excess().map_or(Ok(false), |size| self.resize_reserve(directory, size))
    }

    /// Removes the rest of a file that is of no use. Says whether there was one.
    fn finish_removal<D: Directory>(&mut self, directory: &mut D) -> Result<bool, StorageError> {
        let had_removal = self.removal.take().is_some();
        if had_removal {
            let path = directory.path(REMOVED_NAME);
            directory.remove(REMOVED_NAME).map_err(io_error("remove", path))?;
        }
        Ok(had_removal)
    }

    /// Forgets a draft that the disk did not give back as it was written, and keeps its file's blocks from the next one.
    pub(crate) fn drop_damaged<D: Directory<Region = R>>(
        &mut self,
        directory: &mut D,
    ) -> Result<(), StorageError> {
        if !self.draft.as_ref().is_some_and(Draft::is_damaged) || mutant("bad-draft-kept") {
            return self.drop_draft(directory);
        }
        self.reserve = self.draft.take().map(Draft::into_region);
        self.remove_reserve_slowly(directory)?;
        self.removal = self.removal.take().map(Removal::wait);
        Ok(())
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

    /// Keeps the temporary file as the reserve, or has it removed.
    fn keep<D: Directory<Region = R>>(&mut self, directory: &mut D, region: R) -> Result<(), StorageError> {
        let is_useful = self.is_useful(region.size());
        self.reserve = Some(region);
        if is_useful { Ok(()) } else { self.remove_reserve_slowly(directory) }
    }

    /// Whether a file of `size` is worth to be given the size that is right for the next draft.
    fn is_useful(&self, size: usize) -> bool {
        self.meta().is_some_and(|meta| !is_vast(size, meta.bytes))
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
            Err(error) if is_no_space(&error) => {}
            Err(error) => return Err(io_error("create", directory.path(SNAPSHOT_TEMPORARY))(error)),
        }
    }
    Ok(None)
}

fn is_no_space(error: &io::Error) -> bool {
    is_full(error) || error.kind() == io::ErrorKind::FileTooLarge
}
