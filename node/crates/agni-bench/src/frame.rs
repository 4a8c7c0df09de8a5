//! The little of HTTP/2 that a client of one method needs: frames, and a header block that uses
//! the dynamic table from the second request on, as every real client does.

/// Bytes of a frame's head.
pub const HEAD_BYTES: usize = 9;
/// Bytes of a frame's payload that every peer accepts.
pub const PAYLOAD_BYTES_MAX: usize = 16_384;
/// What we let a server send before it must wait, for a stream.
pub const STREAM_WINDOW: u32 = 16 << 20;
/// The same for a connection.
pub const CONNECTION_WINDOW: u32 = 1 << 30;

/// Kinds of frames.
pub mod kind {
    /// Bytes of a body.
    pub const DATA: u8 = 0;
    /// Headers or trailers.
    pub const HEADERS: u8 = 1;
    /// A stream was given up.
    pub const RESET: u8 = 3;
    /// Settings.
    pub const SETTINGS: u8 = 4;
    /// Are you there.
    pub const PING: u8 = 6;
    /// The connection ends.
    pub const GO_AWAY: u8 = 7;
    /// More may be sent.
    pub const WINDOW: u8 = 8;
}
/// The flag of the last frame of a stream.
pub const END_STREAM: u8 = 1;
/// The flag of an answer to SETTINGS or PING.
pub const ACK: u8 = 1;
/// The flag of a complete header block.
pub const END_HEADERS: u8 = 4;

/// Appends a frame's head.
pub fn head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&(length as u32).to_be_bytes()[1..]);
    out.push(kind);
    out.push(flags);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// Appends the client's preface, its settings and its connection window.
pub fn preface(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    head(out, 12, kind::SETTINGS, 0, 0);
    out.extend_from_slice(&2u16.to_be_bytes()); // no push
    out.extend_from_slice(&0u32.to_be_bytes());
    out.extend_from_slice(&4u16.to_be_bytes()); // initial stream window
    out.extend_from_slice(&STREAM_WINDOW.to_be_bytes());
    window(out, 0, CONNECTION_WINDOW - 65_535);
}

/// Appends a grant of bytes.
pub fn window(out: &mut Vec<u8>, stream: u32, bytes: u32) {
    head(out, 4, kind::WINDOW, 0, stream);
    out.extend_from_slice(&bytes.to_be_bytes());
}

/// The header blocks of a method: the first request's, and that of all later ones.
pub struct HeaderBlocks {
    /// Puts its fields into the peer's dynamic table.
    pub first: Vec<u8>,
    /// Refers to them.
    pub later: Vec<u8>,
}

impl HeaderBlocks {
    /// The blocks for a gRPC method; path and authority have fewer than 127 bytes.
    #[must_use]
    pub fn new(path: &str, authority: &str) -> HeaderBlocks {
        let mut first = vec![0x83, 0x86]; // :method POST, :scheme http
        let mut literal = |start: &[u8], value: &str| {
            first.extend_from_slice(start);
            first.push(value.len() as u8);
            first.extend_from_slice(value.as_bytes());
        };
        literal(&[0x44], path); // :path
        literal(&[0x41], authority); // :authority
        literal(&[0x5f], "application/grpc"); // content-type
        literal(&[0x40, 2, b't', b'e'], "trailers");
        // The newest entry of the table has index 62.
        HeaderBlocks { first, later: vec![0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe] }
    }
}

/// A frame as it was received.
pub struct Frame<'a> {
    /// See [`kind`].
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 is the connection.
    pub stream: u32,
    /// What it carries.
    pub payload: &'a [u8],
}

/// Takes one complete frame off the front, and says how long it was.
#[must_use]
pub fn parse(data: &[u8]) -> Option<(Frame<'_>, usize)> {
    let head = data.get(..HEAD_BYTES)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let payload = data.get(HEAD_BYTES..HEAD_BYTES + length)?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
    Some((Frame { kind: head[3], flags: head[4], stream, payload }, HEAD_BYTES + length))
}

/// Reads a 32-bit number at a place of a payload; 0 where it is too short.
#[must_use]
pub fn number(payload: &[u8], at: usize) -> u32 {
    payload.get(at..at + 4).map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_back_only_when_it_is_complete() {
        let mut data = Vec::new();
        head(&mut data, 5, kind::DATA, END_STREAM, 7);
        data.extend_from_slice(b"hello");
        for cut in 0..data.len() {
            assert!(parse(&data[..cut]).is_none());
        }
        let (frame, used) = parse(&data).unwrap();
        assert_eq!((frame.kind, frame.stream, used), (kind::DATA, 7, data.len()));
        assert_eq!(frame.payload, b"hello");
    }

    #[test]
    fn the_first_block_names_everything_in_full() {
        let blocks = HeaderBlocks::new("/a.B/C", "host:1");
        assert!(blocks.first.windows(6).any(|part| part == b"/a.B/C"));
        assert_eq!(blocks.later.len(), 6);
    }
}
