//! A refusal and how it looks on the wire: gRPC status with `google.rpc.ErrorInfo` and
//! `RetryInfo`, or an HTTP status with a JSON object. Reasons are stable; `docs/api.md` has them.

use crate::body::Body;
use agni_core::proto::api;
use agni_core::raft::work::Refuse;
use agni_core::store::Refusal;
use agni_core::system::SystemRefusal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use prost::Message;
use std::borrow::Cow;
use std::collections::BTreeMap;
pub use tonic::Code;

/// The domain of every `google.rpc.ErrorInfo` of ours.
pub const DOMAIN: &str = "agniregistry";
/// Delay that a node with a full disk asks for, in milliseconds.
const DISK_FULL_RETRY_MS: u64 = agni_core::limits::DISK_FULL_CLIENT_RETRY_MS;
/// Delay that a server at one of its limits asks for, in milliseconds.
const OVERLOAD_RETRY_MS: u64 = 1_000;
/// Delay after which a record that has run out is gone, in milliseconds.
const EXPIRING_RETRY_MS: u64 = 100;
/// Bytes that must be escaped in `grpc-message`.
const MESSAGE_ESCAPES: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'?')
    .add(b'{')
    .add(b'}')
    .add(b'%');

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
/// The content type of every gRPC answer.
pub const GRPC_CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.rpc.ErrorInfo`.
#[derive(Clone, PartialEq, Message)]
struct ErrorInfo {
    #[prost(string, tag = "1")]
    reason: String,
    #[prost(string, tag = "2")]
    domain: String,
    #[prost(btree_map = "string, string", tag = "3")]
    metadata: BTreeMap<String, String>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Duration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Duration>,
}

/// Why a request was refused.
#[derive(Debug, Clone)]
pub struct RpcError {
    /// The gRPC status.
    pub code: Code,
    /// The stable reason.
    pub reason: &'static str,
    /// What is wrong, where, and what to do.
    pub message: Cow<'static, str>,
    /// The field at fault and other details.
    pub metadata: BTreeMap<String, String>,
    /// When to try again, in milliseconds.
    pub retry_ms: Option<u64>,
}

impl RpcError {
    /// A refusal without details.
    pub fn new(code: Code, reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        RpcError {
            code,
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
            retry_ms: None,
        }
    }

    /// A field that can't be used.
    pub fn field(field: impl Into<String>, message: impl std::fmt::Display) -> Self {
        let field = field.into();
        let text = format!("{field} {message}");
        RpcError::new(Code::InvalidArgument, "INVALID_FIELD", text).with("field", field)
    }

    /// A token that can't be used.
    pub fn token(field: &'static str, reason: &'static str, message: &'static str) -> Self {
        RpcError::new(Code::InvalidArgument, reason, message).with("field", field)
    }

    /// A message above the limit.
    pub fn too_large(limit: usize) -> Self {
        let text = format!("message exceeds {limit} bytes, send less at once");
        RpcError::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", text)
            .with("limit_bytes", limit.to_string())
    }

    /// Something that this server doesn't do.
    pub fn unimplemented(message: impl Into<Cow<'static, str>>) -> Self {
        RpcError::new(Code::Unimplemented, "UNIMPLEMENTED", message)
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.metadata.insert(key.to_owned(), value.into());
        self
    }

    fn retry(mut self, milliseconds: u64) -> Self {
        self.retry_ms = Some(milliseconds);
        self
    }

    /// What the engine refused.
    pub fn refused(refuse: Refuse) -> Self {
        match refuse {
            Refuse::Overloaded { retry_ms } => RpcError::new(
                Code::ResourceExhausted,
                "OVERLOADED",
                "too many requests are waiting, try again after the given delay",
            )
            .retry(retry_ms),
            Refuse::DiskFull => RpcError::new(
                Code::ResourceExhausted,
                "DISK_FULL",
                "the node's disk is full: reads and renewals go on, writes must wait for space",
            )
            .retry(DISK_FULL_RETRY_MS),
            Refuse::NotLeader { leader } => RpcError::new(
                Code::Unavailable,
                "NOT_LEADER",
                "another node leads this partition, ask that one",
            )
            .with("leader_id", leader.to_string()),
            Refuse::Unknown { leader } => {
                RpcError::outcome_unknown().with("leader_id", leader.to_string())
            }
            Refuse::ShuttingDown => RpcError::shutting_down(),
            Refuse::NotVoter => RpcError::field("to", "must be another voter of the partition"),
            Refuse::Unfit => RpcError::new(
                Code::FailedPrecondition,
                "UNFIT_TO_LEAD",
                "that node's disk is full or slow: it may lead again once it isn't",
            ),
            Refuse::NotReady | Refuse::RoundNeeded => {
                RpcError::new(Code::Unavailable, "NOT_READY", "the node is still catching up")
            }
            Refuse::StalenessExceeded => RpcError::new(
                Code::Unavailable,
                "STALENESS_EXCEEDED",
                "what this node has is older than max_staleness_ms allows",
            ),
        }
    }

    /// A write that was on its way when its leader was lost.
    pub fn outcome_unknown() -> Self {
        RpcError::new(
            Code::Unavailable,
            "OUTCOME_UNKNOWN",
            "the partition's leader was lost on the way: the write may have been done, or may yet \
             be; repeat it where that does no harm, else read first",
        )
    }

    /// Nobody leads a partition, as far as this node can find out.
    pub fn no_leader(partition: u32, waited_ms: u64) -> Self {
        let text = format!(
            "partition {partition} had no leader that this node can reach for {waited_ms} ms: a \
             majority of its replicas is needed"
        );
        RpcError::new(Code::Unavailable, "NO_LEADER", text).with("partition", partition.to_string())
    }

    /// A limit of this server is reached.
    pub fn overloaded(message: impl Into<Cow<'static, str>>) -> Self {
        RpcError::new(Code::ResourceExhausted, "OVERLOADED", message).retry(OVERLOAD_RETRY_MS)
    }

    /// The node stops.
    pub fn shutting_down() -> Self {
        RpcError::new(Code::Unavailable, "SHUTTING_DOWN", "the node is stopping, ask another one")
    }

    /// A request that doesn't arrive.
    pub fn too_slow() -> Self {
        let message = "the request didn't arrive in time";
        RpcError::new(Code::DeadlineExceeded, "REQUEST_TOO_SLOW", message)
    }

    /// There is no such record.
    pub fn not_found(key: &api::Key) -> Self {
        let text =
            format!("no {} {:?} in namespace {:?}", kind_word(key.kind), key.name, key.namespace);
        RpcError::new(Code::NotFound, "NOT_FOUND", text)
    }

    /// What the store refused, at apply.
    pub fn refusal(refusal: Refusal, key: &api::Key) -> Self {
        match refusal {
            Refusal::NotFound => RpcError::not_found(key),
            Refusal::StaleIncarnation { stored } => RpcError::new(
                Code::FailedPrecondition,
                "STALE_INCARNATION",
                format!(
                    "incarnation is lower than the stored {stored}: a newer owner has registered"
                ),
            )
            .with("field", "incarnation")
            .with("stored_incarnation", stored.to_string()),
            Refusal::RevisionMismatch { expected, stored } => RpcError::new(
                Code::FailedPrecondition,
                "REVISION_MISMATCH",
                format!("expected_revision is {expected} but {stored} is stored, read again"),
            )
            .with("field", "expected_revision")
            .with("expected_revision", expected.to_string())
            .with("stored_revision", stored.to_string()),
            Refusal::AlreadyExists { stored } => RpcError::new(
                Code::AlreadyExists,
                "ALREADY_EXISTS",
                format!("expected_revision 0 asks for a new record, but it exists at {stored}"),
            )
            .with("field", "expected_revision")
            .with("stored_revision", stored.to_string()),
            Refusal::Expiring => RpcError::new(
                Code::Unavailable,
                "EXPIRING",
                "the record has run out and is being removed, try again in a moment",
            )
            .retry(EXPIRING_RETRY_MS),
            Refusal::InvalidSpec { field, message } => RpcError::field(field, message),
            Refusal::System(refusal) => RpcError::system(refusal),
        }
    }

    /// What the system group refused, at apply.
    pub fn system(refusal: SystemRefusal) -> Self {
        let code = match refusal.reason {
            "INVALID_FIELD" => Code::InvalidArgument,
            "NOT_FOUND" => Code::NotFound,
            _ => Code::FailedPrecondition,
        };
        RpcError::new(code, refusal.reason, refusal.message)
    }

    /// As one result of a batch.
    pub fn write_error(self) -> api::WriteError {
        api::WriteError {
            code: self.code as i32,
            reason: self.reason.to_owned(),
            message: self.message.into_owned(),
            metadata: self.metadata,
            retry_delay_ms: self.retry_ms.unwrap_or(0) as i64,
        }
    }

    fn details(&self) -> Vec<u8> {
        let info = ErrorInfo {
            reason: self.reason.to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: self.metadata.clone(),
        };
        let mut details = vec![Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
            value: info.encode_to_vec(),
        }];
        if let Some(ms) = self.retry_ms {
            let delay =
                Duration { seconds: (ms / 1000) as i64, nanos: (ms % 1000) as i32 * 1_000_000 };
            details.push(Any {
                type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
                value: RetryInfo { retry_delay: Some(delay) }.encode_to_vec(),
            });
        }
        let message = self.message.to_string();
        RpcStatus { code: self.code as i32, message, details }.encode_to_vec()
    }

    /// Writes status, message and details into headers or trailers.
    pub fn put(&self, headers: &mut HeaderMap) {
        headers.insert(GRPC_STATUS, HeaderValue::from(self.code as i32));
        let message = utf8_percent_encode(&self.message, MESSAGE_ESCAPES).to_string();
        if let Ok(value) = HeaderValue::from_str(&message) {
            headers.insert(GRPC_MESSAGE, value);
        }
        if let Ok(value) = HeaderValue::from_str(&STANDARD_NO_PAD.encode(self.details())) {
            headers.insert(GRPC_DETAILS, value);
        }
    }

    /// As a gRPC answer that has nothing but a status.
    pub fn response(&self) -> Response<Body> {
        let mut response = Response::new(Body::Empty);
        response.headers_mut().insert(http::header::CONTENT_TYPE, GRPC_CONTENT_TYPE);
        self.put(response.headers_mut());
        response
    }

    /// The HTTP status that says the same.
    pub fn http_status(&self) -> StatusCode {
        match (self.code, self.reason) {
            (_, "MESSAGE_TOO_LARGE") => StatusCode::PAYLOAD_TOO_LARGE,
            (_, "DISK_FULL") => StatusCode::INSUFFICIENT_STORAGE,
            (_, "PAGE_TOKEN_EXPIRED") => StatusCode::GONE,
            (_, "METHOD_NOT_ALLOWED") => StatusCode::METHOD_NOT_ALLOWED,
            (_, "UNSUPPORTED_MEDIA_TYPE") => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            (Code::InvalidArgument | Code::OutOfRange, _) => StatusCode::BAD_REQUEST,
            (Code::NotFound, _) => StatusCode::NOT_FOUND,
            (Code::AlreadyExists | Code::FailedPrecondition, _) => StatusCode::CONFLICT,
            (Code::ResourceExhausted, _) => StatusCode::TOO_MANY_REQUESTS,
            (Code::PermissionDenied, _) => StatusCode::FORBIDDEN,
            (Code::Unimplemented, _) => StatusCode::NOT_IMPLEMENTED,
            (Code::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
            (Code::DeadlineExceeded, _) => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The JSON body that says the same.
    pub fn json(&self) -> serde_json::Value {
        let mut error = serde_json::json!({
            "code": code_word(self.code),
            "reason": self.reason,
            "message": self.message,
            "metadata": self.metadata,
        });
        if let Some(field) = self.metadata.get("field") {
            error["field"] = field.as_str().into();
        }
        if let Some(ms) = self.retry_ms {
            error["retry_delay_ms"] = ms.into();
        }
        serde_json::json!({ "error": error })
    }
}

impl From<agni_core::validate::FieldError> for RpcError {
    fn from(error: agni_core::validate::FieldError) -> Self {
        RpcError::field(error.field, error.message)
    }
}

/// Trailers of an answer that went well.
pub fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

/// A kind as people read it.
pub fn kind_word(kind: i32) -> &'static str {
    match api::Kind::try_from(kind) {
        Ok(api::Kind::Gateway) => "gateway",
        Ok(api::Kind::Agent) => "agent",
        _ => "record",
    }
}

/// A status code as gRPC writes it.
pub fn code_word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
