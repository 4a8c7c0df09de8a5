//! Reads and writes stored records by hand.
//!
//! A stored record is one allocation that is answered as it lies in memory. It is written here from
//! its parts, so that the spec's bytes are copied once and decoded never, and what the store needs
//! to know again (key, revision, region, labels ...) is read back from the same bytes.

use bytes::Bytes;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::key::KeyRef;
use crate::lease::Home;
use crate::proto::api::Kind;

/// One field of an encoded message.
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32,
}

/// Walks over the fields of an encoded message without copying; ends at the first malformed byte.
pub(crate) struct Wire<'a> {
    rest: &'a [u8],
    malformed: bool,
}

impl<'a> Wire<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Wire<'a> {
        Wire { rest: bytes, malformed: false }
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        // Tags and lengths are single bytes, most of the time.
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Some(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for (position, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f).checked_shl(7 * position as u32)?;
            if byte & 0x80 == 0 {
                self.rest = &self.rest[position + 1..];
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(length)?;
        self.rest = tail;
        Some(head)
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(usize::try_from(length).ok()?)?)
            }
            5 => {
                self.take(4)?;
                Value::Fixed32
            }
            _ => return None,
        };
        Some((u32::try_from(tag >> 3).ok()?, value))
    }
}

impl<'a> Iterator for Wire<'a> {
    type Item = (u32, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() || self.malformed {
            return None;
        }
        let field = self.field();
        self.malformed = field.is_none();
        field
    }
}

/// What the store adds to a key and a spec.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Meta<'a> {
    pub incarnation: u64,
    pub lease_id: u64,
    pub ttl_ms: i64,
    pub create_revision: u64,
    pub revision: u64,
    pub version: u64,
    pub created_unix_ms: i64,
    pub updated_unix_ms: i64,
    pub draining: Option<DrainingRef<'a>>,
}

/// `api::Draining`, borrowed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct DrainingRef<'a> {
    pub deadline_unix_ms: i64,
    pub successor: &'a str,
}

/// A stored record, taken apart without copying.
#[derive(Clone, Debug)]
pub(crate) struct RecordParts<'a> {
    pub key: KeyRef<'a>,
    /// The encoded `api::Key`.
    pub key_bytes: &'a [u8],
    /// The encoded `api::Spec`.
    pub spec: &'a [u8],
    pub meta: Meta<'a>,
}

/// What the indexes need of a spec.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpecParts<'a> {
    pub region: &'a str,
    pub gateway: &'a str,
    /// cpu, bandwidth, memory, storage.
    pub capacity: [f64; 4],
    spec: &'a [u8],
}

impl<'a> SpecParts<'a> {
    /// Reads an encoded `api::Spec`; `None` when it is malformed.
    pub(crate) fn parse(spec: &'a [u8]) -> Option<SpecParts<'a>> {
        let mut parts = SpecParts { spec, ..SpecParts::default() };
        let mut wire = Wire::new(spec);
        for (field, value) in &mut wire {
            match (field, value) {
                (1, Value::Bytes(bytes)) => parts.region = str::from_utf8(bytes).ok()?,
                (5, Value::Bytes(bytes)) => read_capacity(bytes, &mut parts.capacity)?,
                (6, Value::Bytes(bytes)) => {
                    read_label(bytes)?;
                }
                (8, Value::Bytes(bytes)) => parts.gateway = str::from_utf8(bytes).ok()?,
                _ => {}
            }
        }
        (!wire.malformed).then_some(parts)
    }

    /// Where the record with this key is: what it can be lost together with.
    pub(crate) fn home<'h>(&self, key: &KeyRef<'h>) -> Home<'h>
    where
        'a: 'h,
    {
        Home { region: self.region, namespace: key.namespace, gateway: self.gateway }
    }

    /// The labels, as key and value.
    pub(crate) fn labels(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        Wire::new(self.spec).filter_map(|(field, value)| match (field, value) {
            (6, Value::Bytes(bytes)) => read_label(bytes),
            _ => None,
        })
    }
}

fn read_capacity(bytes: &[u8], capacity: &mut [f64; 4]) -> Option<()> {
    let mut wire = Wire::new(bytes);
    for (field, value) in &mut wire {
        if let (1..=4, Value::Fixed64(bits)) = (field, value) {
            capacity[field as usize - 1] = f64::from_bits(bits);
        }
    }
    (!wire.malformed).then_some(())
}

fn read_label(bytes: &[u8]) -> Option<(&str, &str)> {
    let (mut key, mut value) = ("", "");
    let mut wire = Wire::new(bytes);
    for (field, part) in &mut wire {
        match (field, part) {
            (1, Value::Bytes(bytes)) => key = str::from_utf8(bytes).ok()?,
            (2, Value::Bytes(bytes)) => value = str::from_utf8(bytes).ok()?,
            _ => {}
        }
    }
    (!wire.malformed).then_some((key, value))
}

/// Reads an encoded `api::Key`.
pub(crate) fn parse_key(bytes: &[u8]) -> Option<KeyRef<'_>> {
    let mut key = KeyRef { namespace: "", kind: Kind::Unspecified, name: "" };
    let mut wire = Wire::new(bytes);
    for (field, value) in &mut wire {
        match (field, value) {
            (1, Value::Bytes(bytes)) => key.namespace = str::from_utf8(bytes).ok()?,
            (2, Value::Varint(kind)) => key.kind = Kind::try_from(kind as i32).ok()?,
            (3, Value::Bytes(bytes)) => key.name = str::from_utf8(bytes).ok()?,
            _ => {}
        }
    }
    (!wire.malformed).then_some(key)
}

/// The key of a stored record, which always comes first in it.
pub(crate) fn key_of(record: &[u8]) -> Option<KeyRef<'_>> {
    match Wire::new(record).next()? {
        (1, Value::Bytes(bytes)) => parse_key(bytes),
        _ => None,
    }
}

/// The encoded `api::Key` in an encoded `api::Record` that this module wrote.
pub fn key_bytes_of(record: &Bytes) -> Option<Bytes> {
    match Wire::new(record).next()? {
        (1, Value::Bytes(bytes)) => Some(record.slice_ref(bytes)),
        _ => None,
    }
}

/// Takes a stored record apart; `None` when it is malformed or has no key.
pub(crate) fn parse(record: &[u8]) -> Option<RecordParts<'_>> {
    let (mut key_bytes, mut spec) = (None, &record[..0]);
    let mut meta = Meta::default();
    let mut wire = Wire::new(record);
    for (field, value) in &mut wire {
        match (field, value) {
            (1, Value::Bytes(bytes)) => key_bytes = Some(bytes),
            (2, Value::Bytes(bytes)) => spec = bytes,
            (3, Value::Varint(value)) => meta.incarnation = value,
            (4, Value::Varint(value)) => meta.lease_id = value,
            (5, Value::Varint(value)) => meta.ttl_ms = value as i64,
            (6, Value::Varint(value)) => meta.create_revision = value,
            (7, Value::Varint(value)) => meta.revision = value,
            (8, Value::Varint(value)) => meta.version = value,
            (9, Value::Varint(value)) => meta.created_unix_ms = value as i64,
            (10, Value::Varint(value)) => meta.updated_unix_ms = value as i64,
            (11, Value::Bytes(bytes)) => meta.draining = Some(parse_draining(bytes)?),
            _ => {}
        }
    }
    let key_bytes = key_bytes.filter(|_| !wire.malformed)?;
    Some(RecordParts { key: parse_key(key_bytes)?, key_bytes, spec, meta })
}

fn parse_draining(bytes: &[u8]) -> Option<DrainingRef<'_>> {
    let mut draining = DrainingRef::default();
    let mut wire = Wire::new(bytes);
    for (field, value) in &mut wire {
        match (field, value) {
            (1, Value::Varint(value)) => draining.deadline_unix_ms = value as i64,
            (2, Value::Bytes(bytes)) => draining.successor = str::from_utf8(bytes).ok()?,
            _ => {}
        }
    }
    (!wire.malformed).then_some(draining)
}

/// Writes an `api::Record` into one allocation of exactly its size.
pub(crate) fn encode(key: &KeyRef<'_>, spec: &[u8], meta: &Meta<'_>) -> Bytes {
    let numbers = [
        meta.incarnation,
        meta.lease_id,
        meta.ttl_ms as u64,
        meta.create_revision,
        meta.revision,
        meta.version,
        meta.created_unix_ms as u64,
        meta.updated_unix_ms as u64,
    ];
    let draining_len = meta.draining.map(|draining| {
        number_len(draining.deadline_unix_ms as u64)
            + if draining.successor.is_empty() { 0 } else { bytes_len(draining.successor.len()) }
    });
    let length = bytes_len(key.encoded_len())
        + bytes_len(spec.len())
        + numbers.iter().map(|&number| number_len(number)).sum::<usize>()
        + draining_len.map_or(0, bytes_len);
    let mut out = Vec::with_capacity(length);
    out.push(0x0a);
    encode_varint(key.encoded_len() as u64, &mut out);
    key.encode(&mut out);
    put_bytes(&mut out, 0x12, spec);
    for (position, &number) in numbers.iter().enumerate() {
        put_number(&mut out, ((position as u8) + 3) << 3, number);
    }
    if let (Some(draining), Some(length)) = (meta.draining, draining_len) {
        out.push(0x5a);
        encode_varint(length as u64, &mut out);
        put_number(&mut out, 0x08, draining.deadline_unix_ms as u64);
        if !draining.successor.is_empty() {
            put_bytes(&mut out, 0x12, draining.successor.as_bytes());
        }
    }
    debug_assert_eq!(out.len(), length, "the length was computed wrongly");
    Bytes::from(out)
}

/// The length of a field with a one-byte tag and that many bytes.
fn bytes_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

/// The length of a number with a one-byte tag; zero isn't written.
fn number_len(number: u64) -> usize {
    if number == 0 { 0 } else { 1 + encoded_len_varint(number) }
}

fn put_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, tag: u8, number: u64) {
    if number != 0 {
        out.push(tag);
        encode_varint(number, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::api;
    use proptest::prelude::*;
    use prost::Message;

    proptest! {
        #[test]
        fn a_record_is_encoded_as_prost_would_and_read_back(
            (namespace, name, region) in ("[a-z]{1,9}", ".{1,200}", "[a-z]{0,9}"),
            labels in proptest::collection::btree_map("[a-z]{1,5}", ".{0,9}", 0..5),
            numbers in proptest::array::uniform8(any::<u64>()),
            draining in proptest::option::of((any::<i64>(), ".{0,9}")),
            cpu in 0.0..f64::MAX,
        ) {
            let spec = api::Spec {
                region: region.clone(),
                labels: labels.clone(),
                capacity: Some(api::Capacity { cpu, ..Default::default() }),
                ..Default::default()
            };
            let key = KeyRef { namespace: &namespace, kind: Kind::Agent, name: &name };
            let meta = Meta {
                incarnation: numbers[0], lease_id: numbers[1], ttl_ms: numbers[2] as i64,
                create_revision: numbers[3], revision: numbers[4], version: numbers[5],
                created_unix_ms: numbers[6] as i64, updated_unix_ms: numbers[7] as i64,
                draining: draining.as_ref().map(|(deadline, successor)| DrainingRef {
                    deadline_unix_ms: *deadline, successor,
                }),
            };
            let spec_bytes = spec.encode_to_vec();
            let bytes = encode(&key, &spec_bytes, &meta);
            let message = api::Record {
                key: Some(key.to_message()), spec: Some(spec), incarnation: numbers[0],
                lease_id: numbers[1], ttl_ms: numbers[2] as i64, create_revision: numbers[3],
                revision: numbers[4], version: numbers[5], created_unix_ms: numbers[6] as i64,
                updated_unix_ms: numbers[7] as i64,
                draining: draining.clone().map(|(deadline_unix_ms, successor)| api::Draining {
                    deadline_unix_ms, successor,
                }),
            };
            prop_assert_eq!(&bytes[..], &message.encode_to_vec()[..]);
            let parts = parse(&bytes).unwrap();
            prop_assert_eq!(parts.key, key);
            prop_assert_eq!(parts.spec, &spec_bytes[..]);
            prop_assert_eq!(parts.meta, meta);
            let facts = SpecParts::parse(parts.spec).unwrap();
            prop_assert_eq!(facts.region, &region);
            prop_assert_eq!(facts.capacity[0], cpu);
            let read: std::collections::BTreeMap<_, _> =
                facts.labels().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            prop_assert_eq!(read, labels);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let _ = SpecParts::parse(&bytes).map(|parts| parts.labels().count());
            let _ = key_of(&bytes);
        }
    }
}
