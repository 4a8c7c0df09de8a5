//! What changed since a revision that the event log no longer reaches: the newest state of each
//! record that changed, once, and what was removed.
//!
//! All pages of a difference show the revision at which it began (`until`), so that a watch goes on
//! after it without a gap or a repetition. Where tombstones are compacted, the unchanged records
//! are named instead: what a client holds and isn't told of is gone.

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use super::record;
use super::{PageExpired, Store};
use crate::proto::node::DifferencePlace;

/// Where a difference goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DifferenceCursor {
    /// The revision that the difference shows; none at its beginning.
    pub until: Option<u64>,
    /// The slot after which to go on.
    after_slot: Option<u32>,
    /// The revision of the tombstone after which to go on, once the slots are through.
    after_tombstone: Option<u64>,
    /// Whether the unchanged records are named, too.
    present: bool,
}

impl DifferenceCursor {
    /// For another node.
    pub fn place(self) -> DifferencePlace {
        let DifferenceCursor { until, after_slot, after_tombstone, present } = self;
        DifferencePlace { until, after_slot, after_tombstone, present }
    }

    /// As another node sent it.
    pub fn of_place(place: &DifferencePlace) -> Self {
        DifferenceCursor {
            until: place.until,
            after_slot: place.after_slot,
            after_tombstone: place.after_tombstone,
            present: place.present,
        }
    }
}

/// One thing that changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A record as it is at `until`.
    Put {
        /// The revision of its newest change.
        revision: u64,
        /// The encoded `api::Record`: the stored allocation itself.
        record: Bytes,
        /// Whether it was created since.
        created: bool,
    },
    /// A record that is gone.
    Removed {
        /// The revision of its removal.
        revision: u64,
        /// The encoded `api::Key`.
        key: Bytes,
        /// Whether it ran out.
        expired: bool,
    },
}

/// Part of a difference.
#[derive(Clone, Debug)]
pub struct DifferencePage {
    /// What changed, in no particular order; no record twice in a difference.
    pub changes: Vec<Change>,
    /// Encoded keys of records that exist unchanged, where `present_complete`.
    pub present: Vec<Bytes>,
    /// Whether removals aren't told one by one, and `present` is.
    pub present_complete: bool,
    /// The revision that the difference shows, after which a watch goes on.
    pub until: u64,
    /// Where to go on; none at the end.
    pub next: Option<DifferenceCursor>,
}

/// Slots that are looked at for one page, so that a page takes a bounded time.
const PAGE_SLOTS_MAX: u32 = 65_536;

impl Store {
    /// The next part of what changed after `revision`, at most `limit` changes and keys. After
    /// `PageExpired` begin again with a new cursor. Liveness plays no part: an overdue record is
    /// there until its removal is applied, as it is for a watch.
    pub fn difference_after(
        &self,
        revision: u64,
        cursor: DifferenceCursor,
        limit: usize,
    ) -> Result<DifferencePage, PageExpired> {
        let mut at = cursor;
        let until = *at.until.get_or_insert(self.revision);
        if cursor.until.is_none() {
            // At revision 0, too: an earlier difference may have been broken off in the middle.
            at.present = revision < self.compacted_revision();
        }
        if !at.present && revision < self.compacted_revision() {
            return Err(PageExpired);
        }
        let mut page = DifferencePage {
            changes: Vec::new(),
            present: Vec::new(),
            present_complete: at.present,
            until,
            next: None,
        };
        if at.after_tombstone.is_none() {
            if let Some(next) = self.changed_slots(revision, until, at, limit, &mut page)? {
                page.next = Some(next);
                return Ok(page);
            }
            if at.present {
                return Ok(page);
            }
            at.after_tombstone = Some(revision);
        }
        page.next = self.removed_since(until, at, limit, &mut page.changes)?;
        Ok(page)
    }

    fn changed_slots(
        &self,
        revision: u64,
        until: u64,
        at: DifferenceCursor,
        limit: usize,
        page: &mut DifferencePage,
    ) -> Result<Option<DifferenceCursor>, PageExpired> {
        let images = self.events.undo(until).map_err(|_| PageExpired)?;
        let start = at.after_slot.map_or(0, |slot| slot.saturating_add(1));
        for slot in start..self.slots.end() {
            let enough = page.changes.len() + page.present.len() >= limit.max(1);
            if enough || slot - start >= PAGE_SLOTS_MAX {
                return Ok(Some(DifferenceCursor { after_slot: Some(slot - 1), ..at }));
            }
            let image = images.get(&slot);
            let Some(record) = image.map_or(self.slots.get(slot), |image| image.record.as_ref())
            else {
                continue;
            };
            if image.is_none() && self.slots.revision(slot) <= revision && !page.present_complete {
                continue;
            }
            let Some(parts) = record::parse(record) else { continue };
            if parts.meta.revision > revision {
                page.changes.push(Change::Put {
                    revision: parts.meta.revision,
                    record: record.clone(),
                    created: parts.meta.create_revision > revision,
                });
            } else if page.present_complete {
                page.present.push(record.slice_ref(parts.key_bytes));
            }
        }
        Ok(None)
    }

    fn removed_since(
        &self,
        until: u64,
        at: DifferenceCursor,
        limit: usize,
        changes: &mut Vec<Change>,
    ) -> Result<Option<DifferenceCursor>, PageExpired> {
        let after = at.after_tombstone.unwrap_or(0);
        let images = self.events.undo(until).map_err(|_| PageExpired)?;
        let in_images = |record: &Bytes| record::key_bytes_of(record);
        let undone: HashSet<Bytes> =
            images.values().filter_map(|image| image.record.as_ref().and_then(in_images)).collect();
        let entries = || self.tombstones.after(after).take_while(|entry| entry.revision <= until);
        let newest: HashMap<&[u8], u64> =
            entries().map(|entry| (&*entry.key, entry.revision)).collect();
        let mut last = after;
        for tombstone in entries() {
            if changes.len() >= limit.max(1) {
                return Ok(Some(DifferenceCursor { after_tombstone: Some(last), ..at }));
            }
            last = tombstone.revision;
            let key: &[u8] = &tombstone.key;
            let slot = record::parse_key(key).and_then(|key| self.slots.find(&key));
            let is_there =
                undone.contains(key) || slot.is_some_and(|slot| !images.contains_key(&slot));
            if is_there || newest[key] > tombstone.revision {
                continue;
            }
            changes.push(Change::Removed {
                revision: tombstone.revision,
                key: Bytes::copy_from_slice(key),
                expired: tombstone.expired,
            });
        }
        Ok(None)
    }
}
