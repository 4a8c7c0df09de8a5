//! Which paths there are, and which call each means.

use crate::call::Call;
use crate::http::query::decode;
use crate::http::words::kind_of_path;
use crate::status::RpcError;
use agni_core::proto::api::Kind;
use http::Method;

/// What a path means.
pub enum Route {
    Records(Kind),
    Record(Kind, String),
    Renew,
    Batch,
    Discover,
    Watch,
    Status,
    Routing,
    Members,
    Snapshots,
    OpenApi,
    Healthy,
    Ready,
    Metrics,
}

impl Route {
    /// The route of a path, if there is one.
    pub fn of(path: &str) -> Result<Option<Route>, RpcError> {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        Ok(Some(match parts[..] {
            ["v1", "leases", "renew"] => Route::Renew,
            ["v1", "batch"] => Route::Batch,
            ["v1", "discover"] => Route::Discover,
            ["v1", "watch"] => Route::Watch,
            ["v1", "status"] => Route::Status,
            ["v1", "routing"] => Route::Routing,
            ["v1", "members"] => Route::Members,
            ["v1", "snapshots"] => Route::Snapshots,
            ["v1", records] => match kind_of_path(records) {
                Some(kind) => Route::Records(kind),
                None => return Ok(None),
            },
            ["v1", records, name] if !name.is_empty() => match kind_of_path(records) {
                Some(kind) => Route::Record(kind, decode("name", name)?),
                None => return Ok(None),
            },
            ["openapi.json"] => Route::OpenApi,
            ["healthz"] => Route::Healthy,
            ["readyz"] => Route::Ready,
            ["metrics"] => Route::Metrics,
            _ => return Ok(None),
        }))
    }

    /// The methods that it takes.
    pub fn methods(&self) -> &'static [Method] {
        match self {
            Route::Records(_) => &[Method::GET, Method::POST],
            Route::Record(..) => &[Method::GET, Method::PATCH, Method::DELETE],
            Route::Renew | Route::Batch | Route::Snapshots => &[Method::POST],
            _ => &[Method::GET],
        }
    }

    /// The call that it is, for the metrics.
    pub fn call(&self, method: &Method) -> Call {
        match (self, method) {
            (Route::Records(_), &Method::POST) => Call::Register,
            (Route::Records(_), _) => Call::List,
            (Route::Record(..), &Method::PATCH) => Call::Update,
            (Route::Record(..), &Method::DELETE) => Call::Deregister,
            (Route::Record(..), _) => Call::Get,
            (Route::Renew, _) => Call::Renew,
            (Route::Batch, _) => Call::Batch,
            (Route::Discover, _) => Call::Discover,
            (Route::Watch, _) => Call::Watch,
            (Route::Status, _) => Call::Status,
            (Route::Routing, _) => Call::Routing,
            (Route::Members, _) => Call::Members,
            (Route::Snapshots, _) => Call::Snapshot,
            _ => Call::Other,
        }
    }
}
