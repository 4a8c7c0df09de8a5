//! What both protocols note of a request: its trace, its share of the metrics, the access log.

use crate::call::Call;
use crate::limits;
use crate::log::{self, Level};
use crate::node::Node;
use crate::status::{Code, code_word};
use http::header::{HeaderMap, HeaderValue};
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

const PARENT: &str = "traceparent";
const STATE: &str = "tracestate";

tokio::task_local! {
    static TRACE: Option<Arc<Trace>>;
}

/// What a request is called by those who trace it (W3C Trace Context). A node makes no spans of its
/// own: it passes both headers on as they are.
pub struct Trace {
    parent: HeaderValue,
    state: Option<HeaderValue>,
    /// The trace's id.
    pub id: String,
    /// Whether its caller keeps it.
    sampled: bool,
}

impl Trace {
    /// That of a request.
    pub fn of(headers: &HeaderMap) -> Option<Arc<Trace>> {
        let parent = headers.get(PARENT)?;
        let text = parent.to_str().ok()?;
        let id = log::trace_id(text)?.to_owned();
        let flags = text.split('-').nth(3).and_then(|flags| u8::from_str_radix(flags, 16).ok());
        // Whoever passes it on need not take more.
        let state = headers.get(STATE).filter(|state| state.len() <= limits::TRACE_STATE_BYTES_MAX);
        Some(Arc::new(Trace {
            parent: parent.clone(),
            state: state.cloned(),
            id,
            sampled: flags.is_some_and(|flags| flags & 1 == 1),
        }))
    }

    /// Tells the caller.
    pub fn answer(&self, headers: &mut HeaderMap) {
        headers.insert(PARENT, self.parent.clone());
    }

    /// Passes it on.
    fn forward(&self, headers: &mut HeaderMap) {
        headers.insert(PARENT, self.parent.clone());
        if let Some(state) = &self.state {
            headers.insert(STATE, state.clone());
        }
    }
}

/// Does what a request asks for; what other nodes are asked meanwhile is part of its trace.
pub fn within<F: Future>(trace: Option<Arc<Trace>>, work: F) -> impl Future<Output = F::Output> {
    TRACE.scope(trace, work)
}

/// A question to another node, as part of the trace of the request that it is for.
pub fn traced<T>(question: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(question);
    // Nobody's request: what a node asks for itself.
    let _ = TRACE.try_with(|trace| {
        if let Some(trace) = trace {
            let mut headers = std::mem::take(request.metadata_mut()).into_headers();
            trace.forward(&mut headers);
            *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
        }
    });
    request
}

/// Whether a request failed by no fault of its caller.
fn is_ours(code: Code) -> bool {
    matches!(code, Code::Internal | Code::Unavailable | Code::DeadlineExceeded)
}

/// Counts a request that was answered, and logs it where that is wanted: one that somebody traces
/// also when the registry has failed it.
pub fn note(node: &Node, call: Call, code: Code, started: Instant, trace: Option<&Trace>) {
    let microseconds = started.elapsed().as_micros() as u64;
    node.metrics.call(call, code, microseconds);
    let is_traced = trace.is_some_and(|trace| trace.sampled);
    let level = match code {
        Code::Internal => Level::Error,
        code if is_traced && is_ours(code) => Level::Warn,
        _ if node.config.access_log => Level::Info,
        _ => return,
    };
    let mut fields = vec![
        ("call", call.name().into()),
        ("code", code_word(code).into()),
        ("duration_us", microseconds.into()),
    ];
    if let Some(trace) = trace {
        fields.push(("trace_id", trace.id.as_str().into()));
    }
    log::write(level, "request", &fields);
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE_PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(PARENT, HeaderValue::from_static(TRACE_PARENT));
        headers.insert(STATE, HeaderValue::from_static("vendor=some"));
        headers
    }

    #[tokio::test]
    async fn what_another_node_is_asked_is_part_of_the_trace() {
        let trace = Trace::of(&headers());
        assert!(trace.as_ref().is_some_and(|trace| trace.sampled));
        let asked = within(trace, async { traced(1) }).await;
        let value = |name| asked.metadata().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(value(PARENT), Some(TRACE_PARENT));
        assert_eq!(value(STATE), Some("vendor=some"));
    }

    #[tokio::test]
    async fn without_a_trace_there_is_nothing_to_pass_on() {
        for asked in [within(None, async { traced(1) }).await, traced(1)] {
            assert!(asked.metadata().is_empty());
        }
        let mut long = headers();
        let state = "x".repeat(limits::TRACE_STATE_BYTES_MAX + 1);
        long.insert(STATE, HeaderValue::from_str(&state).expect("header"));
        let asked = within(Trace::of(&long), async { traced(1) }).await;
        assert_eq!(asked.metadata().len(), 1);
    }
}
