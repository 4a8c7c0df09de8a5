//! Opaque tokens: where a watch resumes, and where a page begins.
//!
//! version ‖ purpose ‖ cluster id (16) ‖ epoch ‖ partitions ‖ one revision each ‖
//! (page: filter hash (8) ‖ partition ‖ slot + 1) ‖ CRC-32 (4, big-endian); numbers are varints.
//! Clients must not look inside: the checksum keeps damage and guesses out, not enemies.

use crate::status::{Code, RpcError};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::{Buf, BufMut};
use prost::encoding::{decode_varint, encode_varint};

const VERSION: u8 = 1;
const CLUSTER_ID_BYTES: usize = 16;
const CRC_BYTES: usize = 4;
/// The routing epoch: it grows when partitions move; a node alone has one.
const EPOCH: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Purpose {
    Page = b'P',
    Resume = b'R',
}

/// Where a page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PagePosition {
    /// The revision of each partition that all pages show.
    pub revisions: Vec<u64>,
    /// Hash of the filter that the pages belong to.
    pub filter_hash: u64,
    /// The partition to go on in.
    pub partition: u32,
    /// The last slot that was shown of it.
    pub after_slot: Option<u32>,
}

fn begin(purpose: Purpose, cluster_id: &[u8; CLUSTER_ID_BYTES], revisions: &[u64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(48 + revisions.len() * 5);
    out.put_u8(VERSION);
    out.put_u8(purpose as u8);
    out.put_slice(cluster_id);
    encode_varint(EPOCH, &mut out);
    encode_varint(revisions.len() as u64, &mut out);
    revisions.iter().for_each(|revision| encode_varint(*revision, &mut out));
    out
}

fn end(mut out: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&out);
    out.put_u32(crc);
    out
}

/// A token to watch from exactly these revisions.
pub fn resume(cluster_id: &[u8; CLUSTER_ID_BYTES], revisions: &[u64]) -> Vec<u8> {
    end(begin(Purpose::Resume, cluster_id, revisions))
}

/// A token for the next page.
pub fn page(cluster_id: &[u8; CLUSTER_ID_BYTES], at: &PagePosition) -> String {
    let mut out = begin(Purpose::Page, cluster_id, &at.revisions);
    out.put_u64(at.filter_hash);
    encode_varint(u64::from(at.partition), &mut out);
    encode_varint(at.after_slot.map_or(0, |slot| u64::from(slot) + 1), &mut out);
    URL_SAFE_NO_PAD.encode(end(out))
}

/// A resume token as HTTP writes it.
pub fn to_text(token: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(token)
}

/// A resume token as HTTP writes it; none when it isn't one.
pub fn from_text(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

enum Fault {
    Malformed,
    Foreign,
}

/// Checks what all tokens share; what is left follows the revisions.
fn open<'a>(
    token: &'a [u8],
    purpose: Purpose,
    cluster_id: &[u8; CLUSTER_ID_BYTES],
    partitions: u32,
) -> Result<(Vec<u64>, &'a [u8]), Fault> {
    let Some(split) = token.len().checked_sub(CRC_BYTES) else { return Err(Fault::Malformed) };
    let (mut body, mut crc) = token.split_at(split);
    let sound = crc.get_u32() == crc32fast::hash(body)
        && body.len() > CLUSTER_ID_BYTES + 2
        && body[0] == VERSION
        && body[1] == purpose as u8;
    if !sound {
        return Err(Fault::Malformed);
    }
    if &body[2..2 + CLUSTER_ID_BYTES] != cluster_id {
        return Err(Fault::Foreign);
    }
    body.advance(2 + CLUSTER_ID_BYTES);
    let mut next = || decode_varint(&mut body).map_err(|_| Fault::Malformed);
    next()?;
    if next()? != u64::from(partitions) {
        return Err(Fault::Foreign);
    }
    let revisions = (0..partitions).map(|_| next()).collect::<Result<Vec<_>, _>>()?;
    Ok((revisions, body))
}

/// The revisions of a resume token.
pub fn open_resume(
    token: &[u8],
    cluster_id: &[u8; CLUSTER_ID_BYTES],
    partitions: u32,
) -> Result<Vec<u64>, RpcError> {
    match open(token, Purpose::Resume, cluster_id, partitions) {
        Ok((revisions, [])) => Ok(revisions),
        Err(Fault::Foreign) => Err(RpcError::token(
            "resume_token",
            "RESUME_TOKEN_FOREIGN",
            "resume_token is of another cluster, begin without one",
        )),
        _ => Err(invalid_resume()),
    }
}

/// A resume token that can't be read.
pub fn invalid_resume() -> RpcError {
    RpcError::token(
        "resume_token",
        "RESUME_TOKEN_INVALID",
        "resume_token is damaged or none of ours, begin without one",
    )
}

/// The position of a page token, which must be for this filter.
pub fn open_page(
    token: &str,
    cluster_id: &[u8; CLUSTER_ID_BYTES],
    partitions: u32,
    filter_hash: u64,
) -> Result<PagePosition, RpcError> {
    let invalid = |message| RpcError::token("page_token", "PAGE_TOKEN_INVALID", message);
    let damaged = || invalid("page_token is damaged or none of ours, begin at the first page");
    let bytes = from_text(token).ok_or_else(damaged)?;
    let (revisions, mut rest) =
        open(&bytes, Purpose::Page, cluster_id, partitions).map_err(|_| damaged())?;
    if rest.len() < 10 {
        return Err(damaged());
    }
    if rest.get_u64() != filter_hash {
        return Err(invalid(
            "page_token is of another filter, send the same filter with each page",
        ));
    }
    let partition = decode_varint(&mut rest).map_err(|_| damaged())?;
    let slot = decode_varint(&mut rest).map_err(|_| damaged())?;
    let partition = u32::try_from(partition).ok().filter(|p| *p < partitions);
    let after_slot = slot.checked_sub(1).map(u32::try_from).transpose();
    match (partition, after_slot) {
        (Some(partition), Ok(after_slot)) => {
            Ok(PagePosition { revisions, filter_hash, partition, after_slot })
        }
        _ => Err(damaged()),
    }
}

/// A page that can't be shown any more.
pub fn page_expired() -> RpcError {
    let mut error = RpcError::token(
        "page_token",
        "PAGE_TOKEN_EXPIRED",
        "page_token is too old, begin at the first page",
    );
    error.code = Code::OutOfRange;
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CLUSTER: [u8; 16] = [7; 16];

    #[test]
    fn tokens_come_back_as_they_were() {
        let revisions = vec![0, 1, 300, u64::MAX];
        let token = resume(&CLUSTER, &revisions);
        assert_eq!(open_resume(&token, &CLUSTER, 4).ok(), Some(revisions.clone()));
        for after_slot in [None, Some(0), Some(u32::MAX)] {
            let at = PagePosition {
                revisions: revisions.clone(),
                filter_hash: 9,
                partition: 3,
                after_slot,
            };
            assert_eq!(open_page(&page(&CLUSTER, &at), &CLUSTER, 4, 9).ok(), Some(at));
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let token = resume(&CLUSTER, &[5, 6]);
        for cut in 0..token.len() {
            assert!(open_resume(&token[..cut], &CLUSTER, 2).is_err(), "cut at {cut}");
        }
        for bit in 0..token.len() * 8 {
            let mut bad = token.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open_resume(&bad, &CLUSTER, 2).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn reasons_tell_a_foreign_token_from_a_damaged_one() {
        let token = resume(&[8; 16], &[5, 6]);
        let reason = |result: Result<Vec<u64>, RpcError>| result.err().map(|error| error.reason);
        assert_eq!(reason(open_resume(&token, &CLUSTER, 2)), Some("RESUME_TOKEN_FOREIGN"));
        assert_eq!(reason(open_resume(b"x", &CLUSTER, 2)), Some("RESUME_TOKEN_INVALID"));
    }

    proptest! {
        #[test]
        fn random_bytes_are_no_token(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(open_resume(&bytes, &CLUSTER, 4).is_err());
            prop_assert!(open_page(&to_text(&bytes), &CLUSTER, 4, 9).is_err());
            prop_assert!(open_page(&String::from_utf8_lossy(&bytes), &CLUSTER, 4, 9).is_err());
        }

        #[test]
        fn what_has_a_sound_checksum_is_still_looked_at(
            rest in proptest::collection::vec(any::<u8>(), 0..60), page: bool,
        ) {
            let purpose = if page { Purpose::Page } else { Purpose::Resume };
            let token = end([&begin(purpose, &CLUSTER, &[])[..18], &rest].concat());
            let _ = open_resume(&token, &CLUSTER, 4);
            let _ = open_page(&to_text(&token), &CLUSTER, 4, 9);
        }
    }
}
