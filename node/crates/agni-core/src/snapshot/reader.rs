//! Reads, lists and removes snapshot files.

use super::{BLOCK_BYTES_MAX, BlockKind, MAGIC, SnapshotError, SnapshotMeta, VERSION, parse_name};
use crate::proto::node::{SnapshotBlock, SnapshotFooter, SnapshotHeader};
use bytes::Bytes;
use prost::Message;
use std::collections::BTreeMap;
use std::fs;
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

/// The snapshot files in `dir` by partition, newest first. Leftovers of snapshots that were never
/// finished are removed.
///
/// # Errors
/// The operating system's.
pub fn list(dir: &Path) -> io::Result<BTreeMap<u32, Vec<SnapshotMeta>>> {
    let mut found: BTreeMap<u32, Vec<SnapshotMeta>> = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if file.ends_with(".snap.tmp") {
            fs::remove_file(entry.path())?;
        } else if let Some((partition, index)) = parse_name(&file) {
            let bytes = entry.metadata()?.len();
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
pub fn remove_old(dir: &Path, partition: u32, keep: usize) -> io::Result<()> {
    let mut indexes = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some((of, index)) = parse_name(&name)
            && of == partition
        {
            indexes.push((index, name));
        }
    }
    indexes.sort();
    indexes.truncate(indexes.len().saturating_sub(keep));
    indexes.iter().try_for_each(|(_, name)| fs::remove_file(dir.join(name)))
}

/// Reads a snapshot: every block is checked before it is handed over, the whole file before the
/// answer is given.
///
/// # Errors
/// `Corrupt` or `Io`; what `visit` has built from the blocks so far must then be thrown away.
pub fn read(
    path: &Path,
    visit: &mut dyn FnMut(SnapshotItem) -> Result<(), String>,
) -> Result<SnapshotFooter, SnapshotError> {
    let buffer =
        fs::read(path).map_err(|source| SnapshotError::Io { file: path.to_path_buf(), source })?;
    let mut reader = Reader { buffer, offset: 0 };
    reader.read(visit).map_err(|reason| SnapshotError::Corrupt {
        file: path.to_path_buf(),
        offset: reader.offset as u64,
        reason,
    })
}

struct Reader {
    buffer: Vec<u8>,
    offset: usize,
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
        visit(SnapshotItem::Header(decode::<SnapshotHeader>(header)?))?;
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
        self.offset += body + 4;
        Ok((kind, Bytes::from(plain)))
    }
}

fn decode<M: Message + Default>(plain: Bytes) -> Result<M, String> {
    M::decode(plain).map_err(|error| format!("a block can't be decoded: {error}"))
}

#[cfg(test)]
mod tests {
    use super::super::SnapshotWriter;
    use super::*;
    use crate::proto::node::{SnapshotRecord, SnapshotTombstone};

    fn write(dir: &Path, index: u64) -> SnapshotMeta {
        let header = SnapshotHeader { partition: 3, index, term: 2, ..SnapshotHeader::default() };
        let mut writer = SnapshotWriter::create(dir, &header).unwrap();
        let record = Bytes::from(vec![7; 100]);
        let block = SnapshotBlock {
            records: (0..50).map(|slot| SnapshotRecord { slot, record: record.clone() }).collect(),
            tombstones: vec![SnapshotTombstone { revision: 9, ..SnapshotTombstone::default() }],
        };
        writer.write_block(&block).unwrap();
        writer.write_block(&block).unwrap();
        writer.finish(&SnapshotFooter { records: 100, tombstones: 2 }).unwrap()
    }

    fn read_all(path: &Path) -> Result<(usize, usize), SnapshotError> {
        let (mut headers, mut records) = (0, 0);
        read(path, &mut |item| {
            match item {
                SnapshotItem::Header(header) => {
                    assert_eq!((header.partition, header.term), (3, 2));
                    headers += 1;
                }
                SnapshotItem::Block(block) => records += block.records.len(),
            }
            Ok(())
        })?;
        Ok((headers, records))
    }

    #[test]
    fn what_is_written_is_listed_newest_first_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let metas: Vec<_> = [5, 70, 12].iter().map(|index| write(dir.path(), *index)).collect();
        let listed = list(dir.path()).unwrap();
        let indexes: Vec<u64> = listed[&3].iter().map(|meta| meta.index).collect();
        assert_eq!(indexes, [70, 12, 5]);
        assert_eq!(listed[&3][0].bytes, metas[1].bytes);
        assert_eq!(read_all(&dir.path().join(&metas[0].file)).unwrap(), (1, 100));
        remove_old(dir.path(), 3, 2).unwrap();
        assert_eq!(list(dir.path()).unwrap()[&3].len(), 2);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(write(dir.path(), 5).file);
        let good = fs::read(&path).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bad).unwrap();
            assert!(read_all(&path).is_err(), "bit {bit}");
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(read_all(&path).is_err(), "cut to {length}");
        }
    }

    #[test]
    fn an_unfinished_snapshot_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(SnapshotWriter::create(dir.path(), &SnapshotHeader::default()).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(dir.path().join("p0000-00000000000000000001.snap.tmp"), b"half").unwrap();
        assert!(list(dir.path()).unwrap().is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
