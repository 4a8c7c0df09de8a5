//! Keeps streams of bytes below a rate.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// A rate that whoever shares it keeps together.
pub struct Pace {
    bytes_per_s: u64,
    next_free: Mutex<Instant>,
}

impl Pace {
    /// So many bytes a second.
    pub fn new(bytes_per_s: u64) -> Self {
        Pace { bytes_per_s: bytes_per_s.max(1), next_free: Mutex::new(Instant::now()) }
    }

    /// Waits until so many bytes may go.
    pub async fn wait(&self, bytes: usize) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_s as f64);
        let begins = {
            let mut next_free = self.next_free.lock();
            let begins = (*next_free).max(Instant::now());
            *next_free = begins + takes;
            begins
        };
        tokio::time::sleep_until(begins.into()).await;
    }
}
