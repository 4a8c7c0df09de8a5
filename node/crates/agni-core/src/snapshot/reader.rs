//! Reads, lists and removes snapshot files.

use super::{BLOCK_BYTES_MAX, BlockKind, MAGIC, SnapshotError, SnapshotMeta, VERSION, parse_name};
use crate::env::{Disk, RealDisk};
use crate::proto::node::{SnapshotBlock, SnapshotFooter, SnapshotHeader};
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// What a snapshot consists of, in order.
#[derive(Debug)]
pub enum SnapshotItem {
    /// First: what it is of.
    Header(SnapshotHeader),
    /// Then: records and tombstones.
    Block(SnapshotBlock),
}

const FRAME_HEADER_BYTES: usize = 9;

/// The snapshot files in `dir` on the real disk; see `list_on`.
///
/// # Errors
/// The operating system's.
pub fn list(dir: &Path) -> io::Result<BTreeMap<u32, Vec<SnapshotMeta>>> {
    list_on(&RealDisk, dir)
}

/// The snapshot files in `dir` by partition, newest first. Leftovers of snapshots that were never
/// finished are removed.
///
/// # Errors
/// The operating system's.
pub fn list_on(disk: &dyn Disk, dir: &Path) -> io::Result<BTreeMap<u32, Vec<SnapshotMeta>>> {
    let mut found: BTreeMap<u32, Vec<SnapshotMeta>> = BTreeMap::new();
    for file in disk.list(dir)? {
        let path = dir.join(&file);
        if file.ends_with(".snap.tmp") {
            disk.remove(&path)?;
        } else if let Some((partition, index)) = parse_name(&file) {
            let bytes = disk.size(&path)?.unwrap_or(0);
            let meta =
                SnapshotMeta { file, partition, index, term: 0, revision: 0, records: 0, bytes };
            found.entry(partition).or_default().push(meta);
        }
    }
    for files in found.values_mut() {
        files.sort_by_key(|meta| std::cmp::Reverse(meta.index));
    }
    Ok(found)
}

/// Removes a partition's snapshots but the newest `keep`.
///
/// # Errors
/// The operating system's.
pub fn remove_old(disk: &dyn Disk, dir: &Path, partition: u32, keep: usize) -> io::Result<()> {
    let mut indexes = Vec::new();
    for name in disk.list(dir)? {
        if let Some((of, index)) = parse_name(&name)
            && of == partition
        {
            indexes.push((index, name));
        }
    }
    indexes.sort();
    indexes.truncate(indexes.len().saturating_sub(keep));
    indexes.iter().try_for_each(|(_, name)| disk.remove(&dir.join(name)))
}

/// Reads a snapshot on the real disk; see `read_on`.
///
/// # Errors
/// See `read_on`.
pub fn read(
    path: &Path,
    visit: &mut dyn FnMut(SnapshotItem) -> Result<(), String>,
) -> Result<SnapshotFooter, SnapshotError> {
    read_on(&RealDisk, path, visit)
}

/// Reads a snapshot: every block is checked before it is handed over, the whole file before the
/// answer is given.
///
/// # Errors
/// `Corrupt` or `Io`; what `visit` has built from the blocks so far must then be thrown away.
pub fn read_on(
    disk: &dyn Disk,
    path: &Path,
    visit: &mut dyn FnMut(SnapshotItem) -> Result<(), String>,
) -> Result<SnapshotFooter, SnapshotError> {
    let file = || path.to_path_buf();
    let buffer = disk.read(path).map_err(|source| SnapshotError::Io { file: file(), source })?;
    let named = path.file_name().and_then(|name| parse_name(name.to_str()?));
    let mut reader = Reader { buffer, offset: 0, named };
    reader.read(visit).map_err(|reason| SnapshotError::Corrupt {
        file: file(),
        offset: reader.offset as u64,
        reason,
    })
}

struct Reader {
    buffer: Vec<u8>,
    offset: usize,
    /// The partition and index in the file's name.
    named: Option<(u32, u64)>,
}

impl Reader {
    fn read(
        &mut self,
        visit: &mut dyn FnMut(SnapshotItem) -> Result<(), String>,
    ) -> Result<SnapshotFooter, String> {
        let body = self.buffer.len().checked_sub(4).ok_or("it is cut short")?;
        let (content, trailer) = self.buffer.split_at(body);
        if content.get(..8) != Some(&MAGIC[..]) {
            return Err("it does not begin like a snapshot".into());
        }
        if content.get(8..12) != Some(&VERSION.to_be_bytes()[..]) {
            return Err("its version is unknown".into());
        }
        if crc32fast::hash(content).to_be_bytes() != *trailer {
            // Say where, if a block knows.
            self.offset = 12;
            while self.block(body)?.0 != BlockKind::Footer {}
            return Err("the file's checksum is wrong".into());
        }
        self.offset = 12;
        let (kind, header) = self.block(body)?;
        if kind != BlockKind::Header {
            return Err("the first block is not the header".into());
        }
        let header = decode::<SnapshotHeader>(header)?;
        let SnapshotHeader { partition, index, .. } = header;
        if self.named.is_some_and(|named| named != (partition, index)) {
            return Err(format!("it is of partition {partition} at {index}, not as it is named"));
        }
        visit(SnapshotItem::Header(header))?;
        let mut counted = SnapshotFooter::default();
        loop {
            let (kind, plain) = self.block(body)?;
            match kind {
                BlockKind::Header => return Err("a second header".into()),
                BlockKind::Records => {
                    let block = decode::<SnapshotBlock>(plain)?;
                    counted.records += block.records.len() as u64;
                    counted.tombstones += block.tombstones.len() as u64;
                    visit(SnapshotItem::Block(block))?;
                }
                BlockKind::Footer => {
                    let footer = decode::<SnapshotFooter>(plain)?;
                    if footer != counted || self.offset != body {
                        return Err("the footer does not match what came before it".into());
                    }
                    return Ok(footer);
                }
            }
        }
    }

    fn block(&mut self, end: usize) -> Result<(BlockKind, Bytes), String> {
        let rest = &self.buffer[self.offset..end];
        let header = rest.get(..FRAME_HEADER_BYTES).ok_or("a block is cut short")?;
        let kind = match header[0] {
            1 => BlockKind::Header,
            2 => BlockKind::Records,
            3 => BlockKind::Footer,
            other => return Err(format!("block kind {other} is unknown")),
        };
        let length = |at: usize| {
            u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
                as usize
        };
        let (packed_length, plain_length) = (length(1), length(5));
        if packed_length.max(plain_length) > BLOCK_BYTES_MAX {
            return Err("a block's length is above the limit".into());
        }
        let body = FRAME_HEADER_BYTES + packed_length;
        let frame = rest.get(..body + 4).ok_or("a block is cut short")?;
        if crc32fast::hash(&frame[..body]).to_be_bytes() != frame[body..] {
            return Err("a block's checksum is wrong".into());
        }
        let plain = zstd::bulk::decompress(&frame[FRAME_HEADER_BYTES..body], plain_length)
            .map_err(|error| format!("a block can't be unpacked: {error}"))?;
        if plain.len() != plain_length {
            return Err(format!("a block has {} bytes, not {plain_length}", plain.len()));
        }
        self.offset += body + 4;
        Ok((kind, Bytes::from(plain)))
    }
}

fn decode<M: Message + Default>(plain: Bytes) -> Result<M, String> {
    M::decode(plain).map_err(|error| format!("a block can't be decoded: {error}"))
}
