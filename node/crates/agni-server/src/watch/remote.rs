//! Watched partitions that are on another node: their newest changes are brought here, once for all
//! watches of a runtime, and what is older is asked for page by page.

use crate::limits;
use crate::node::Node;
use crate::route::changes::{Difference, Events};
use crate::route::question::{Page, read};
use agni_core::engine::Freshness;
use agni_core::proto::api;
use agni_core::store::{
    CompiledFilter, DifferenceCursor, DifferencePage, Event, ListPage, ListPosition, PageExpired,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The newest changes of a partition.
#[derive(Default)]
pub struct Window {
    events: VecDeque<Event>,
    bytes: usize,
    /// All changes after this revision are here.
    start: u64,
    /// How far they reach.
    until: u64,
}

impl Window {
    /// Nothing yet, after a revision.
    pub fn after(revision: u64) -> Self {
        Window { start: revision, until: revision, ..Window::default() }
    }

    /// How far the changes reach.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// The changes after a revision; none when they no longer are all here.
    pub fn changes(&self, after: u64, most: usize) -> Option<Vec<Event>> {
        if after < self.start {
            return None;
        }
        let newer = self.events.iter().skip_while(|event| event.revision <= after);
        Some(newer.take(most).cloned().collect())
    }

    /// Takes what comes next.
    pub fn push(&mut self, events: Vec<Event>) {
        let size = |event: &Event| {
            let len = |record: &Option<bytes::Bytes>| record.as_ref().map_or(0, bytes::Bytes::len);
            size_of::<Event>() + len(&event.record) + len(&event.previous)
        };
        for event in events {
            self.until = event.revision;
            self.bytes += size(&event);
            self.events.push_back(event);
        }
        let (most, most_bytes) = (limits::REMOTE_EVENTS_MAX, limits::REMOTE_EVENTS_BYTES_MAX);
        while self.events.len() > most || self.bytes > most_bytes {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= size(&oldest);
            self.start = oldest.revision;
        }
    }
}

/// What there is to say of a partition that is followed.
pub enum News {
    /// Its next changes.
    Changes(Vec<Event>),
    /// Its changes no longer reach back to those before: they go on after this revision.
    Restart(u64),
    /// Nothing.
    Nothing,
}

/// Brings a partition's changes here until `tell` says that nobody wants them.
pub async fn follow(
    node: Arc<Node>,
    partition: u32,
    mut after: u64,
    mut tell: impl FnMut(News) -> bool,
) {
    let freshness = Freshness::Stale { max_ms: 0, at_least: 0 };
    let mut news = News::Nothing;
    while tell(std::mem::replace(&mut news, News::Nothing)) {
        let events_max = limits::WATCH_EVENTS_MAX;
        let question = Events { after, events_max, wait_ms: limits::REMOTE_WAIT_MS };
        match read(&node, partition, freshness, &question).await {
            // Such a node has less than this one has seen: another one, or later.
            Ok((point, _)) if point.revision < after => pause().await,
            Ok((_, Ok(events))) => match events.last() {
                Some(last) => {
                    after = last.revision;
                    news = News::Changes(events);
                }
                // Where it is read here, nobody has waited.
                None if node.engine.holds(partition) => pause().await,
                None => {}
            },
            Ok((point, Err(_))) => {
                after = point.revision;
                news = News::Restart(after);
            }
            Err(_) => pause().await,
        }
    }
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(limits::REMOTE_PAUSE_MS)).await;
}

/// What a watch waits for from another node.
#[derive(Clone, PartialEq)]
pub enum Wanted {
    /// A page of what matches.
    Page {
        /// Of which partition.
        partition: u32,
        /// The revision, and where in it.
        position: (u64, Option<u32>),
    },
    /// A page of what has changed.
    Difference {
        /// Of which partition.
        partition: u32,
        /// Since which revision.
        after: u64,
        /// Where in it.
        cursor: DifferenceCursor,
    },
}

/// What came, with the partition's revision there.
pub enum Fetched {
    /// A page of what matches.
    Page(u64, Result<ListPage, PageExpired>),
    /// A page of what has changed.
    Difference(Result<DifferencePage, PageExpired>),
}

/// Asks until there is an answer; none when the node stops.
pub async fn fetch(node: Arc<Node>, filter: Arc<api::Filter>, wanted: Wanted) -> Option<Fetched> {
    let freshness = Freshness::Stale { max_ms: 0, at_least: 0 };
    loop {
        let answer = match &wanted {
            Wanted::Page { partition, position: (revision, after_slot) } => {
                let compiled = CompiledFilter::new(&filter).ok()?;
                let position = ListPosition { revision: Some(*revision), after_slot: *after_slot };
                let page = Page {
                    filter: &filter,
                    compiled: &compiled,
                    position,
                    records_max: limits::WATCH_SYNC_RECORDS_MAX,
                    bytes_max: limits::WATCH_EVENTS_BYTES_MAX,
                };
                let answer = read(&node, *partition, freshness, &page).await;
                answer.map(|(point, page)| Fetched::Page(point.revision, page))
            }
            Wanted::Difference { partition, after, cursor } => {
                let changes_max = limits::WATCH_SYNC_RECORDS_MAX;
                let question = Difference { after: *after, cursor: *cursor, changes_max };
                let answer = read(&node, *partition, freshness, &question).await;
                answer.map(|(_, page)| Fetched::Difference(page))
            }
        };
        match answer {
            Ok(fetched) => return Some(fetched),
            Err(_) if node.is_stopping() => return None,
            Err(_) => pause().await,
        }
    }
}
