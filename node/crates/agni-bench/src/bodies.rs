//! The prepared messages of a run: a file of `[length: u32 little-endian][message]`.

use std::path::Path;

/// Prepared messages, taken in turn.
pub struct Bodies {
    messages: Vec<Vec<u8>>,
    next: usize,
    /// How many bytes at the end of each message are overwritten with a number that grows, so that
    /// no two writes are equal: a registry may answer an equal one without writing.
    counter_bytes: usize,
    counter: u64,
}

impl Bodies {
    /// Reads a file of messages.
    ///
    /// # Errors
    /// Says what is wrong with the file.
    pub fn read(path: &Path, counter_bytes: usize, counter: u64) -> Result<Bodies, String> {
        let data = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut messages = Vec::new();
        let mut rest = data.as_slice();
        while let Some((head, tail)) = rest.split_first_chunk::<4>() {
            let length = u32::from_le_bytes(*head) as usize;
            if tail.len() < length || length < counter_bytes {
                return Err(format!("{}: message {} is too short", path.display(), messages.len()));
            }
            // gRPC's own prefix: not compressed, length.
            let mut message = vec![0];
            message.extend_from_slice(&(length as u32).to_be_bytes());
            message.extend_from_slice(&tail[..length]);
            messages.push(message);
            rest = &tail[length..];
        }
        if messages.is_empty() || counter_bytes > 8 {
            return Err(format!("{}: no message, or more than 8 counter bytes", path.display()));
        }
        Ok(Bodies { messages, next: 0, counter_bytes, counter })
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.messages.len()
    }

    /// The next message with its gRPC prefix; after the last one the first.
    pub fn take(&mut self) -> &[u8] {
        let count = self.messages.len();
        let message = &mut self.messages[self.next];
        self.next = (self.next + 1) % count;
        if self.counter_bytes > 0 {
            self.counter += 1;
            let start = message.len() - self.counter_bytes;
            message[start..].copy_from_slice(&self.counter.to_be_bytes()[8 - self.counter_bytes..]);
        }
        message
    }
}
