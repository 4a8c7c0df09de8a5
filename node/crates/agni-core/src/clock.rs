//! The one seam to time: everything in here that needs it is given a `Clock`, so that a simulator
//! can turn it.

/// Time as the engine sees it: one seam, so that a simulator can turn it.
pub trait Clock: Send + Sync {
    /// Time since boot, suspended time included, in microseconds.
    fn boot_us(&self) -> u64;
    /// Unix time in milliseconds: for people only.
    fn unix_ms(&self) -> i64;
}

/// CLOCK_BOOTTIME, which goes on while the machine is suspended (CLOCK_MONOTONIC does not), and
/// the wall clock for people.
pub struct SystemClock;

fn read_us(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to, and the clock ids used here always exist.
    let answer = unsafe { libc::clock_gettime(clock, &mut time) };
    assert_eq!(answer, 0, "clock {clock} must exist on Linux");
    time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1_000
}

impl Clock for SystemClock {
    fn boot_us(&self) -> u64 {
        read_us(libc::CLOCK_BOOTTIME)
    }

    fn unix_ms(&self) -> i64 {
        (read_us(libc::CLOCK_REALTIME) / 1000) as i64
    }
}
