//! What happens when Rust panics inside a Python process: one JSON line, and no half-dead node.

use std::panic::PanicHookInfo;
use std::sync::Once;

/// Threads without which a node would answer from a state that nobody keeps.
const VITAL_THREADS: [&str; 5] =
    ["agni-driver", "agni-log", "agni-snapshot", "agni-log-spare", "agni-peer"];

static INSTALLED: Once = Once::new();

/// Installs the hook, once a process. Panics of foreign threads go where they went before.
pub fn install() {
    INSTALLED.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            match thread.name() {
                Some(name) if name.starts_with("agni-") => tell(name, info),
                _ => before(info),
            }
        }));
    });
}

fn tell(thread: &str, info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let vital = VITAL_THREADS.contains(&thread);
    let level = if vital { "fatal" } else { "error" };
    // Debug formatting of a string escapes what JSON must have escaped.
    eprintln!(
        "{{\"level\":\"{level}\",\"msg\":\"a thread panicked\",\"thread\":{thread:?},\
         \"error\":{text:?},\"at\":{place:?}}}"
    );
    if vital {
        std::process::abort();
    }
}
