//! Writes a snapshot: streamed into a temporary file, made durable, then given its name.

use super::{BLOCK_BYTES_MAX, BlockKind, MAGIC, SnapshotError, SnapshotMeta, VERSION, file_name};
use crate::env::{Disk, DiskFile};
use crate::proto::node::{SnapshotBlock, SnapshotFooter, SnapshotHeader};
use prost::Message;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// zstd's fastest ordinary level: the disk is the slower part already.
const COMPRESSION_LEVEL: i32 = 1;

/// A snapshot on its way to the disk.
pub struct SnapshotWriter {
    disk: Arc<dyn Disk>,
    temporary: PathBuf,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    meta: SnapshotMeta,
    /// CRC-32 over all that has been written.
    checksum: crc32fast::Hasher,
    finished: bool,
}

impl SnapshotWriter {
    /// Begins a file in `dir`. One that is not finished is removed when the writer is dropped.
    ///
    /// # Errors
    /// `Io`.
    pub fn create(
        disk: Arc<dyn Disk>,
        dir: &Path,
        header: &SnapshotHeader,
    ) -> Result<Self, SnapshotError> {
        let name = file_name(header.partition, header.index);
        let (temporary, path) = (dir.join(format!("{name}.tmp")), dir.join(&name));
        let file = disk
            .create(&temporary)
            .map_err(|source| SnapshotError::Io { file: temporary.clone(), source })?;
        let meta = SnapshotMeta {
            file: name,
            partition: header.partition,
            index: header.index,
            term: header.term,
            revision: header.revision,
            records: 0,
            bytes: 0,
        };
        let checksum = crc32fast::Hasher::new();
        let finished = false;
        let mut writer = SnapshotWriter { disk, temporary, path, file, meta, checksum, finished };
        writer.write(MAGIC)?;
        writer.write(&VERSION.to_be_bytes())?;
        writer.block(BlockKind::Header, header)?;
        Ok(writer)
    }

    /// Writes a block of records and tombstones.
    ///
    /// # Errors
    /// `Io`, or `BlockTooLarge` for one that no reader would take.
    pub fn write_block(&mut self, block: &SnapshotBlock) -> Result<(), SnapshotError> {
        self.block(BlockKind::Records, block)
    }

    /// Writes the end, makes the file durable and gives it its name.
    ///
    /// # Errors
    /// `Io`; the temporary file is removed then.
    pub fn finish(mut self, footer: &SnapshotFooter) -> Result<SnapshotMeta, SnapshotError> {
        self.block(BlockKind::Footer, footer)?;
        let checksum = self.checksum.clone().finalize();
        self.write(&checksum.to_be_bytes())?;
        let synced = self.file.sync();
        let published = synced.and_then(|()| self.disk.rename(&self.temporary, &self.path));
        published.map_err(|source| self.failed(source))?;
        self.finished = true;
        self.meta.records = footer.records;
        Ok(self.meta.clone())
    }

    fn block(&mut self, kind: BlockKind, message: &impl Message) -> Result<(), SnapshotError> {
        self.check_size(message.encoded_len())?;
        let plain = message.encode_to_vec();
        let packed = zstd::bulk::compress(&plain, COMPRESSION_LEVEL)
            .map_err(|source| self.failed(source))?;
        // What doesn't pack well becomes a little larger.
        self.check_size(packed.len())?;
        let mut frame = Vec::with_capacity(packed.len() + 13);
        frame.push(kind as u8);
        frame.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        frame.extend_from_slice(&(plain.len() as u32).to_be_bytes());
        frame.extend_from_slice(&packed);
        let crc32 = crc32fast::hash(&frame);
        frame.extend_from_slice(&crc32.to_be_bytes());
        self.write(&frame)
    }

    fn check_size(&self, bytes: usize) -> Result<(), SnapshotError> {
        if bytes > BLOCK_BYTES_MAX {
            return Err(SnapshotError::BlockTooLarge { file: self.temporary.clone(), bytes });
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.file.write_at(bytes, self.meta.bytes).map_err(|source| self.failed(source))?;
        self.checksum.update(bytes);
        self.meta.bytes += bytes.len() as u64;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> SnapshotError {
        SnapshotError::Io { file: self.temporary.clone(), source }
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.finished {
            // Half a snapshot is of no use; one that stays is removed at the next start.
            let _ = self.disk.remove(&self.temporary);
        }
    }
}
