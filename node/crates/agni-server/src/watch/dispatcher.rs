//! The watches of one runtime.
//!
//! A watch is a cursor a partition. It is asked for its next message only when its reader has
//! room, so that a slow one merely lags, holds no memory, and takes the difference once the event
//! log has moved on. Those that keep up stand at the same cursors and share encoded chunks.

use crate::limits;
use crate::node::{Node, Phase};
use crate::status::RpcError;
use crate::token;
use crate::watch::encode::{self, Present, WatchMessage};
use crate::watch::remote::{self, Fetched, News, Wanted, Window};
use crate::watch::request::{Start, WatchSpec};
use agni_core::engine::{Freshness, ReadPoint};
use agni_core::proto::api::{self, WatchPhase};
use agni_core::store::{
    CompiledFilter, DifferenceCursor, DifferencePage, Event, ListPage, ListPosition, PageExpired,
    Store,
};
use bytes::{Bytes, BytesMut};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

thread_local! {
    static HUB: RefCell<Option<Hub>> = const { RefCell::new(None) };
}

/// Makes these the watches of this thread's runtime.
pub fn enter(hub: Hub) {
    HUB.with_borrow_mut(|slot| *slot = Some(hub));
}

/// Runs `f` on this runtime's watches; none on a thread that is no runtime, or is ending.
pub fn with_hub<T>(f: impl FnOnce(&mut Hub) -> T) -> Option<T> {
    HUB.try_with(|hub| hub.borrow_mut().as_mut().map(f)).ok().flatten()
}

/// A filter that several watches share; its address tells it from others.
struct SharedFilter {
    compiled: CompiledFilter,
    bytes: Vec<u8>,
    message: Arc<api::Filter>,
}

/// What a partition could give.
enum Got<T> {
    /// This.
    Here(T),
    /// Nothing yet: there will be news of it.
    NotYet,
    /// It no longer has it.
    Gone,
}

/// What a watch asks another node for.
#[derive(Default)]
enum Fetch {
    /// Nothing.
    #[default]
    None,
    /// It is on its way, under this number.
    Waiting(Wanted, u64),
    /// It is here.
    Ready(Wanted, Fetched),
}

/// What a watch does now.
enum Stage {
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
struct Place {
    partition: u32,
    after_slot: Option<u32>,
}

/// What is left to send of a difference: that of the first of these partitions, then the others.
#[derive(Default)]
struct Difference {
    partitions: VecDeque<u32>,
    /// A page that was too large for one message, from which some was sent already.
    rest: Option<Box<DifferencePage>>,
    cursor: DifferenceCursor,
    /// Where to go on with what matches, if that was broken off.
    then: Option<Place>,
}

struct Watch {
    filter: Rc<SharedFilter>,
    previous: bool,
    cursors: Vec<u64>,
    stage: Stage,
    waker: Option<Waker>,
    fetch: Fetch,
    progress_ms: u64,
    next_progress_ms: u64,
}

#[derive(PartialEq, Eq, Hash)]
struct ChunkKey {
    filter: usize,
    partition: u32,
    after: u64,
    previous: bool,
}

#[derive(Clone)]
struct Chunk {
    to: u64,
    bytes: Bytes,
}

/// The watches of one runtime.
pub struct Hub {
    node: Arc<Node>,
    watches: Vec<Option<Watch>>,
    free: Vec<usize>,
    count: Arc<AtomicUsize>,
    latest: Vec<u64>,
    filters: HashMap<Vec<u8>, Weak<SharedFilter>>,
    chunks: HashMap<ChunkKey, Chunk>,
    chunk_bytes: usize,
    dirty: BTreeSet<u32>,
    pump: Option<Waker>,
    /// How many watches are open, the one that is being asked included.
    open: usize,
    /// Partitions of other nodes that are followed, with their newest changes.
    windows: BTreeMap<u32, Window>,
    fetches: u64,
    /// Other nodes' questions that wait for changes: of which partition, after which revision.
    waiting: BTreeMap<u64, (u32, u64, Option<Waker>)>,
    waits: u64,
}

impl Hub {
    /// No watches yet; `count` tells the driver's thread whether there are any.
    pub fn new(node: Arc<Node>, count: Arc<AtomicUsize>) -> Self {
        let latest = vec![0; node.engine.partition_count() as usize];
        Hub {
            node,
            watches: Vec::new(),
            free: Vec::new(),
            count,
            latest,
            filters: HashMap::new(),
            chunks: HashMap::new(),
            chunk_bytes: 0,
            dirty: BTreeSet::new(),
            pump: None,
            open: 0,
            windows: BTreeMap::new(),
            fetches: 0,
            waiting: BTreeMap::new(),
            waits: 0,
        }
    }

    /// These partitions have new revisions.
    pub fn changed(&mut self, partitions: &[u32]) {
        self.dirty.extend(partitions);
        if let Some(pump) = self.pump.take() {
            pump.wake();
        }
    }

    /// Counts a watch that opens or closes, here and in the metrics.
    fn count_watches(&self, change: isize) {
        for count in [&*self.count, &self.node.metrics.watches] {
            // Wraps around: adding -1 takes one away.
            count.fetch_add(change as usize, Relaxed);
        }
    }

    /// Counts a watch that is about to open.
    ///
    /// # Errors
    /// When there are too many already.
    pub fn count(&mut self) -> Result<(), RpcError> {
        if self.count.load(Relaxed) >= self.node.config.max_watches {
            let most = self.node.config.max_watches;
            let message = format!("{most} watches are open here already, ask another node");
            return Err(RpcError::overloaded(message));
        }
        self.count_watches(1);
        Ok(())
    }

    /// It doesn't open after all.
    pub fn uncount(&mut self) {
        self.count_watches(-1);
    }

    /// Opens a watch that was counted.
    pub fn open(&mut self, spec: WatchSpec) -> usize {
        let filter = self.filters.get(&spec.filter_bytes).and_then(Weak::upgrade);
        let filter = filter.unwrap_or_else(|| {
            let (bytes, message) = (spec.filter_bytes.clone(), Arc::new(spec.message));
            let shared = Rc::new(SharedFilter { compiled: spec.filter, bytes, message });
            self.filters.insert(spec.filter_bytes, Rc::downgrade(&shared));
            shared
        });
        let (cursors, current) = match spec.start {
            Start::After(revisions) => (revisions, false),
            Start::Current(revisions) => (revisions, true),
        };
        for partition in 0..self.latest.len() {
            self.look(partition as u32);
        }
        self.open += 1;
        for (partition, after) in (0..).zip(&cursors) {
            self.follow(partition, *after);
        }
        let watch = Watch {
            filter,
            previous: spec.previous,
            cursors,
            stage: Stage::Created { current },
            waker: None,
            fetch: Fetch::None,
            progress_ms: spec.progress_ms,
            next_progress_ms: self.node.engine.now_ms() + spec.progress_ms,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.watches.push(None);
            self.watches.len() - 1
        });
        self.watches[id] = Some(watch);
        id
    }

    /// Closes a watch.
    pub fn close(&mut self, id: usize) {
        let Some(watch) = self.watches.get_mut(id).and_then(Option::take) else { return };
        self.free.push(id);
        self.open -= 1;
        self.count_watches(-1);
        if Rc::strong_count(&watch.filter) == 1 {
            let address = Rc::as_ptr(&watch.filter) as usize;
            self.chunks.retain(|key, _| key.filter != address);
            self.chunk_bytes = self.chunks.values().map(|chunk| chunk.bytes.len()).sum();
            self.filters.remove(&watch.filter.bytes);
        }
    }

    fn look(&mut self, partition: u32) {
        if !self.node.engine.holds(partition) {
            return;
        }
        let read = self.node.engine.read(partition, Freshness::Local, |_, point, _| point.revision);
        if let (Ok(revision), Some(latest)) = (read, self.latest.get_mut(partition as usize)) {
            *latest = revision.max(*latest);
        }
    }

    /// Whether a partition of another node is watched here.
    fn wants(&self, partition: u32) -> bool {
        self.open > 0 && !self.node.engine.holds(partition)
    }

    /// Follows a partition of another node from a revision on, unless it is followed already.
    fn follow(&mut self, partition: u32, after: u64) {
        if self.wants(partition) && !self.windows.contains_key(&partition) {
            self.windows.insert(partition, Window::after(after));
            let tell = move |news| with_hub(|hub| hub.followed(partition, news)) == Some(true);
            tokio::spawn(remote::follow(self.node.clone(), partition, after, tell));
        }
    }

    /// Follows what has left this node.
    fn follow_all(&mut self) {
        for partition in 0..self.latest.len() {
            self.follow(partition as u32, self.latest[partition]);
        }
    }

    /// Takes news of a partition of another node; says whether more is wanted.
    fn followed(&mut self, partition: u32, news: News) -> bool {
        if !self.wants(partition) {
            self.windows.remove(&partition);
            self.look(partition);
            self.wake(|_| true);
            return false;
        }
        let window = self.windows.entry(partition).or_default();
        match news {
            News::Changes(events) => window.push(events),
            News::Restart(after) => *window = Window::after(after),
            News::Nothing => return true,
        }
        let until = window.until();
        if let Some(latest) = self.latest.get_mut(partition as usize) {
            *latest = until.max(*latest);
        }
        self.forget_chunks();
        self.wake(|_| true);
        true
    }

    /// What a watch has asked another node for; none while it is on its way.
    fn fetched(&mut self, id: usize, watch: &mut Watch, wanted: Wanted) -> Option<Fetched> {
        match std::mem::take(&mut watch.fetch) {
            Fetch::Ready(this, fetched) if this == wanted => return Some(fetched),
            Fetch::Waiting(this, number) if this == wanted => {
                watch.fetch = Fetch::Waiting(this, number);
                return None;
            }
            _ => {}
        }
        self.fetches += 1;
        let number = self.fetches;
        watch.fetch = Fetch::Waiting(wanted.clone(), number);
        let (node, filter) = (self.node.clone(), watch.filter.message.clone());
        tokio::spawn(async move {
            if let Some(fetched) = remote::fetch(node, filter, wanted).await {
                with_hub(|hub| hub.arrived(id, number, fetched));
            }
        });
        None
    }

    fn arrived(&mut self, id: usize, number: u64, fetched: Fetched) {
        let Some(Some(watch)) = self.watches.get_mut(id) else { return };
        match std::mem::take(&mut watch.fetch) {
            Fetch::Waiting(wanted, this) if this == number => {
                watch.fetch = Fetch::Ready(wanted, fetched);
                if let Some(waker) = watch.waker.take() {
                    waker.wake();
                }
            }
            other => watch.fetch = other,
        }
    }

    /// Another node waits for a change after a revision; answers the number under which it does.
    pub(super) fn begin_wait(&mut self, partition: u32, after: u64) -> u64 {
        // Only a runtime that serves watches is told of changes.
        self.count.fetch_add(1, Relaxed);
        self.waits += 1;
        self.waiting.insert(self.waits, (partition, after, None));
        self.waits
    }

    /// Whether that change is here; if not, wakes when it is.
    pub(super) fn poll_wait(&mut self, number: u64, context: &mut Context<'_>) -> Poll<()> {
        let Some((partition, after)) = self.waiting.get(&number).map(|(p, after, _)| (*p, *after))
        else {
            return Poll::Ready(());
        };
        self.look(partition);
        if self.latest.get(partition as usize).is_none_or(|latest| *latest > after) {
            return Poll::Ready(());
        }
        if let Some((_, _, waker)) = self.waiting.get_mut(&number) {
            *waker = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// It waits no longer.
    pub(super) fn end_wait(&mut self, number: u64) {
        if self.waiting.remove(&number).is_some() {
            self.count.fetch_sub(1, Relaxed);
        }
    }

    /// Looks at what changed and wakes all watches.
    fn flush(&mut self) {
        self.forget_chunks();
        for partition in std::mem::take(&mut self.dirty) {
            self.look(partition);
        }
        for (partition, after, waker) in self.waiting.values_mut() {
            if self.latest.get(*partition as usize).is_some_and(|latest| latest > after)
                && let Some(waker) = waker.take()
            {
                waker.wake();
            }
        }
        self.wake(|_| true);
    }

    fn wake(&mut self, which: impl Fn(&Watch) -> bool) {
        for watch in self.watches.iter_mut().flatten() {
            if watch.waker.is_some()
                && which(watch)
                && let Some(waker) = watch.waker.take()
            {
                waker.wake();
            }
        }
    }

    /// The next message of a watch, when its reader has room.
    pub fn poll(
        &mut self,
        id: usize,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<WatchMessage, RpcError>>> {
        let Some(mut watch) = self.watches.get_mut(id).and_then(Option::take) else {
            return Poll::Ready(None);
        };
        let next = self.next(id, &mut watch);
        if matches!(next, Poll::Pending) {
            watch.waker = Some(context.waker().clone());
        }
        self.watches[id] = Some(watch);
        next
    }

    fn next(
        &mut self,
        id: usize,
        watch: &mut Watch,
    ) -> Poll<Option<Result<WatchMessage, RpcError>>> {
        if self.node.phase() != Phase::Serving {
            return Poll::Ready(match std::mem::replace(&mut watch.stage, Stage::Ended) {
                Stage::Ended => None,
                _ => Some(Err(RpcError::shutting_down())),
            });
        }
        let message = match std::mem::replace(&mut watch.stage, Stage::Live) {
            Stage::Ended => return Poll::Ready(None),
            Stage::Created { current } => {
                if current {
                    watch.stage = Stage::Current(Place { partition: 0, after_slot: None });
                }
                Some(self.plain(watch, WatchPhase::Created))
            }
            Stage::Current(place) => self.current(id, watch, place),
            Stage::Live => self.live(watch),
            Stage::Difference(difference) => self.difference(id, watch, difference),
        };
        match message {
            Some(message) => {
                watch.next_progress_ms = self.node.engine.now_ms() + watch.progress_ms;
                self.node.metrics.watch_messages.fetch_add(1, Relaxed);
                Poll::Ready(Some(Ok(message)))
            }
            None => Poll::Pending,
        }
    }

    fn token(&self, watch: &Watch) -> Vec<u8> {
        token::resume(&self.node.engine.cluster_id(), &watch.cursors)
    }

    fn plain(&self, watch: &Watch, phase: WatchPhase) -> WatchMessage {
        encode::message(phase, Vec::new(), &self.token(watch), &Present::default())
    }

    /// Changes that the watch hasn't seen; progress when there are none for long enough.
    fn live(&mut self, watch: &mut Watch) -> Option<WatchMessage> {
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

    fn forget_chunks(&mut self) {
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
        watch.stage = Stage::Difference(Difference { partitions, then, ..Difference::default() });
        self.node.metrics.watch_gaps.fetch_add(1, Relaxed);
        // In the middle of the current state there is nothing to resume from yet.
        let token = if then.is_some() { Vec::new() } else { self.token(watch) };
        encode::message(WatchPhase::Gap, Vec::new(), &token, &Present::default())
    }

    /// Some of what matches at the watch's cursors: a page of a partition, and of those after it
    /// while there is room. None while it has to be waited for.
    fn current(&mut self, id: usize, watch: &mut Watch, mut place: Place) -> Option<WatchMessage> {
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

    /// A message in the middle of the current state. Resuming there would leave out the rest, so
    /// it has no token.
    fn sync(&self, events: Bytes) -> WatchMessage {
        encode::message(WatchPhase::Sync, vec![events], &[], &Present::default())
    }

    /// The next message of a difference; none while it has to be waited for.
    fn difference(
        &mut self,
        id: usize,
        watch: &mut Watch,
        mut difference: Difference,
    ) -> Option<WatchMessage> {
        let Some(partition) = difference.partitions.front().copied() else {
            if let Some(place) = difference.then {
                watch.stage = Stage::Current(place);
                return Some(self.sync(Bytes::new()));
            }
            return Some(self.plain(watch, WatchPhase::Synced));
        };
        // Until the difference is whole, a token must lead back to its beginning.
        let token = if difference.then.is_some() { Vec::new() } else { self.token(watch) };
        let (mut out, mut present) = (BytesMut::new(), Present::default());
        let page = match difference.rest.take() {
            Some(rest) => Some(rest),
            None => match self.difference_page(id, watch, partition, difference.cursor) {
                Got::Here(page) => Some(page),
                Got::Gone => None,
                Got::NotYet => {
                    watch.stage = Stage::Difference(difference);
                    return None;
                }
            },
        };
        if let Some(mut page) = page {
            let sent = encode::put_changes(
                &mut out,
                &watch.filter.compiled,
                partition,
                &page.changes,
                limits::WATCH_EVENTS_BYTES_MAX,
            );
            page.changes.drain(..sent);
            present = Present { complete: page.present_complete, partition, keys: Vec::new() };
            if !page.changes.is_empty() {
                difference.rest = Some(page);
            } else {
                present.keys = page.present;
                if page.next.is_none() {
                    watch.cursors[partition as usize] = page.until;
                    difference.partitions.pop_front();
                }
                difference.cursor = page.next.unwrap_or_default();
            }
        } else {
            // What went on meanwhile has pushed its state out of reach: it begins again.
            difference.cursor = DifferenceCursor::default();
        }
        watch.stage = Stage::Difference(difference);
        Some(encode::message(WatchPhase::Sync, vec![out.freeze()], &token, &present))
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

/// Waits for changes, lets a few gather when many watch, and wakes the watches; for ever.
pub async fn pump(node: Arc<Node>) {
    loop {
        std::future::poll_fn(|context| {
            let ready = with_hub(|hub| {
                if hub.dirty.is_empty() {
                    hub.pump = Some(context.waker().clone());
                    return false;
                }
                true
            });
            if ready == Some(true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let watches = with_hub(|hub| hub.count.load(Relaxed)).unwrap_or(0) as u64;
        let gather = Duration::from_micros(watches * limits::WATCH_GATHER_US_EACH)
            .min(Duration::from_millis(limits::WATCH_GATHER_MS_MAX));
        if gather >= Duration::from_millis(1) {
            tokio::time::sleep(gather).await;
        }
        with_hub(Hub::flush);
        node.metrics.watch_rounds.fetch_add(1, Relaxed);
    }
}

/// Wakes watches whose progress message is due, and all of them when the server stops; for ever.
pub async fn tick(node: Arc<Node>) {
    let mut interval = tokio::time::interval(Duration::from_millis(limits::WATCH_TICK_MS));
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let stopping = node.phase() != Phase::Serving;
        with_hub(|hub| {
            if hub.open > 0 {
                hub.follow_all();
            }
            if hub.count.load(Relaxed) > 0 {
                let now_ms = hub.node.engine.now_ms();
                hub.wake(|watch| stopping || now_ms >= watch.next_progress_ms);
            }
        });
    }
}
