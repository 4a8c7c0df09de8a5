//! Latencies, kept exactly: a run has a few million, and percentiles of buckets invite doubt.

/// Latencies of a run, in microseconds.
#[derive(Default)]
pub struct Latencies {
    values: Vec<u32>,
}

impl Latencies {
    /// Notes one.
    pub fn add(&mut self, micros: u64) {
        self.values.push(u32::try_from(micros).unwrap_or(u32::MAX));
    }

    /// Takes over what another thread or part noted.
    pub fn merge(&mut self, other: &Latencies) {
        self.values.extend_from_slice(&other.values);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.values.len()
    }

    /// `"p50_us":…,"p90_us":…,"p99_us":…,"p999_us":…,"max_us":…`, zero without any.
    pub fn json(&mut self) -> String {
        self.values.sort_unstable();
        let at = |permille: usize| {
            let index = self.values.len() * permille / 1000;
            self.values.get(index.min(self.values.len().saturating_sub(1))).copied().unwrap_or(0)
        };
        format!(
            "\"p50_us\":{},\"p90_us\":{},\"p99_us\":{},\"p999_us\":{},\"max_us\":{}",
            at(500),
            at(900),
            at(990),
            at(999),
            at(1000)
        )
    }
}
