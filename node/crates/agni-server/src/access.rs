//! What both protocols note of a request: its trace, its share of the metrics, the access log.

use crate::call::Call;
use crate::log::{self, Level};
use crate::node::Node;
use crate::status::{Code, code_word};
use http::header::{HeaderMap, HeaderValue};
use std::time::Instant;

/// What a request is called by those who trace it.
pub fn trace_of(headers: &HeaderMap) -> Option<(HeaderValue, String)> {
    let value = headers.get("traceparent")?;
    let trace = log::trace_id(value.to_str().ok()?)?.to_owned();
    Some((value.clone(), trace))
}

/// Counts a request that was answered, and logs it where that is wanted.
pub fn note(node: &Node, call: Call, code: Code, started: Instant, trace: Option<&str>) {
    let microseconds = started.elapsed().as_micros() as u64;
    node.metrics.call(call, code, microseconds);
    let internal = code == Code::Internal;
    if !node.config.access_log && !internal {
        return;
    }
    let level = if internal { Level::Error } else { Level::Info };
    let mut fields = vec![
        ("call", call.name().into()),
        ("code", code_word(code).into()),
        ("duration_us", microseconds.into()),
    ];
    if let Some(trace) = trace {
        fields.push(("trace_id", trace.into()));
    }
    log::write(level, "request", &fields);
}
