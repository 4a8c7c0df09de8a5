//! One connection of a load generator: non-blocking, with flow control in both directions.

use crate::frame::{self, HeaderBlocks, kind};
use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

/// Bytes read at once.
const READ_BYTES: usize = 256 << 10;
/// Bytes consumed before the server is granted as many again.
const GRANT_BYTES: u32 = 64 << 20;
/// What a peer's windows are before it says otherwise.
const DEFAULT_WINDOW: i64 = 65_535;

/// What a stream told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// It ended with a message: for a unary call that is success.
    Answered,
    /// It ended without one: the status is an error.
    Refused,
    /// It was reset.
    Reset,
}

/// What the connection's owner does with what arrives.
pub trait Handler {
    /// A complete gRPC message of a stream, without its prefix.
    fn message(&mut self, slot: usize, message: &[u8]);
    /// The stream is over.
    fn ended(&mut self, slot: usize, end: StreamEnd);
}

struct Stream {
    slot: usize,
    messages: u64,
    partial: Vec<u8>,
    window: i64,
    unsent: VecDeque<u8>,
    end_after_unsent: bool,
    received_since_grant: u32,
}

/// A connection.
pub struct Connection {
    /// The socket.
    pub socket: TcpStream,
    /// Not read for now.
    pub paused: bool,
    blocks: HeaderBlocks,
    first_sent: bool,
    next_stream: u32,
    streams: HashMap<u32, Stream>,
    out: Vec<u8>,
    out_start: usize,
    input: Vec<u8>,
    window: i64,
    initial_window: i64,
    blocked: VecDeque<u32>,
    received_since_grant: u32,
    /// Streams that the server allows at once.
    pub streams_max: u32,
    /// Bytes received so far.
    pub bytes_in: u64,
}

impl Connection {
    /// Connects and sends the preface.
    ///
    /// # Errors
    /// Says what the system answered.
    pub fn open(address: &str, path: &str) -> Result<Connection, String> {
        let text = |error: std::io::Error| format!("{address}: {error}");
        let socket = TcpStream::connect(address).map_err(text)?;
        socket.set_nodelay(true).map_err(text)?;
        socket.set_nonblocking(true).map_err(text)?;
        let mut out = Vec::new();
        frame::preface(&mut out);
        Ok(Connection {
            socket,
            paused: false,
            blocks: HeaderBlocks::new(path, address),
            first_sent: false,
            next_stream: 1,
            streams: HashMap::new(),
            out,
            out_start: 0,
            input: Vec::new(),
            window: DEFAULT_WINDOW,
            initial_window: DEFAULT_WINDOW,
            blocked: VecDeque::new(),
            received_since_grant: 0,
            streams_max: u32::MAX,
            bytes_in: 0,
        })
    }

    /// Opens a stream for a slot of the owner and sends its first message; `last` ends the request.
    pub fn start(&mut self, slot: usize, message: &[u8], last: bool) -> u32 {
        let id = self.next_stream;
        self.next_stream += 2;
        let block = if self.first_sent { &self.blocks.later } else { &self.blocks.first };
        frame::head(&mut self.out, block.len(), kind::HEADERS, frame::END_HEADERS, id);
        self.out.extend_from_slice(block);
        self.first_sent = true;
        let stream = Stream {
            slot,
            messages: 0,
            partial: Vec::new(),
            window: self.initial_window,
            unsent: VecDeque::new(),
            end_after_unsent: false,
            received_since_grant: 0,
        };
        self.streams.insert(id, stream);
        self.send(id, message, last);
        id
    }

    /// Sends one more message on a stream; nothing where the stream is over.
    pub fn send(&mut self, id: u32, message: &[u8], last: bool) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let length = message.len() as i64;
        let fits = length <= self.window
            && length <= stream.window
            && message.len() <= frame::PAYLOAD_BYTES_MAX;
        if stream.unsent.is_empty() && fits {
            frame::head(&mut self.out, message.len(), kind::DATA, u8::from(last), id);
            self.out.extend_from_slice(message);
            self.window -= length;
            stream.window -= length;
            return;
        }
        stream.unsent.extend(message);
        stream.end_after_unsent = last;
        self.blocked.push_back(id);
        self.send_blocked();
    }

    /// Sends what the windows now allow.
    fn send_blocked(&mut self) {
        for _ in 0..self.blocked.len() {
            let Some(id) = self.blocked.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            while !stream.unsent.is_empty() {
                let room = self.window.min(stream.window).min(frame::PAYLOAD_BYTES_MAX as i64);
                if room <= 0 {
                    break;
                }
                let part: Vec<u8> =
                    stream.unsent.drain(..stream.unsent.len().min(room as usize)).collect();
                let last = stream.unsent.is_empty() && stream.end_after_unsent;
                frame::head(&mut self.out, part.len(), kind::DATA, u8::from(last), id);
                self.out.extend_from_slice(&part);
                self.window -= part.len() as i64;
                stream.window -= part.len() as i64;
            }
            if !stream.unsent.is_empty() {
                self.blocked.push_back(id);
            }
        }
    }

    /// Whether something waits to be written.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.out_start < self.out.len()
    }

    /// Writes as much as the socket takes.
    ///
    /// # Errors
    /// Says what the socket answered.
    pub fn flush(&mut self) -> Result<(), String> {
        while self.wants_write() {
            match self.socket.write(&self.out[self.out_start..]) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => self.out_start += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("write: {error}")),
            }
        }
        self.out.clear();
        self.out_start = 0;
        Ok(())
    }

    /// Reads once and hands on what is complete; whether anything arrived.
    ///
    /// # Errors
    /// Says what the socket answered, or that the server ended the connection.
    pub fn read(&mut self, handler: &mut dyn Handler) -> Result<bool, String> {
        if self.paused {
            return Ok(false);
        }
        let before = self.input.len();
        self.input.resize(before + READ_BYTES, 0);
        let count = match self.socket.read(&mut self.input[before..]) {
            Ok(0) => return Err("the server closed the connection".into()),
            Ok(count) => count,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                0
            }
            Err(error) => return Err(format!("read: {error}")),
        };
        self.input.truncate(before + count);
        self.bytes_in += count as u64;
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        while let Some((found, used)) = frame::parse(&input[at..]) {
            self.on_frame(&found, handler)?;
            at += used;
        }
        self.input = input;
        self.input.drain(..at);
        Ok(count > 0)
    }

    fn on_frame(
        &mut self,
        found: &frame::Frame<'_>,
        handler: &mut dyn Handler,
    ) -> Result<(), String> {
        match found.kind {
            kind::DATA => {
                self.on_data(found.stream, found.payload, handler);
                self.end_if(found.flags, found.stream, handler);
            }
            kind::HEADERS => self.end_if(found.flags, found.stream, handler),
            kind::RESET => {
                if let Some(stream) = self.streams.remove(&found.stream) {
                    handler.ended(stream.slot, StreamEnd::Reset);
                }
            }
            kind::SETTINGS if found.flags & frame::ACK == 0 => {
                self.on_settings(found.payload);
                frame::head(&mut self.out, 0, kind::SETTINGS, frame::ACK, 0);
            }
            kind::PING if found.flags & frame::ACK == 0 => {
                frame::head(&mut self.out, found.payload.len(), kind::PING, frame::ACK, 0);
                self.out.extend_from_slice(found.payload);
            }
            kind::GO_AWAY => {
                let code = frame::number(found.payload, 4);
                return Err(format!("the server ended the connection, HTTP/2 code {code}"));
            }
            kind::WINDOW => {
                let bytes = i64::from(frame::number(found.payload, 0));
                if found.stream == 0 {
                    self.window += bytes;
                } else if let Some(stream) = self.streams.get_mut(&found.stream) {
                    stream.window += bytes;
                }
                self.send_blocked();
            }
            _ => {}
        }
        Ok(())
    }

    fn on_settings(&mut self, payload: &[u8]) {
        for setting in payload.chunks_exact(6) {
            let value = frame::number(setting, 2);
            match u16::from_be_bytes([setting[0], setting[1]]) {
                3 => self.streams_max = value,
                4 => {
                    let change = i64::from(value) - self.initial_window;
                    self.initial_window = i64::from(value);
                    for stream in self.streams.values_mut() {
                        stream.window += change;
                    }
                    self.send_blocked();
                }
                _ => {}
            }
        }
    }

    fn on_data(&mut self, id: u32, payload: &[u8], handler: &mut dyn Handler) {
        let length = payload.len() as u32;
        self.received_since_grant += length;
        if self.received_since_grant >= GRANT_BYTES {
            frame::window(&mut self.out, 0, self.received_since_grant);
            self.received_since_grant = 0;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        stream.received_since_grant += length;
        if stream.received_since_grant >= frame::STREAM_WINDOW / 4 {
            frame::window(&mut self.out, id, stream.received_since_grant);
            stream.received_since_grant = 0;
        }
        let mut joined = std::mem::take(&mut stream.partial);
        let data = if joined.is_empty() {
            payload
        } else {
            joined.extend_from_slice(payload);
            &joined
        };
        let mut at = 0;
        while data.len() - at >= 5 {
            let end = at + 5 + frame::number(data, at + 1) as usize;
            if end > data.len() {
                break;
            }
            stream.messages += 1;
            handler.message(stream.slot, &data[at + 5..end]);
            at = end;
        }
        if at < data.len() {
            stream.partial = data[at..].to_vec();
        }
    }

    fn end_if(&mut self, flags: u8, id: u32, handler: &mut dyn Handler) {
        if flags & frame::END_STREAM == 0 {
            return;
        }
        if let Some(stream) = self.streams.remove(&id) {
            let answered = stream.messages > 0;
            let end = if answered { StreamEnd::Answered } else { StreamEnd::Refused };
            handler.ended(stream.slot, end);
        }
    }
}
