//! What both protocols note of a request: the trace it belongs to, and the access log.

use crate::call::Call;
use crate::log::{self, Level};
use crate::node::Node;
use crate::status::{Code, code_word};
use http::header::{HeaderMap, HeaderValue};

/// What a request is called by those who trace it.
pub fn trace_of(headers: &HeaderMap) -> Option<(HeaderValue, String)> {
    let value = headers.get("traceparent")?;
    let trace = log::trace_id(value.to_str().ok()?)?.to_owned();
    Some((value.clone(), trace))
}

/// Logs a request, where that is wanted.
pub fn access(node: &Node, call: Call, code: Code, microseconds: u64, trace: Option<&str>) {
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
