//! Pages that all show one revision, in the order of slots.
//!
//! What changed after that revision is undone from the event log; once the log no longer reaches
//! back, the page has expired. How alive a record is, and its load, are of the moment.

use bytes::Bytes;

use super::events::PreImage;
use super::record;
use super::{CompiledFilter, INSTANCE_BYTES, InstanceOwned, Store};
use crate::capacity;
use crate::lease::Liveness;
use crate::proto::api::Status;

/// Where a page begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListPosition {
    /// The revision to show; none means the newest.
    pub revision: Option<u64>,
    /// The slot after which the page begins; none means the first.
    pub after_slot: Option<u32>,
}

/// A page.
#[derive(Clone, Debug)]
pub struct ListPage {
    /// The records.
    pub instances: Vec<InstanceOwned>,
    /// The revision that is shown.
    pub revision: u64,
    /// Where the next page begins (its `after_slot`); none on the last.
    pub next: Option<u32>,
}

/// The revision of a page can't be shown any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageExpired;

impl Store {
    /// The next records that match, at most `limit` of them and about `byte_limit` bytes.
    pub fn list(
        &self,
        filter: &CompiledFilter,
        at: ListPosition,
        limit: usize,
        byte_limit: usize,
        now_ms: u64,
    ) -> Result<ListPage, PageExpired> {
        let revision = at.revision.unwrap_or(self.revision);
        if revision > self.revision {
            return Err(PageExpired);
        }
        let mut page = ListPage { instances: Vec::new(), revision, next: None };
        let Some(start) = at.after_slot.map_or(Some(0), |slot| slot.checked_add(1)) else {
            return Ok(page);
        };
        let images = self.events.undo(revision).map_err(|_| PageExpired)?;
        let slots = self.index.query(&filter.query());
        let mut current = slots.range(start..).filter(|slot| !images.contains_key(slot)).peekable();
        let mut undone = images.range(start..).peekable();
        let (mut bytes, mut last) = (0, None);
        loop {
            let (slot, instance) = match (current.peek(), undone.peek()) {
                (None, None) => return Ok(page),
                (Some(slot), image) if image.is_none_or(|(other, _)| slot < *other) => {
                    let slot = *slot;
                    current.next();
                    (slot, self.matching_view(slot, filter, now_ms).map(|view| view.to_owned()))
                }
                _ => match undone.next() {
                    Some((&slot, image)) => {
                        (slot, self.matching_image(slot, image, filter, now_ms))
                    }
                    None => return Ok(page),
                },
            };
            let Some(instance) = instance else { continue };
            let size = instance.record.len() + INSTANCE_BYTES;
            let full = page.instances.len() >= limit || bytes + size > byte_limit;
            if full && !page.instances.is_empty() {
                page.next = last;
                return Ok(page);
            }
            bytes += size;
            last = Some(slot);
            page.instances.push(instance);
        }
    }

    /// What a slot held at an older revision, if it matches.
    fn matching_image(
        &self,
        slot: u32,
        image: &PreImage,
        filter: &CompiledFilter,
        now_ms: u64,
    ) -> Option<InstanceOwned> {
        let record = image.record.as_ref().filter(|_| !image.expired)?;
        let parts = record::parse(record)?;
        let spec = record::SpecParts::parse(parts.spec)?;
        if !filter.matches_parts(&parts, &spec) {
            return None;
        }
        let mut instance = self.image_instance(slot, record, &parts, now_ms)?;
        if parts.meta.draining.is_some() {
            instance.status = Status::Draining;
        }
        let free =
            instance.load.as_ref().map_or(spec.capacity, |(free, _)| capacity::amounts(free));
        let enough = filter.min_free.is_none_or(|min| super::filter::covers(&free, &min));
        (enough && filter.matches_status(instance.status)).then_some(instance)
    }

    /// An older record with the liveness of its lease, where the slot still has that lease.
    fn image_instance(
        &self,
        slot: u32,
        record: &Bytes,
        parts: &record::RecordParts<'_>,
        now_ms: u64,
    ) -> Option<InstanceOwned> {
        let mut instance = InstanceOwned {
            record: record.clone(),
            status: Status::Alive,
            lease_remaining_ms: None,
            load: None,
        };
        let same_key = self.slots.find(&parts.key) == Some(slot);
        if !same_key || parts.meta.lease_id == 0 {
            return Some(instance);
        }
        let view = match self.leases.liveness(slot, now_ms) {
            Liveness::Overdue => return None,
            _ => self.view(slot, now_ms)?,
        };
        if view.status == Status::Suspect {
            instance.status = Status::Suspect;
        }
        (instance.lease_remaining_ms, instance.load) = (view.lease_remaining_ms, view.load);
        Some(instance)
    }
}
