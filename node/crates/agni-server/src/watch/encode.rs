//! How changes become bytes: one chunk for all watches at the same place with the same filter.

use crate::wire::{Segments, field_len, put_field_head, scratch};
use agni_core::proto::api::{self, EventType, WatchPhase};
use agni_core::store::{Change, CompiledFilter, Event, key_bytes_of};
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{
    DecodeContext, decode_key, decode_varint, encode_varint, encoded_len_varint, skip_field,
};

/// One message of a watch, without the gRPC prefix.
pub struct WatchMessage {
    /// What it means.
    pub phase: WatchPhase,
    /// The encoded `WatchResponse`.
    pub parts: Segments,
}

/// One event to be written; encoded parts stay encoded.
struct EventParts<'a> {
    kind: EventType,
    revision: u64,
    partition: u32,
    key: Bytes,
    record: Option<&'a Bytes>,
    previous: Option<&'a Bytes>,
    created: bool,
}

impl EventParts<'_> {
    fn len(&self) -> usize {
        let number = |value: u64| if value == 0 { 0 } else { 1 + encoded_len_varint(value) };
        number(self.kind as u64)
            + number(self.revision)
            + number(u64::from(self.partition))
            + field_len(self.key.len())
            + self.record.map_or(0, |record| field_len(record.len()))
            + self.previous.map_or(0, |record| field_len(record.len()))
            + number(u64::from(self.created))
    }

    fn put(&self, out: &mut BytesMut) {
        let len = self.len();
        out.reserve(field_len(len));
        put_field_head(out, 2, len);
        let numbers = [
            (1, self.kind as u64),
            (2, self.revision),
            (3, u64::from(self.partition)),
            (7, u64::from(self.created)),
        ];
        for (tag, value) in numbers {
            if value != 0 {
                out.put_u8(tag << 3);
                encode_varint(value, out);
            }
        }
        let parts = [(4, Some(&self.key)), (5, self.record), (6, self.previous)];
        for (tag, bytes) in parts {
            if let Some(bytes) = bytes {
                put_field_head(out, tag, bytes.len());
                out.put_slice(bytes);
            }
        }
    }
}

/// What a watch sees of a change, if anything.
fn seen(filter: &CompiledFilter, event: &Event) -> Option<EventType> {
    let matches =
        |record: &Option<Bytes>| record.as_ref().is_some_and(|r| filter.matches_record(r));
    match (&event.record, matches(&event.record)) {
        (Some(_), true) => Some(EventType::Put),
        (Some(_), false) => matches(&event.previous).then_some(EventType::Removed),
        (None, _) => matches(&event.previous).then_some(event.kind),
    }
}

/// Appends what a watch sees of a change.
pub fn put_event(
    out: &mut BytesMut,
    filter: &CompiledFilter,
    partition: u32,
    event: &Event,
    previous: bool,
) {
    let Some(kind) = seen(filter, event) else { return };
    let parts = EventParts {
        kind,
        revision: event.revision,
        partition,
        key: event.key_bytes(),
        record: event.record.as_ref().filter(|_| kind == EventType::Put),
        previous: event.previous.as_ref().filter(|_| previous),
        created: event.created,
    };
    parts.put(out);
}

/// The revision in an encoded `api::Record` (its field 7), found without decoding the rest.
fn revision_of(record: &Bytes) -> u64 {
    let mut rest = &record[..];
    while let Ok((tag, wire_type)) = decode_key(&mut rest) {
        if tag == 7 {
            return decode_varint(&mut rest).unwrap_or_default();
        }
        if skip_field(wire_type, tag, &mut rest, DecodeContext::default()).is_err() {
            break;
        }
    }
    0
}

/// Appends a record that exists, as part of a difference or of the current state.
pub fn put_record(out: &mut BytesMut, partition: u32, record: &Bytes) {
    let revision = revision_of(record);
    let parts = EventParts {
        kind: EventType::Put,
        revision,
        partition,
        key: key_bytes_of(record).unwrap_or_default(),
        record: Some(record),
        previous: None,
        created: false,
    };
    parts.put(out);
}

/// Appends one change of a difference.
fn put_change(out: &mut BytesMut, filter: &CompiledFilter, partition: u32, change: &Change) {
    let (kind, revision, key, record, created) = match change {
        Change::Put { revision, record, created } => {
            let key = key_bytes_of(record).unwrap_or_default();
            match filter.matches_record(record) {
                true => (EventType::Put, revision, key, Some(record), *created),
                // Whether it matched before isn't known any more: a removal of something that a
                // client never heard of does no harm.
                false => (EventType::Removed, revision, key, None, false),
            }
        }
        Change::Removed { revision, key, expired: true } => {
            (EventType::Expired, revision, key.clone(), None, false)
        }
        Change::Removed { revision, key, expired: false } => {
            (EventType::Deregistered, revision, key.clone(), None, false)
        }
    };
    let revision = *revision;
    EventParts { kind, revision, partition, key, record, previous: None, created }.put(out);
}

/// Appends changes of a difference until there is enough for a message; says how many it took.
pub fn put_changes(
    out: &mut BytesMut,
    filter: &CompiledFilter,
    partition: u32,
    changes: &[Change],
    enough_bytes: usize,
) -> usize {
    let mut taken = 0;
    for change in changes {
        if out.len() >= enough_bytes {
            break;
        }
        put_change(out, filter, partition, change);
        taken += 1;
    }
    taken
}

/// A message of encoded events.
pub fn message(
    phase: WatchPhase,
    events: Vec<Bytes>,
    token: &[u8],
    rest: &Present,
) -> WatchMessage {
    let mut parts = Segments::default();
    parts.push(scratch(4, |out| {
        out.put_u8(1 << 3);
        encode_varint(phase as u64, out);
    }));
    events.into_iter().for_each(|chunk| parts.push(chunk));
    parts.push(scratch(field_len(token.len()), |out| {
        put_field_head(out, 3, token.len());
        out.put_slice(token);
    }));
    if rest.complete {
        let present = api::WatchResponse {
            present_complete: true,
            present_partition: rest.partition,
            ..api::WatchResponse::default()
        };
        let mut out = BytesMut::from(&present.encode_to_vec()[..]);
        for key in &rest.keys {
            put_field_head(&mut out, 4, key.len());
            out.put_slice(key);
        }
        parts.push(out.freeze());
    }
    WatchMessage { phase, parts }
}

/// Keys that still exist unchanged, where removals are no longer known one by one.
#[derive(Default)]
pub struct Present {
    /// Whether the list is in use.
    pub complete: bool,
    /// The partition that it speaks of.
    pub partition: u32,
    /// The encoded keys.
    pub keys: Vec<Bytes>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::golden;

    fn read(message: WatchMessage) -> api::WatchResponse {
        api::WatchResponse::decode(&message.parts.parts.concat()[..]).expect("a whole message")
    }

    fn bytes_of(record: &Option<api::Record>) -> Option<Bytes> {
        record.as_ref().map(|record| record.encode_to_vec().into())
    }

    #[test]
    fn changes_written_by_hand_are_the_golden_ones() {
        let wanted: api::WatchResponse = golden("watch_live");
        let everything = api::Filter { namespace: "*".into(), ..api::Filter::default() };
        let every = CompiledFilter::new(&everything).expect("a filter");
        let mut out = BytesMut::new();
        for event in &wanted.events {
            let change = Event {
                revision: event.revision,
                slot: 0,
                kind: event.r#type(),
                created: event.created,
                record: bytes_of(&event.record),
                previous: bytes_of(&event.previous),
            };
            put_event(&mut out, &every, event.partition, &change, true);
        }
        let token = &wanted.resume_token;
        let written = message(WatchPhase::Live, vec![out.freeze()], token, &Present::default());
        assert_eq!(read(written), wanted);
    }

    #[test]
    fn a_difference_written_by_hand_is_the_golden_one() {
        let wanted: api::WatchResponse = golden("watch_present");
        let partition = wanted.present_partition;
        let mut out = BytesMut::new();
        for event in &wanted.events {
            let record = bytes_of(&event.record).expect("a record");
            put_record(&mut out, event.partition, &record);
        }
        let keys = wanted.present.iter().map(|key| key.encode_to_vec().into()).collect();
        let present = Present { complete: true, partition, keys };
        let written = message(WatchPhase::Sync, vec![out.freeze()], &[], &present);
        assert_eq!(read(written), wanted);
    }
}
