//! The engine's own last words: one JSON line on standard error, in the form of the server's log.

/// Says why and ends the process at once.
pub fn abort(message: &str, error: &dyn std::fmt::Display) -> ! {
    line("fatal", message, error);
    std::process::abort()
}

/// Says what somebody must look at.
pub fn error(message: &str, error: &dyn std::fmt::Display) {
    line("error", message, error);
}

/// Says what went wrong without harm.
pub fn warn(message: &str, error: &dyn std::fmt::Display) {
    line("warn", message, error);
}

fn line(level: &str, message: &str, error: &dyn std::fmt::Display) {
    // Debug formatting of a string escapes what JSON must have escaped.
    eprintln!("{{\"level\":\"{level}\",\"msg\":{message:?},\"error\":{:?}}}", error.to_string());
}

/// A panic on an engine thread must end the process: a registry that goes on without its driver
/// or its log would answer from a state that nobody keeps.
pub struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}
