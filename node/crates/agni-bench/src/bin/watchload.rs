//! Many watchers and one writer on one clock: does everyone get each event, once, in order, soon?
//!
//! `--address host:port --watchers N --connections C --rate R --seconds N --bodies FILE
//! [--deaf N: so many watchers more, that never read]`. The bodies are `RegisterRequest`s that end
//! with eight bytes of payload; nobody else may write meanwhile. Prints JSON.

use agni_bench::args::Args;
use agni_bench::bodies::Bodies;
use agni_bench::connection::{Connection, Handler, StreamEnd};
use agni_bench::histogram::Latencies;
use agni_bench::message::{Fields, Value, nested};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// `WatchPhase` values.
const CREATED: u64 = 1;
const GAP: u64 = 4;
/// Partitions that a cluster may have.
const PARTITIONS_MAX: usize = 1024;
/// A watch of all gateways, with progress messages far apart: `filter {kind: GATEWAY}`.
const WATCH: [u8; 8] = [0x0a, 0x02, 0x08, 0x01, 0x28, 0xc0, 0xcf, 0x24];
/// Watchers that never read share connections, as many streams as any server allows.
const DEAF_OF_A_CONNECTION: usize = 50;
/// How long the last events may take before they count as missing.
const PATIENCE: Duration = Duration::from_secs(20);

struct Watcher {
    created: bool,
    events: u64,
    last_revision: Vec<u64>,
}

/// What all watchers saw.
struct Seen {
    watchers: Vec<Watcher>,
    sent_at: Vec<Instant>,
    latencies: Latencies,
    created: usize,
    messages: u64,
    out_of_order: u64,
    gaps: u64,
    ended: u64,
    failure: Option<String>,
}

impl Seen {
    fn event(&mut self, slot: usize, event: &[u8], now: Instant) {
        let (mut revision, mut partition, mut record) = (0, 0usize, &[][..]);
        for (field, value) in Fields(event) {
            match (field, value) {
                (2, Value::Number(number)) => revision = number,
                (3, Value::Number(number)) => partition = number as usize,
                (5, Value::Bytes(bytes)) => record = bytes,
                _ => {}
            }
        }
        let payload = nested(record, &[2, 10]);
        let Ok(number) = <[u8; 8]>::try_from(payload).map(u64::from_be_bytes) else {
            self.failure = Some(format!("an event without our payload: {event:02x?}"));
            return;
        };
        let watcher = &mut self.watchers[slot];
        watcher.events += 1;
        let last = &mut watcher.last_revision[partition.min(PARTITIONS_MAX - 1)];
        if *last != 0 && revision != *last + 1 {
            self.out_of_order += 1;
        }
        *last = revision;
        if let Some(sent) = (number as usize).checked_sub(1).and_then(|at| self.sent_at.get(at)) {
            self.latencies.add(now.duration_since(*sent).as_micros() as u64);
        }
    }
}

impl Handler for Seen {
    fn message(&mut self, slot: usize, message: &[u8]) {
        self.messages += 1;
        let now = Instant::now();
        for (field, value) in Fields(message) {
            match (field, value) {
                (1, Value::Number(CREATED)) if !self.watchers[slot].created => {
                    self.watchers[slot].created = true;
                    self.created += 1;
                }
                (1, Value::Number(GAP)) => self.gaps += 1,
                (2, Value::Bytes(event)) => self.event(slot, event, now),
                _ => {}
            }
        }
    }

    fn ended(&mut self, _: usize, _: StreamEnd) {
        self.ended += 1;
    }
}

/// The writer's answers.
#[derive(Default)]
struct Acknowledged {
    count: u64,
    refused: u64,
}

impl Handler for Acknowledged {
    fn message(&mut self, _: usize, _: &[u8]) {
        self.count += 1;
    }

    fn ended(&mut self, _: usize, end: StreamEnd) {
        self.refused += u64::from(end != StreamEnd::Answered);
    }
}

struct Run {
    /// The watchers' connections, and the writer's as the last.
    connections: Vec<Connection>,
    seen: Seen,
    acknowledged: Acknowledged,
}

impl Run {
    fn open(args: &Args) -> Result<Run, String> {
        let address: String = args.need("address")?;
        let (count, watchers) = (args.or("connections", 8usize)?, args.need::<usize>("watchers")?);
        let service = "/agniregistry.api.v1.RegistryService/";
        let message = [&[0, 0, 0, 0, WATCH.len() as u8][..], &WATCH].concat();
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(Connection::open(&address, &format!("{service}Watch"))?);
        }
        for slot in 0..watchers {
            connections[slot % count].start(slot, &message, true);
        }
        let deaf: usize = args.or("deaf", 0)?;
        for first in (0..deaf).step_by(DEAF_OF_A_CONNECTION) {
            let mut connection = Connection::open(&address, &format!("{service}Watch"))?;
            for slot in 0..DEAF_OF_A_CONNECTION.min(deaf - first) {
                connection.start(slot, &message, true);
            }
            connection.flush()?;
            connection.paused = true;
            connections.push(connection);
        }
        connections.push(Connection::open(&address, &format!("{service}Register"))?);
        let new = || Watcher { created: false, events: 0, last_revision: vec![0; PARTITIONS_MAX] };
        let seen = Seen {
            watchers: (0..watchers).map(|_| new()).collect(),
            sent_at: Vec::new(),
            latencies: Latencies::default(),
            created: 0,
            messages: 0,
            out_of_order: 0,
            gaps: 0,
            ended: 0,
            failure: None,
        };
        Ok(Run { connections, seen, acknowledged: Acknowledged::default() })
    }

    fn turn(&mut self, timeout_ms: i32) -> Result<(), String> {
        for connection in &mut self.connections {
            connection.flush()?;
        }
        agni_bench::poll::wait(&self.connections, timeout_ms)?;
        let (writer, watching) = self.connections.split_last_mut().ok_or("no connection")?;
        writer.read(&mut self.acknowledged)?;
        for connection in watching {
            connection.read(&mut self.seen)?;
        }
        match self.seen.failure.take() {
            Some(message) => Err(message),
            None => Ok(()),
        }
    }

    fn until(&mut self, mut done: impl FnMut(&Run) -> bool) -> Result<bool, String> {
        let start = Instant::now();
        while !done(self) {
            if start.elapsed() > PATIENCE {
                return Ok(false);
            }
            self.turn(20)?;
        }
        Ok(true)
    }

    fn write(&mut self, bodies: &mut Bodies, rate: f64, total: u64) -> Result<(), String> {
        let start = Instant::now();
        while (self.seen.sent_at.len() as u64) < total {
            let due = (start.elapsed().as_secs_f64() * rate) as u64 + 1;
            while (self.seen.sent_at.len() as u64) < due.min(total) {
                self.seen.sent_at.push(Instant::now());
                if let Some(writer) = self.connections.last_mut() {
                    writer.start(0, bodies.take(), true);
                }
            }
            self.turn(1)?;
        }
        Ok(())
    }
}

fn run() -> Result<(), String> {
    let args = Args::of_process()?;
    let (rate, seconds): (f64, f64) = (args.or("rate", 1000.0)?, args.or("seconds", 5.0)?);
    let total = (rate * seconds) as u64;
    let mut bodies = Bodies::read(&args.need::<PathBuf>("bodies")?, 8, 0)?;
    let mut run = Run::open(&args)?;
    let watchers = run.seen.watchers.len();
    if !run.until(|run| run.seen.created == watchers)? {
        return Err(format!("only {} of {watchers} watches were created", run.seen.created));
    }
    let start = Instant::now();
    run.write(&mut bodies, rate, total)?;
    let wrote = start.elapsed().as_secs_f64();
    let wanted = total * watchers as u64;
    let sum = |run: &Run| run.seen.watchers.iter().map(|watcher| watcher.events).sum::<u64>();
    let complete = run.until(|run| run.acknowledged.count >= total && sum(run) >= wanted)?;
    let elapsed = start.elapsed().as_secs_f64();
    // A duplicate would come after the last event: one more look.
    run.turn(200)?;
    let unequal = run.seen.watchers.iter().filter(|watcher| watcher.events != total).count();
    println!(
        "{{\"watchers\":{watchers},\"writes\":{},\"refused\":{},\"write_seconds\":{wrote:.3},\
         \"seconds\":{elapsed:.3},\"events\":{},\"messages\":{},\"complete\":{complete},\
         \"unequal\":{unequal},\"out_of_order\":{},\"gaps\":{},\"ended\":{},{}}}",
        run.acknowledged.count,
        run.acknowledged.refused,
        sum(&run),
        run.seen.messages,
        run.seen.out_of_order,
        run.seen.gaps,
        run.seen.ended,
        run.seen.latencies.json()
    );
    Ok(())
}

fn main() {
    if let Err(message) = run() {
        eprintln!("watchload: {message}");
        std::process::exit(1);
    }
}
