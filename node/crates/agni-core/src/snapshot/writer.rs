//! Writes a snapshot: streamed into a temporary file, made durable, then given its name.

use super::{BlockKind, MAGIC, SnapshotError, SnapshotMeta, VERSION, file_name};
use crate::proto::node::{SnapshotBlock, SnapshotFooter, SnapshotHeader};
use prost::Message;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// zstd's fastest ordinary level: the disk is the slower part already.
const COMPRESSION_LEVEL: i32 = 1;

/// A snapshot on its way to the disk.
pub struct SnapshotWriter {
    temporary: PathBuf,
    dir: PathBuf,
    file: File,
    meta: SnapshotMeta,
    /// CRC-32 over all that has been written.
    checksum: crc32fast::Hasher,
    finished: bool,
}

impl SnapshotWriter {
    /// Begins a file in `dir`.
    ///
    /// # Errors
    /// `Io`.
    pub fn create(dir: &Path, header: &SnapshotHeader) -> Result<Self, SnapshotError> {
        let name = file_name(header.partition, header.index);
        let temporary = dir.join(format!("{name}.tmp"));
        let file = File::create(&temporary)
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
        let dir = dir.to_path_buf();
        let mut writer = SnapshotWriter { temporary, dir, file, meta, checksum, finished: false };
        writer.write(MAGIC)?;
        writer.write(&VERSION.to_be_bytes())?;
        writer.block(BlockKind::Header, header)?;
        Ok(writer)
    }

    /// Writes a block of records and tombstones.
    ///
    /// # Errors
    /// `Io`.
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
        let published = self
            .file
            .sync_all()
            .and_then(|()| fs::rename(&self.temporary, self.dir.join(&self.meta.file)))
            .and_then(|()| File::open(&self.dir)?.sync_all());
        published.map_err(|source| self.failed(source))?;
        self.finished = true;
        self.meta.records = footer.records;
        Ok(self.meta.clone())
    }

    fn block(&mut self, kind: BlockKind, message: &impl Message) -> Result<(), SnapshotError> {
        let plain = message.encode_to_vec();
        let packed = zstd::bulk::compress(&plain, COMPRESSION_LEVEL)
            .map_err(|source| self.failed(source))?;
        let mut frame = Vec::with_capacity(packed.len() + 13);
        frame.push(kind as u8);
        frame.extend_from_slice(&(packed.len() as u32).to_be_bytes());
        frame.extend_from_slice(&(plain.len() as u32).to_be_bytes());
        frame.extend_from_slice(&packed);
        let crc32 = crc32fast::hash(&frame);
        frame.extend_from_slice(&crc32.to_be_bytes());
        self.write(&frame)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.file.write_all(bytes).map_err(|source| self.failed(source))?;
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
            let _ = fs::remove_file(&self.temporary);
        }
    }
}
