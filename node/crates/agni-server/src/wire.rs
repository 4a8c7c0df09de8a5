//! Protobuf put together by hand where a stored record must pass without being copied or decoded.
//!
//! Field numbers are those of `proto/agniregistry/api/v1`; the tests decode what is written here
//! with the generated messages.

use agni_core::engine::ReadPoint;
use agni_core::proto::api;
use agni_core::store::InstanceOwned;
use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};
use std::cell::RefCell;

/// Bytes that a runtime's scratch buffer grows by.
const ARENA_BYTES: usize = 64 << 10;

thread_local! {
    static ARENA: RefCell<BytesMut> = RefCell::new(BytesMut::with_capacity(ARENA_BYTES));
}

/// Writes small parts one behind the other into one allocation that many answers share.
pub fn scratch(at_most: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    ARENA.with_borrow_mut(|arena| {
        if arena.capacity() < at_most {
            arena.reserve(at_most.max(ARENA_BYTES));
        }
        write(arena);
        arena.split().freeze()
    })
}

/// Length of a length-delimited field with a tag below 16.
pub fn field_len(payload: usize) -> usize {
    1 + encoded_len_varint(payload as u64) + payload
}

/// Writes the tag and length of a length-delimited field with a tag below 16.
pub fn put_field_head(out: &mut impl BufMut, tag: u8, payload: usize) {
    out.put_u8(tag << 3 | 2);
    encode_varint(payload as u64, out);
}

fn put_uint(out: &mut impl BufMut, tag: u8, value: u64) {
    if value != 0 {
        out.put_u8(tag << 3);
        encode_varint(value, out);
    }
}

fn uint_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + encoded_len_varint(value) }
}

/// Bytes that the 5-byte gRPC prefix takes.
pub const GRPC_PREFIX_BYTES: usize = 5;

/// Writes the gRPC prefix of an uncompressed message.
pub fn put_grpc_prefix(out: &mut impl BufMut, message: usize) {
    out.put_u8(0);
    out.put_u32(message as u32);
}

/// A `ResponseHeader` to be written into an answer.
#[derive(Clone, Copy, Debug)]
pub struct HeaderParts<'a> {
    /// The cluster, as hexadecimal text.
    pub cluster_id: &'a str,
    /// The partition that answers.
    pub partition: u32,
    /// Which state it shows.
    pub point: ReadPoint,
}

impl HeaderParts<'_> {
    /// Encoded length, without tag and length of its own.
    pub fn encoded_len(&self) -> usize {
        field_len(self.cluster_id.len())
            + uint_len(u64::from(self.partition))
            + uint_len(self.point.revision)
            + uint_len(self.point.term)
            + uint_len(self.point.age_ms)
    }

    /// Writes it as the field `tag`.
    pub fn put(&self, out: &mut impl BufMut, tag: u8) {
        put_field_head(out, tag, self.encoded_len());
        put_field_head(out, 1, self.cluster_id.len());
        out.put_slice(self.cluster_id.as_bytes());
        put_uint(out, 2, u64::from(self.partition));
        put_uint(out, 3, self.point.revision);
        put_uint(out, 4, self.point.term);
        put_uint(out, 5, self.point.age_ms);
    }

    /// The same as a message, for answers that aren't framed by hand.
    pub fn message(&self) -> api::ResponseHeader {
        api::ResponseHeader {
            cluster_id: self.cluster_id.to_owned(),
            partition: self.partition,
            revision: self.point.revision,
            term: self.point.term,
            age_ms: self.point.age_ms as i64,
        }
    }
}

/// What follows the record in an `Instance`.
struct InstanceTail<'a> {
    instance: &'a InstanceOwned,
    load: Option<api::Load>,
}

impl<'a> InstanceTail<'a> {
    fn new(instance: &'a InstanceOwned) -> Self {
        let load = instance
            .load
            .as_ref()
            .map(|(free, age_ms)| api::Load { free: Some(*free), age_ms: *age_ms });
        InstanceTail { instance, load }
    }

    fn len(&self) -> usize {
        let remaining = self.instance.lease_remaining_ms;
        uint_len(self.instance.status as u64)
            + remaining.map_or(0, |ms| 1 + encoded_len_varint(ms as u64))
            + self.load.as_ref().map_or(0, |load| field_len(load.encoded_len()))
    }

    fn put(&self, out: &mut BytesMut) {
        put_uint(out, 2, self.instance.status as u64);
        if let Some(ms) = self.instance.lease_remaining_ms {
            out.put_u8(3 << 3);
            encode_varint(ms as u64, out);
        }
        if let Some(load) = &self.load {
            put_field_head(out, 4, load.encoded_len());
            load.encode_raw(out);
        }
    }
}

/// Small parts and shared records, in the order in which they go out.
#[derive(Debug, Default)]
pub struct Segments {
    /// The parts.
    pub parts: Vec<Bytes>,
    /// Their bytes together.
    pub len: usize,
}

impl Segments {
    /// Adds a part.
    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len += part.len();
            self.parts.push(part);
        }
    }

    /// Adds all parts of another.
    pub fn append(&mut self, mut other: Segments) {
        self.len += other.len;
        self.parts.append(&mut other.parts);
    }
}

/// An encoded `Instance` as the field `tag` of its parent, with `after` written behind it: the
/// record itself is the stored allocation.
fn instance_segments(
    out: &mut Segments,
    tag: u8,
    instance: &InstanceOwned,
    before: impl FnOnce(&mut BytesMut, usize),
    after: impl FnOnce(&mut BytesMut),
) {
    let tail = InstanceTail::new(instance);
    let tail_len = tail.len();
    let len = field_len(instance.record.len()) + tail_len;
    let head = scratch(192, |b| {
        before(b, field_len(len));
        put_field_head(b, tag, len);
        put_field_head(b, 1, instance.record.len());
    });
    out.push(head);
    out.push(instance.record.clone());
    out.push(scratch(tail_len + 64, |b| {
        tail.put(b);
        after(b);
    }));
}

/// A framed `GetResponse`.
pub fn get_response(header: HeaderParts<'_>, instance: &InstanceOwned) -> Segments {
    let mut out = Segments::default();
    let before = |b: &mut BytesMut, instance_field: usize| {
        put_grpc_prefix(b, field_len(header.encoded_len()) + instance_field);
        header.put(b, 1);
    };
    instance_segments(&mut out, 2, instance, before, |_| ());
    out
}

/// A framed `ListResponse`.
pub fn list_response(
    headers: &[HeaderParts<'_>],
    instances: &[InstanceOwned],
    next_page_token: &str,
    resume_token: &[u8],
) -> Segments {
    let mut body = Segments::default();
    for instance in instances {
        instance_segments(&mut body, 2, instance, |_, _| (), |_| ());
    }
    let tokens = scratch(next_page_token.len() + resume_token.len() + 32, |b| {
        for (tag, bytes) in [(3, next_page_token.as_bytes()), (4, resume_token)] {
            if !bytes.is_empty() {
                put_field_head(b, tag, bytes.len());
                b.put_slice(bytes);
            }
        }
    });
    body.push(tokens);
    with_headers(headers, body)
}

/// A candidate to be framed.
pub struct CandidateParts<'a> {
    /// The record.
    pub instance: &'a InstanceOwned,
    /// Its score.
    pub score: api::Score,
}

/// A framed `DiscoverResponse`.
pub fn discover_response(
    headers: &[HeaderParts<'_>],
    candidates: &[CandidateParts<'_>],
    exclusions: Vec<api::Exclusion>,
    matched: u64,
) -> Segments {
    let mut body = Segments::default();
    for candidate in candidates {
        let score_len = candidate.score.encoded_len();
        let before = |b: &mut BytesMut, instance_field: usize| {
            put_field_head(b, 2, instance_field + field_len(score_len));
        };
        let after = |b: &mut BytesMut| {
            put_field_head(b, 2, score_len);
            candidate.score.encode_raw(b);
        };
        instance_segments(&mut body, 1, candidate.instance, before, after);
    }
    let rest = api::DiscoverResponse { exclusions, matched, ..Default::default() };
    body.push(Bytes::from(rest.encode_to_vec()));
    with_headers(headers, body)
}

fn with_headers(headers: &[HeaderParts<'_>], body: Segments) -> Segments {
    let headers_len: usize = headers.iter().map(|h| field_len(h.encoded_len())).sum();
    let mut out = Segments::default();
    out.push(scratch(GRPC_PREFIX_BYTES + headers_len, |b| {
        put_grpc_prefix(b, headers_len + body.len);
        headers.iter().for_each(|header| header.put(b, 1));
    }));
    out.append(body);
    out
}

/// A framed message that holds no stored record.
pub fn message(message: &impl Message) -> Bytes {
    let len = message.encoded_len();
    scratch(GRPC_PREFIX_BYTES + len, |b| {
        put_grpc_prefix(b, len);
        message.encode_raw(b);
    })
}

/// A message of tests/golden/proto, which the Python tests hold equal to what Python writes.
#[cfg(test)]
pub fn golden<M: Message + Default>(name: &str) -> M {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/golden/proto");
    let bytes = std::fs::read(format!("{folder}/{name}.bin")).expect("a golden message");
    M::decode(&bytes[..]).expect("a whole message")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts_of(header: &api::ResponseHeader) -> HeaderParts<'_> {
        let age_ms = header.age_ms as u64;
        let point = ReadPoint { revision: header.revision, term: header.term, age_ms };
        HeaderParts { cluster_id: &header.cluster_id, partition: header.partition, point }
    }

    fn owned(instance: &api::Instance) -> InstanceOwned {
        let record = instance.record.as_ref().expect("a record");
        InstanceOwned {
            record: record.encode_to_vec().into(),
            status: instance.status(),
            lease_remaining_ms: instance.lease_remaining_ms,
            load: instance.load.map(|load| (load.free.unwrap_or_default(), load.age_ms)),
        }
    }

    /// What a client reads of a framed answer.
    fn read<M: Message + Default>(framed: Segments) -> M {
        let bytes = framed.parts.concat();
        assert_eq!(bytes.len(), framed.len);
        M::decode(&bytes[GRPC_PREFIX_BYTES..]).expect("a whole message")
    }

    #[test]
    fn a_list_written_by_hand_is_the_golden_one() {
        let wanted: api::ListResponse = golden("list");
        let headers: Vec<_> = wanted.headers.iter().map(parts_of).collect();
        let instances: Vec<_> = wanted.instances.iter().map(owned).collect();
        let token = &wanted.resume_token;
        let framed = list_response(&headers, &instances, &wanted.next_page_token, token);
        assert_eq!(read::<api::ListResponse>(framed), wanted);
    }

    #[test]
    fn what_was_found_written_by_hand_is_the_golden_one() {
        let wanted: api::DiscoverResponse = golden("discover");
        let headers: Vec<_> = wanted.headers.iter().map(parts_of).collect();
        let found = |candidate: &api::Candidate| {
            (owned(candidate.instance.as_ref().expect("one")), candidate.score.unwrap_or_default())
        };
        let found: Vec<_> = wanted.candidates.iter().map(found).collect();
        fn parts((instance, score): &(InstanceOwned, api::Score)) -> CandidateParts<'_> {
            CandidateParts { instance, score: *score }
        }
        let candidates: Vec<_> = found.iter().map(parts).collect();
        let framed =
            discover_response(&headers, &candidates, wanted.exclusions.clone(), wanted.matched);
        assert_eq!(read::<api::DiscoverResponse>(framed), wanted);
    }
}
