//! Since when a client has owed the rest of a block of headers. HTTP/2 lets headers span frames,
//! and hyper has no time limit for them: this follows the frames as they pass.

use tokio::time::Instant;

const HEAD_BYTES: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What an HTTP/2 client has sent so far, frame by frame; begins behind the preface.
#[derive(Debug, Default)]
pub struct HeaderBlocks {
    head: [u8; HEAD_BYTES],
    head_len: usize,
    payload_left: usize,
    /// Since when a frame other than DATA, or a block of headers, has been there in part.
    open_since: Option<Instant>,
}

impl HeaderBlocks {
    /// Takes in what has arrived.
    pub fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.payload_left > 0 {
                let taken = self.payload_left.min(bytes.len());
                bytes = &bytes[taken..];
                self.payload_left -= taken;
            } else {
                let taken = (HEAD_BYTES - self.head_len).min(bytes.len());
                self.head[self.head_len..][..taken].copy_from_slice(&bytes[..taken]);
                self.head_len += taken;
                bytes = &bytes[taken..];
                if self.head_len < HEAD_BYTES {
                    break;
                }
                self.payload_left =
                    u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]]) as usize;
            }
            if self.payload_left == 0 {
                self.head_len = 0;
            }
        }
        if !self.owes_headers() {
            self.open_since = None;
        } else if self.open_since.is_none() {
            self.open_since = Some(Instant::now());
        }
    }

    /// Since when the client has owed the rest; none while it owes nothing.
    pub fn open_since(&self) -> Option<Instant> {
        self.open_since
    }

    /// The frame that is under way, or the last one, decides: nothing else may come in between.
    fn owes_headers(&self) -> bool {
        let [.., kind, flags, _, _, _, _] = self.head;
        if self.head_len > 0 {
            return self.head_len < HEAD_BYTES || kind != DATA;
        }
        matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, 1];
        bytes.resize(HEAD_BYTES + payload, b'x');
        bytes
    }

    fn owes(frames: &[Vec<u8>], piece_bytes: usize) -> bool {
        let mut blocks = HeaderBlocks::default();
        frames.concat().chunks(piece_bytes).for_each(|piece| blocks.follow(piece));
        blocks.open_since().is_some()
    }

    #[test]
    fn a_block_is_open_until_its_end_is_here_however_it_was_cut() {
        let (settings, data) = (frame(4, 0, 0), frame(DATA, 0, 70_000));
        let begun = frame(HEADERS, 0, 20);
        let whole = frame(HEADERS, END_HEADERS, 20);
        let last = frame(CONTINUATION, END_HEADERS, 3);
        for piece in [1, 2, 8, 9, 10, 29, 1 << 20] {
            assert!(!owes(&[settings.clone(), whole.clone(), data.clone()], piece));
            assert!(owes(&[settings.clone(), begun.clone()], piece));
            assert!(owes(&[begun.clone(), frame(CONTINUATION, 0, 5)], piece));
            assert!(!owes(&[begun.clone(), frame(CONTINUATION, 0, 0), last.clone()], piece));
            assert!(owes(&[whole.clone(), whole[..12].to_vec()], piece), "a frame in part");
            assert!(owes(&[whole.clone(), settings[..1].to_vec()], piece), "its first byte");
            assert!(!owes(&[whole.clone(), data[..40].to_vec()], piece), "a body has its own time");
        }
    }

    #[test]
    fn the_time_counts_from_the_first_frame() {
        let mut blocks = HeaderBlocks::default();
        blocks.follow(&frame(HEADERS, 0, 1));
        let since = blocks.open_since();
        blocks.follow(&frame(CONTINUATION, 0, 1));
        assert_eq!(blocks.open_since(), since);
    }
}
