//! Drives one gRPC method of one server in a closed loop and prints what it saw as JSON.
//!
//! `--address host:port --path /package.Service/Method --bodies FILE --connections C --streams S
//! --seconds N [--warmup N] [--requests N] [--counter-bytes 8] [--counter-start N]
//! [--keep-open 1: one long stream a slot, a message and its answer in turn]`

use agni_bench::args::Args;
use agni_bench::bodies::Bodies;
use agni_bench::connection::{Connection, Handler, StreamEnd};
use agni_bench::histogram::Latencies;
use std::path::PathBuf;
use std::time::{Duration, Instant};

struct Slot {
    connection: usize,
    stream: u32,
    started: Instant,
}

/// What arrived since the last look: slots to go on with.
#[derive(Default)]
struct Arrived {
    keep_open: bool,
    ready: Vec<usize>,
    refused: u64,
    answer: Vec<u8>,
}

impl Handler for Arrived {
    fn message(&mut self, slot: usize, message: &[u8]) {
        if self.answer.is_empty() {
            self.answer = message.to_vec();
        }
        if self.keep_open {
            self.ready.push(slot);
        }
    }

    fn ended(&mut self, slot: usize, end: StreamEnd) {
        if end != StreamEnd::Answered || self.keep_open {
            self.refused += 1;
        }
        if !self.keep_open {
            self.ready.push(slot);
        }
    }
}

struct Run {
    connections: Vec<Connection>,
    slots: Vec<Slot>,
    bodies: Bodies,
    arrived: Arrived,
    keep_open: bool,
    requests_left: u64,
}

impl Run {
    fn new(args: &Args) -> Result<Run, String> {
        let (address, path) = (args.need::<String>("address")?, args.need::<String>("path")?);
        let bodies: PathBuf = args.need("bodies")?;
        let bodies =
            Bodies::read(&bodies, args.or("counter-bytes", 0)?, args.or("counter-start", 0)?)?;
        let count = args.or("connections", 1)?;
        let connections =
            (0..count).map(|_| Connection::open(&address, &path)).collect::<Result<_, _>>()?;
        let keep_open = args.or("keep-open", 0)? != 0;
        let requests_left = args.or("requests", u64::MAX)?;
        let arrived = Arrived { keep_open, ..Arrived::default() };
        Ok(Run { connections, slots: Vec::new(), bodies, arrived, keep_open, requests_left })
    }

    fn open_slots(&mut self, streams: usize) {
        let now = Instant::now();
        for connection in 0..self.connections.len() {
            for _ in 0..streams {
                self.slots.push(Slot { connection, stream: 0, started: now });
                self.request(self.slots.len() - 1);
            }
        }
    }

    fn request(&mut self, index: usize) {
        if self.requests_left == 0 {
            return;
        }
        self.requests_left -= 1;
        let slot = &mut self.slots[index];
        slot.started = Instant::now();
        let connection = &mut self.connections[slot.connection];
        if self.keep_open && slot.stream != 0 {
            connection.send(slot.stream, self.bodies.take(), false);
        } else {
            slot.stream = connection.start(index, self.bodies.take(), !self.keep_open);
        }
    }

    /// One turn: writes, waits, reads, and starts the next request of each slot that is done.
    fn turn(&mut self, latencies: &mut Latencies) -> Result<u64, String> {
        for connection in &mut self.connections {
            connection.flush()?;
        }
        agni_bench::poll::wait(&self.connections, 100)?;
        for connection in &mut self.connections {
            connection.read(&mut self.arrived)?;
        }
        let ready = std::mem::take(&mut self.arrived.ready);
        let now = Instant::now();
        for slot in &ready {
            let took = now.duration_since(self.slots[*slot].started);
            latencies.add(took.as_micros() as u64);
            self.request(*slot);
        }
        let done = ready.len() as u64;
        self.arrived.ready = ready;
        self.arrived.ready.clear();
        Ok(done)
    }
}

fn cpu_seconds() -> f64 {
    // SAFETY: all zeroes is a valid rusage, and the pointer is to a live one.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn run() -> Result<(), String> {
    let args = Args::of_process()?;
    let streams: usize = args.or("streams", 1)?;
    let limit = Duration::from_secs_f64(args.or("seconds", 3.0)?);
    let warmup = Duration::from_secs_f64(args.or("warmup", 0.0)?);
    let counted = args.or("requests", 0u64)?;
    let mut run = Run::new(&args)?;
    run.open_slots(streams);

    let start = Instant::now();
    while start.elapsed() < warmup {
        run.turn(&mut Latencies::default())?;
    }
    let (mut latencies, mut done) = (Latencies::default(), 0u64);
    let refused_before = run.arrived.refused;
    let (start, cpu) = (Instant::now(), cpu_seconds());
    while if counted > 0 { done < counted } else { start.elapsed() < limit } {
        done += run.turn(&mut latencies)?;
        if run.arrived.refused > 0 && run.keep_open {
            return Err("the server ended a stream that was to stay open".into());
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    let refused = run.arrived.refused - refused_before;
    let bytes: u64 = run.connections.iter().map(|connection| connection.bytes_in).sum();
    let answer: String = run.arrived.answer.iter().map(|byte| format!("{byte:02x}")).collect();
    println!(
        "{{\"requests\":{done},\"refused\":{refused},\"seconds\":{elapsed:.4},\"rps\":{:.1},\
         \"cpu\":{:.3},\"bytes_in\":{bytes},\"bodies\":{},\"first_answer\":\"{answer}\",{}}}",
        done as f64 / elapsed,
        (cpu_seconds() - cpu) / elapsed,
        run.bodies.count(),
        latencies.json()
    );
    Ok(())
}

fn main() {
    if let Err(message) = run() {
        eprintln!("loadgen: {message}");
        std::process::exit(1);
    }
}
