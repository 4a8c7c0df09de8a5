//! Structured log lines: one JSON object a line on the standard error.

use serde_json::{Map, Value};
use std::io::Write as _;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{SystemTime, UNIX_EPOCH};

/// How important a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// For those who look for a fault.
    Debug = 0,
    /// What happens in the life of a node.
    Info = 1,
    /// What somebody should look at.
    Warn = 2,
    /// What somebody must look at.
    Error = 3,
    /// Nothing is this important.
    Off = 4,
}

static LEAST: AtomicU8 = AtomicU8::new(Level::Info as u8);

impl Level {
    /// The level with this name.
    pub fn parse(name: &str) -> Option<Level> {
        Some(match name {
            "debug" => Level::Debug,
            "info" => Level::Info,
            "warn" | "warning" => Level::Warn,
            "error" => Level::Error,
            "off" => Level::Off,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Info => "info",
            Level::Warn => "warn",
            Level::Error => "error",
            Level::Off => "off",
        }
    }
}

/// Sets the least level that is written, for the whole process.
pub fn set_level(level: Level) {
    LEAST.store(level as u8, Relaxed);
}

/// Whether lines of this level are written.
pub fn enabled(level: Level) -> bool {
    level as u8 >= LEAST.load(Relaxed) && level != Level::Off
}

/// Writes one line with fields. A log that can't be written is nobody's reason to fail.
pub fn write(level: Level, message: &str, fields: &[(&str, Value)]) {
    if !enabled(level) {
        return;
    }
    let mut line = Map::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    line.insert("ts".into(), timestamp(now.as_millis() as u64).into());
    line.insert("level".into(), level.word().into());
    line.insert("msg".into(), message.into());
    for (name, value) in fields {
        line.insert((*name).to_owned(), value.clone());
    }
    let mut text = Value::Object(line).to_string();
    text.push('\n');
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// RFC 3339 in UTC with milliseconds. Days to a date after Howard Hinnant's `civil_from_days`.
fn timestamp(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// The trace id of a W3C `traceparent`, if it is one.
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, trace, span, _flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |text: &str, len| text.len() == len && text.bytes().all(|b| b.is_ascii_hexdigit());
    let given = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16);
    (given && trace.bytes().any(|b| b != b'0')).then_some(trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_rfc_3339() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(timestamp(1_795_443_408_007), "2026-11-23T14:16:48.007Z");
    }

    #[test]
    fn only_a_whole_traceparent_has_a_trace_id() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(trace_id(&format!("00-{trace}-00f067aa0ba902b7-01")), Some(trace));
        for bad in
            ["", "00", "00-x-y-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"]
        {
            assert_eq!(trace_id(bad), None, "{bad}");
        }
    }
}
