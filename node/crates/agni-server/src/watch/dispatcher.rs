//! The watches of one runtime.
//!
//! A watch is a cursor a partition. It is asked for its next message only when its reader has
//! room, so that a slow one merely lags, holds no memory, and takes the difference once the event
//! log has moved on. Those that keep up stand at the same cursors and share encoded chunks.

mod stages;

use crate::limits;
use crate::node::{Node, Phase};
use crate::status::RpcError;
use crate::watch::encode::WatchMessage;
use crate::watch::remote::{self, Fetched, News, Wanted, Window};
use crate::watch::request::{Start, WatchSpec};
use agni_core::engine::Freshness;
use agni_core::proto::api;
use agni_core::store::CompiledFilter;
use bytes::Bytes;
use stages::Stage;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

struct Watch {
    filter: Rc<SharedFilter>,
    previous: bool,
    cursors: Vec<u64>,
    stage: Stage,
    waker: Option<Waker>,
    fetch: Fetch,
    /// Whether a difference in the middle of the current state has named what is present.
    named: bool,
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
            named: false,
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
            Stage::Created { current } => Some(self.created(watch, current)),
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
