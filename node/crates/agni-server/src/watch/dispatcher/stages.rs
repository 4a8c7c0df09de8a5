//! What a watch does, message by message: the current state, changes, and differences where the
//! event log no longer reaches back.
//!
//! A token says that everything up to it was sent. So there is none while a state or a difference
//! is on its way: whoever breaks there begins it again.

use super::{Chunk, ChunkKey, Got, Hub, Watch};
use crate::limits;
use crate::token;
use crate::watch::encode::{self, Present, WatchMessage};
use crate::watch::remote::{Fetched, Wanted};
use agni_core::engine::{Freshness, ReadPoint};
use agni_core::proto::api::WatchPhase;
use agni_core::store::{
    DifferenceCursor, DifferencePage, Event, ListPage, ListPosition, PageExpired, Store,
};
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;

/// What a watch does now.
pub(super) enum Stage {
    /// Say that it exists.
    Created { current: bool },
    /// Send what matches now: partition, slot to go on after.
    Current(Place),
    /// Send changes.
    Live,
    /// Send what changed since the cursors, where the event log no longer reaches back.
    Difference(Difference),
    /// Nothing more.
    Ended,
}

/// A place in the current state: partition, and the slot to go on after.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) partition: u32,
    pub(super) after_slot: Option<u32>,
}

/// What is left to send of a difference: that of the first of these partitions, then the others.
#[derive(Default)]
pub(super) struct Difference {
    partitions: VecDeque<u32>,
    /// Those that are through, and the revisions that they were sent up to. The cursors follow only
    /// at the end: until then a token must lead back to the beginning.
    done: Vec<(u32, u64)>,
    /// A page that was too large for one message, from which some was sent already.
    rest: Option<Box<DifferencePage>>,
    cursor: DifferenceCursor,
    /// Where to go on with what matches, if that was broken off.
    then: Option<Place>,
}

impl Hub {
    /// Says that a watch exists.
    pub(super) fn created(&self, watch: &mut Watch, current: bool) -> WatchMessage {
        if !current {
            return self.plain(watch, WatchPhase::Created);
        }
        watch.named = false;
        watch.stage = Stage::Current(Place { partition: 0, after_slot: None });
        encode::message(WatchPhase::Created, Vec::new(), &[], &Present::default())
    }

    fn token(&self, watch: &Watch) -> Vec<u8> {
        token::resume(&self.node.engine.cluster_id(), &watch.cursors)
    }

    fn plain(&self, watch: &Watch, phase: WatchPhase) -> WatchMessage {
        encode::message(phase, Vec::new(), &self.token(watch), &Present::default())
    }

    /// Changes that the watch hasn't seen; progress when there are none for long enough.
    pub(super) fn live(&mut self, watch: &mut Watch) -> Option<WatchMessage> {
        let (mut chunks, mut bytes) = (Vec::new(), 0);
        let mut compacted = VecDeque::new();
        for partition in 0..watch.cursors.len() {
            if bytes >= limits::WATCH_EVENTS_BYTES_MAX {
                break;
            }
            if watch.cursors[partition] >= self.latest[partition] {
                continue;
            }
            match self.chunk(watch, partition as u32) {
                Got::Here(chunk) => {
                    watch.cursors[partition] = chunk.to;
                    bytes += chunk.bytes.len();
                    if !chunk.bytes.is_empty() {
                        chunks.push(chunk.bytes);
                    }
                }
                Got::Gone => compacted.push_back(partition as u32),
                Got::NotYet => {}
            }
        }
        if !chunks.is_empty() {
            // What is compacted comes up again with the next message.
            return Some(encode::message(
                WatchPhase::Live,
                chunks,
                &self.token(watch),
                &Present::default(),
            ));
        }
        if !compacted.is_empty() {
            return Some(self.gap(watch, compacted, None));
        }
        let due = self.node.engine.now_ms() >= watch.next_progress_ms;
        due.then(|| self.plain(watch, WatchPhase::Progress))
    }

    /// The events after a watch's cursor, encoded once for all who stand there.
    fn chunk(&mut self, watch: &Watch, partition: u32) -> Got<Chunk> {
        let after = watch.cursors[partition as usize];
        let filter = Rc::as_ptr(&watch.filter) as usize;
        let key = ChunkKey { filter, partition, after, previous: watch.previous };
        if let Some(chunk) = self.chunks.get(&key) {
            return Got::Here(chunk.clone());
        }
        let events = match self.events(partition, after) {
            Got::Here(events) => events,
            Got::NotYet => return Got::NotYet,
            Got::Gone => return Got::Gone,
        };
        let (mut out, mut to) = (BytesMut::new(), after);
        for event in &events {
            if out.len() >= limits::WATCH_EVENTS_BYTES_MAX {
                break;
            }
            encode::put_event(&mut out, &watch.filter.compiled, partition, event, watch.previous);
            to = event.revision;
        }
        let chunk = Chunk { to, bytes: out.freeze() };
        self.keep(key, chunk.clone());
        Got::Here(chunk)
    }

    /// The events after a revision, one at least. A replica may be behind what a watch has seen
    /// elsewhere: then there are none yet.
    fn events(&self, partition: u32, after: u64) -> Got<Vec<Event>> {
        let found = if self.node.engine.holds(partition) {
            let read = |store: &Store, point: ReadPoint, _| {
                if point.revision <= after {
                    return Some(Vec::new());
                }
                let events = store.events_after(after, limits::WATCH_EVENTS_MAX).ok()?;
                Some(events.cloned().collect())
            };
            self.node.engine.read(partition, Freshness::Local, read).ok().flatten()
        } else {
            match self.windows.get(&partition) {
                Some(window) => window.changes(after, limits::WATCH_EVENTS_MAX),
                None => Some(Vec::new()),
            }
        };
        match found {
            Some(events) if events.is_empty() => Got::NotYet,
            Some(events) => Got::Here(events),
            None => Got::Gone,
        }
    }

    /// Keeps a chunk for others, within bounds.
    fn keep(&mut self, key: ChunkKey, chunk: Chunk) {
        if self.chunks.len() >= limits::WATCH_CACHE_CHUNKS_MAX
            || self.chunk_bytes + chunk.bytes.len() > limits::WATCH_CACHE_BYTES_MAX
        {
            self.forget_chunks();
        }
        self.chunk_bytes += chunk.bytes.len();
        self.chunks.insert(key, chunk);
    }

    pub(super) fn forget_chunks(&mut self) {
        self.chunks.clear();
        self.chunk_bytes = 0;
    }

    /// Says that a difference of these partitions begins.
    fn gap(
        &mut self,
        watch: &mut Watch,
        partitions: VecDeque<u32>,
        then: Option<Place>,
    ) -> WatchMessage {
        if then.is_some() && watch.named {
            // A reader forgets at a GAP what was named as present, of other partitions, too.
            return self.created(watch, true);
        }
        watch.stage = Stage::Difference(Difference { partitions, then, ..Difference::default() });
        self.node.metrics.watch_gaps.fetch_add(1, Relaxed);
        // In the middle of the current state there is nothing to resume from yet.
        let token = if then.is_some() { Vec::new() } else { self.token(watch) };
        encode::message(WatchPhase::Gap, Vec::new(), &token, &Present::default())
    }

    /// Some of what matches at the watch's cursors: a page of a partition, and of those after it
    /// while there is room. None while it has to be waited for.
    pub(super) fn current(
        &mut self,
        id: usize,
        watch: &mut Watch,
        mut place: Place,
    ) -> Option<WatchMessage> {
        let (mut out, mut records) = (BytesMut::new(), 0);
        loop {
            let Place { partition, after_slot } = place;
            let room = limits::WATCH_EVENTS_BYTES_MAX - out.len();
            let page = match self.page(id, watch, place, (records, room)) {
                Got::Here((_, Ok(page))) => page,
                // The state to show has moved out of reach. Nothing of this partition was sent
                // yet, so a newer state is as good; else what changed is told before the rest.
                Got::Here((revision, Err(_))) if after_slot.is_none() => {
                    watch.cursors[partition as usize] = revision;
                    continue;
                }
                Got::NotYet if out.is_empty() => {
                    watch.stage = Stage::Current(place);
                    return None;
                }
                Got::NotYet => break,
                _ if out.is_empty() => {
                    return Some(self.gap(watch, VecDeque::from([partition]), Some(place)));
                }
                _ => break,
            };
            for instance in &page.instances {
                encode::put_record(&mut out, partition, &instance.record);
            }
            records += page.instances.len();
            place = match page.next {
                Some(slot) => Place { partition, after_slot: Some(slot) },
                None if partition as usize + 1 == watch.cursors.len() => {
                    // An empty difference: what follows is SYNCED.
                    watch.stage = Stage::Difference(Difference::default());
                    return Some(self.sync(out.freeze()));
                }
                None => Place { partition: partition + 1, after_slot: None },
            };
            let full = records >= limits::WATCH_SYNC_RECORDS_MAX
                || out.len() >= limits::WATCH_EVENTS_BYTES_MAX;
            if full || page.next.is_some() {
                break;
            }
        }
        watch.stage = Stage::Current(place);
        Some(self.sync(out.freeze()))
    }

    /// A page of what matches at a watch's cursor, with the revision that there is.
    fn page(
        &mut self,
        id: usize,
        watch: &mut Watch,
        Place { partition, after_slot }: Place,
        (records, room): (usize, usize),
    ) -> Got<(u64, Result<ListPage, PageExpired>)> {
        let cursor = watch.cursors[partition as usize];
        if !self.node.engine.holds(partition) {
            let wanted = Wanted::Page { partition, position: (cursor, after_slot) };
            return match self.fetched(id, watch, wanted) {
                Some(Fetched::Page(revision, page)) => Got::Here((revision, page)),
                _ => Got::NotYet,
            };
        }
        let at = ListPosition { revision: Some(cursor), after_slot };
        let limit = limits::WATCH_SYNC_RECORDS_MAX - records;
        let filter = &watch.filter.compiled;
        let read = |store: &Store, point: ReadPoint, now_ms| {
            let is_behind = point.revision < cursor;
            (!is_behind).then(|| (point.revision, store.list(filter, at, limit, room, now_ms)))
        };
        match self.node.engine.read(partition, Freshness::Local, read) {
            Ok(Some(page)) => Got::Here(page),
            Ok(None) => Got::NotYet,
            Err(_) => Got::Gone,
        }
    }

    /// A message in the middle of a state or a difference. Resuming there would leave out the rest,
    /// so it has no token.
    fn sync(&self, events: Bytes) -> WatchMessage {
        encode::message(WatchPhase::Sync, vec![events], &[], &Present::default())
    }

    /// The next message of a difference; none while it has to be waited for.
    pub(super) fn difference(
        &mut self,
        id: usize,
        watch: &mut Watch,
        mut difference: Difference,
    ) -> Option<WatchMessage> {
        let Some(partition) = difference.partitions.front().copied() else {
            for (partition, until) in difference.done {
                watch.cursors[partition as usize] = until;
            }
            if let Some(place) = difference.then {
                watch.stage = Stage::Current(place);
                return Some(self.sync(Bytes::new()));
            }
            return Some(self.plain(watch, WatchPhase::Synced));
        };
        let page = match difference.rest.take() {
            Some(rest) => Got::Here(rest),
            None => self.difference_page(id, watch, partition, difference.cursor),
        };
        let mut page = match page {
            Got::Here(page) => page,
            Got::NotYet => {
                watch.stage = Stage::Difference(difference);
                return None;
            }
            Got::Gone => return Some(self.begin_again(watch, difference)),
        };
        let mut out = BytesMut::new();
        let sent = encode::put_changes(
            &mut out,
            &watch.filter.compiled,
            partition,
            &page.changes,
            limits::WATCH_EVENTS_BYTES_MAX,
        );
        page.changes.drain(..sent);
        watch.named |= page.present_complete && difference.then.is_some();
        let mut present = Present { complete: page.present_complete, partition, keys: Vec::new() };
        if !page.changes.is_empty() {
            difference.rest = Some(page);
        } else {
            present.keys = page.present;
            if page.next.is_none() {
                difference.done.push((partition, page.until));
                difference.partitions.pop_front();
            }
            difference.cursor = page.next.unwrap_or_default();
        }
        watch.stage = Stage::Difference(difference);
        Some(encode::message(WatchPhase::Sync, vec![out.freeze()], &[], &present))
    }

    /// What went on meanwhile has pushed the state of a difference out of reach. It begins again
    /// with a GAP, as a whole: what was named as present before may be gone by now.
    fn begin_again(&mut self, watch: &mut Watch, difference: Difference) -> WatchMessage {
        let done = difference.done.into_iter().map(|(partition, _)| partition);
        self.gap(watch, done.chain(difference.partitions).collect(), difference.then)
    }

    /// The next page of the difference of a partition.
    fn difference_page(
        &mut self,
        id: usize,
        watch: &mut Watch,
        partition: u32,
        cursor: DifferenceCursor,
    ) -> Got<Box<DifferencePage>> {
        let after = watch.cursors[partition as usize];
        if !self.node.engine.holds(partition) {
            return match self.fetched(id, watch, Wanted::Difference { partition, after, cursor }) {
                Some(Fetched::Difference(Ok(page))) => Got::Here(Box::new(page)),
                Some(Fetched::Difference(Err(_))) => Got::Gone,
                _ => Got::NotYet,
            };
        }
        let read = |store: &Store, point: ReadPoint, _| {
            let most = limits::WATCH_SYNC_RECORDS_MAX;
            (point.revision >= after).then(|| store.difference_after(after, cursor, most))
        };
        match self.node.engine.read(partition, Freshness::Local, read) {
            Ok(Some(Ok(page))) => Got::Here(Box::new(page)),
            Ok(None) => Got::NotYet,
            _ => Got::Gone,
        }
    }
}
