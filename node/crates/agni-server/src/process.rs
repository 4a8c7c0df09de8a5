//! What the system knows about this process. Linux tells it in files below `/proc`; elsewhere the
//! figures are zero.

/// Ticks of a second in `/proc/self/stat`: the same on every architecture of Linux.
const TICKS_PER_S: f64 = 100.0;

/// Figures of the process.
#[derive(Debug, Default)]
pub struct Figures {
    /// Processor time, in seconds.
    pub cpu_s: f64,
    /// Memory in RAM, in bytes.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Most that may be open; the largest number where there is no limit.
    pub fds_max: u64,
}

/// Looks at the process.
pub fn look() -> Figures {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}"));
    Figures {
        cpu_s: read("stat").ok().and_then(|text| cpu_s(&text)).unwrap_or(0.0),
        resident_bytes: read("status").ok().and_then(|text| resident_bytes(&text)).unwrap_or(0),
        open_fds: std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64),
        fds_max: read("limits").ok().and_then(|text| fds_max(&text)).unwrap_or(0),
    }
}

/// User and system time: the 14th and 15th field. The second may hold spaces, but ends with the
/// last parenthesis.
fn cpu_s(stat: &str) -> Option<f64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_S)
}

fn resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

fn fds_max(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_behind_a_name_with_spaces() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 3 0 99";
        assert_eq!(cpu_s(stat), Some(2.0));
        assert_eq!(cpu_s("7 (a"), None);
    }

    #[test]
    fn sizes_and_limits_are_found_in_their_lines() {
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t   12 kB\n"), Some(12 << 10));
        assert_eq!(fds_max("Max open files            1024   4096   files\n"), Some(1024));
        assert_eq!(
            fds_max("Max open files            unlimited  unlimited  files\n"),
            Some(u64::MAX)
        );
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_process_finds_itself() {
        let figures = look();
        assert!(figures.resident_bytes > 1 << 20, "{figures:?}");
        assert!(figures.open_fds > 2 && figures.fds_max >= figures.open_fds, "{figures:?}");
    }
}
