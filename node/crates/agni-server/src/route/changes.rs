//! Questions of those who watch a partition that is on another node.

use super::question::Question;
use agni_core::proto::api::EventType;
use agni_core::proto::node::read_query::Query;
use agni_core::proto::node::{
    ChangeEvent, DifferenceChange, DifferenceQuery, EventsQuery, ReadDone,
};
use agni_core::raft::work::Priority;
use agni_core::store::{
    Change, Compacted, DifferenceCursor, DifferencePage, Event, PageExpired, Store,
};

/// The changes after a revision, and how far they reach.
pub struct Events {
    /// That revision.
    pub after: u64,
    /// Most changes.
    pub events_max: usize,
    /// How long the other node waits for the first one, in milliseconds.
    pub wait_ms: u64,
}

impl Question for Events {
    type Answer = Result<Vec<Event>, Compacted>;

    fn priority(&self) -> Priority {
        Priority::Watch
    }

    fn here(&self, store: &Store, _: u64) -> Option<Self::Answer> {
        let events = store.events_after(self.after, self.events_max);
        Some(events.map(|events| events.cloned().collect()))
    }

    fn query(&self) -> Query {
        Query::Events(EventsQuery {
            after: self.after,
            events_max: self.events_max as u32,
            wait_ms: self.wait_ms,
        })
    }

    fn tell(answer: Self::Answer) -> ReadDone {
        match answer {
            Ok(events) => {
                let events = events.into_iter().map(event_told).collect();
                ReadDone { events, ..ReadDone::default() }
            }
            Err(Compacted { oldest }) => {
                ReadDone { is_expired: true, until: oldest, ..ReadDone::default() }
            }
        }
    }

    fn told(done: ReadDone) -> Self::Answer {
        match done.is_expired {
            true => Err(Compacted { oldest: done.until }),
            false => Ok(done.events.into_iter().map(event_heard).collect()),
        }
    }
}

fn event_told(event: Event) -> ChangeEvent {
    let Event { revision, kind, created, record, previous, .. } = event;
    ChangeEvent { revision, kind: kind.into(), created, record, previous }
}

/// A slot is the holder's business: whoever watches never looks at it.
fn event_heard(event: ChangeEvent) -> Event {
    let ChangeEvent { revision, kind, created, record, previous } = event;
    let kind = EventType::try_from(kind).unwrap_or_default();
    Event { revision, slot: 0, kind, created, record, previous }
}

/// Part of what has changed since a revision.
pub struct Difference {
    /// That revision.
    pub after: u64,
    /// Where to go on.
    pub cursor: DifferenceCursor,
    /// Most changes and keys.
    pub changes_max: usize,
}

impl Question for Difference {
    type Answer = Result<DifferencePage, PageExpired>;

    fn priority(&self) -> Priority {
        Priority::Watch
    }

    fn here(&self, store: &Store, _: u64) -> Option<Self::Answer> {
        let reaches = self.after <= store.revision();
        reaches.then(|| store.difference_after(self.after, self.cursor, self.changes_max))
    }

    fn query(&self) -> Query {
        Query::Difference(DifferenceQuery {
            after: self.after,
            changes_max: self.changes_max as u32,
            place: Some(self.cursor.place()),
        })
    }

    fn tell(answer: Self::Answer) -> ReadDone {
        match answer {
            Ok(page) => ReadDone {
                changes: page.changes.into_iter().map(change_told).collect(),
                present: page.present,
                present_complete: page.present_complete,
                until: page.until,
                next_place: page.next.map(DifferenceCursor::place),
                ..ReadDone::default()
            },
            Err(PageExpired) => ReadDone { is_expired: true, ..ReadDone::default() },
        }
    }

    fn told(done: ReadDone) -> Self::Answer {
        if done.is_expired {
            return Err(PageExpired);
        }
        Ok(DifferencePage {
            changes: done.changes.into_iter().map(change_heard).collect(),
            present: done.present,
            present_complete: done.present_complete,
            until: done.until,
            next: done.next_place.as_ref().map(DifferenceCursor::of_place),
        })
    }
}

fn change_told(change: Change) -> DifferenceChange {
    match change {
        Change::Put { revision, record, created } => DifferenceChange {
            revision,
            record: Some(record),
            created,
            ..DifferenceChange::default()
        },
        Change::Removed { revision, key, expired } => {
            DifferenceChange { revision, key, expired, ..DifferenceChange::default() }
        }
    }
}

fn change_heard(change: DifferenceChange) -> Change {
    let DifferenceChange { revision, record, created, key, expired } = change;
    match record {
        Some(record) => Change::Put { revision, record, created },
        None => Change::Removed { revision, key, expired },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agni_core::proto::node::DifferencePlace;
    use bytes::Bytes;

    #[test]
    fn changes_arrive_as_they_were() {
        let event = Event {
            revision: 7,
            slot: 0,
            kind: EventType::Expired,
            created: false,
            record: None,
            previous: Some(Bytes::from_static(b"before")),
        };
        let back = Events::told(Events::tell(Ok(vec![event.clone()]))).unwrap();
        assert_eq!(format!("{back:?}"), format!("{:?}", [event]));
        assert_eq!(Events::told(Events::tell(Err(Compacted { oldest: 9 }))).unwrap_err().oldest, 9);
        let place = DifferencePlace { until: Some(5), after_slot: Some(2), ..Default::default() };
        let page = DifferencePage {
            changes: vec![
                Change::Put { revision: 3, record: Bytes::from_static(b"record"), created: true },
                Change::Removed { revision: 4, key: Bytes::from_static(b"key"), expired: true },
            ],
            present: vec![Bytes::from_static(b"other")],
            present_complete: true,
            until: 5,
            next: Some(DifferenceCursor::of_place(&place)),
        };
        let back = Difference::told(Difference::tell(Ok(page.clone()))).unwrap();
        assert_eq!(format!("{back:?}"), format!("{page:?}"));
    }
}
