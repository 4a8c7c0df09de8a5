//! JSON bodies of requests, read strictly into messages: keys are the field names of the protos,
//! enums are short words, lease ids are text, a record's spec lies flat beside its name.

use crate::http::words::{base64, kind_of_word};
use crate::status::RpcError;
use agni_core::proto::api::{self, Kind};
use bytes::Bytes;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Reads a JSON body; errors name the field.
pub fn body<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, RpcError> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let message = error.inner().to_string();
        // What isn't known or comes twice is named in the message, not in the path.
        let named = ["unknown field `", "missing field `", "duplicate field `"]
            .iter()
            .find_map(|start| message.strip_prefix(start)?.split_once('`').map(|(name, _)| name));
        let field = match (&*path, named) {
            ("." | "?", Some(name)) => name.to_owned(),
            (path, Some(name)) if !path.ends_with(name) => format!("{path}.{name}"),
            ("." | "?", None) => "body".to_owned(),
            (path, _) => path.to_owned(),
        };
        RpcError::field(field, format!("can't be read: {message}"))
    })?;
    reader.end().map_err(|error| RpcError::field("body", format!("goes on: {error}")))?;
    Ok(value)
}

/// An amount of each resource.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapacityBody {
    #[serde(default)]
    cpu: f64,
    #[serde(default)]
    bandwidth: f64,
    #[serde(default)]
    memory: f64,
    #[serde(default)]
    storage: f64,
}

impl From<CapacityBody> for api::Capacity {
    fn from(body: CapacityBody) -> Self {
        let CapacityBody { cpu, bandwidth, memory, storage } = body;
        api::Capacity { cpu, bandwidth, memory, storage }
    }
}

/// What a write of any kind may say; which parts it must or may not is checked afterwards.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WriteBody {
    kind: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    region: Option<String>,
    ip: Option<String>,
    gateway_ip: Option<String>,
    domain: Option<String>,
    gateway_domain: Option<String>,
    port: Option<u32>,
    gateway_port: Option<u32>,
    capacity: Option<CapacityBody>,
    labels: Option<BTreeMap<String, String>>,
    owner: Option<String>,
    gateway: Option<String>,
    public_key: Option<String>,
    payload: Option<String>,
    ttl_ms: Option<i64>,
    incarnation: Option<u64>,
    expected_revision: Option<u64>,
    update_mask: Option<Vec<String>>,
    drain_ms: Option<i64>,
    successor: Option<String>,
}

fn either<T>(plain: Option<T>, long: Option<T>, name: &str) -> Result<Option<T>, RpcError> {
    match (plain, long) {
        (Some(_), Some(_)) => {
            Err(RpcError::field(name, format!("and gateway_{name} are both given, give one")))
        }
        (plain, long) => Ok(plain.or(long)),
    }
}

fn foreign<T>(value: &Option<T>, field: &str) -> Result<(), RpcError> {
    match value {
        Some(_) => Err(RpcError::field(field, "is no field of this request")),
        None => Ok(()),
    }
}

impl WriteBody {
    /// Takes the key; what the path says must not be said again in another way.
    fn key(&mut self, kind: Option<Kind>, name: Option<String>) -> Result<api::Key, RpcError> {
        let written = match self.kind.take() {
            Some(word) => Some(kind_of_word("kind", &word)?),
            None => None,
        };
        let kind = match (kind, written) {
            (Some(kind), Some(written)) if kind != written => {
                return Err(RpcError::field("kind", "doesn't fit the path"));
            }
            (kind, written) => kind.or(written),
        };
        let kind = kind.ok_or_else(|| RpcError::field("kind", "must be gateway or agent"))?;
        let name = match (name, self.name.take()) {
            (Some(name), Some(written)) if name != written => {
                return Err(RpcError::field("name", "doesn't fit the path"));
            }
            (name, written) => name.or(written).unwrap_or_default(),
        };
        let namespace = self.namespace.take().unwrap_or_default();
        Ok(api::Key { namespace, kind: kind as i32, name })
    }

    /// Takes the spec and says which of its fields were given.
    fn spec(&mut self, kind: i32) -> Result<(api::Spec, Vec<String>), RpcError> {
        if kind != Kind::Gateway as i32 {
            foreign(&self.gateway_ip, "gateway_ip")?;
            foreign(&self.gateway_domain, "gateway_domain")?;
            foreign(&self.gateway_port, "gateway_port")?;
        }
        let port = either(self.port, self.gateway_port, "port")?;
        if port == Some(0) {
            let field = if self.port.is_some() { "port" } else { "gateway_port" };
            return Err(RpcError::field(field, "must be 1..65535"));
        }
        let ip = either(self.ip.take(), self.gateway_ip.take(), "ip")?;
        let domain = either(self.domain.take(), self.gateway_domain.take(), "domain")?;
        let bytes = |field, text: &Option<String>| {
            text.as_ref().map(|text| base64(field, text).map(Bytes::from)).transpose()
        };
        let public_key = bytes("public_key", &self.public_key)?;
        let payload = bytes("payload", &self.payload)?;
        let given = [
            ("region", self.region.is_some()),
            ("ip", ip.is_some()),
            ("domain", domain.is_some()),
            ("port", port.is_some()),
            ("capacity", self.capacity.is_some()),
            ("labels", self.labels.is_some()),
            ("owner", self.owner.is_some()),
            ("gateway", self.gateway.is_some()),
            ("public_key", public_key.is_some()),
            ("payload", payload.is_some()),
        ];
        let given = given.iter().filter(|(_, given)| *given).map(|(name, _)| (*name).to_owned());
        let spec = api::Spec {
            region: self.region.take().unwrap_or_default(),
            ip: ip.unwrap_or_default(),
            domain: domain.unwrap_or_default(),
            port: port.unwrap_or_default(),
            capacity: self.capacity.take().map(api::Capacity::from),
            labels: self.labels.take().unwrap_or_default(),
            owner: self.owner.take().unwrap_or_default(),
            gateway: self.gateway.take().unwrap_or_default(),
            public_key: public_key.unwrap_or_default(),
            payload: payload.unwrap_or_default(),
        };
        Ok((spec, given.collect()))
    }

    /// As a registration.
    pub fn register(mut self, kind: Option<Kind>) -> Result<api::RegisterRequest, RpcError> {
        foreign(&self.update_mask, "update_mask")?;
        foreign(&self.drain_ms, "drain_ms")?;
        foreign(&self.successor, "successor")?;
        let key = self.key(kind, None)?;
        let (spec, _) = self.spec(key.kind)?;
        Ok(api::RegisterRequest {
            key: Some(key),
            spec: Some(spec),
            ttl_ms: self.ttl_ms.unwrap_or_default(),
            incarnation: self.incarnation.unwrap_or_default(),
            expected_revision: self.expected_revision,
        })
    }

    /// As an update of the fields that are given, or of those that a mask names.
    pub fn update(
        mut self,
        kind: Option<Kind>,
        name: Option<String>,
    ) -> Result<api::UpdateRequest, RpcError> {
        foreign(&self.ttl_ms, "ttl_ms")?;
        foreign(&self.drain_ms, "drain_ms")?;
        foreign(&self.successor, "successor")?;
        let key = self.key(kind, name)?;
        let (spec, given) = self.spec(key.kind)?;
        let paths = self.update_mask.take().unwrap_or(given);
        Ok(api::UpdateRequest {
            key: Some(key),
            spec: Some(spec),
            update_mask: Some(prost_types::FieldMask { paths }),
            incarnation: self.incarnation.unwrap_or_default(),
            expected_revision: self.expected_revision,
        })
    }

    /// As a removal.
    pub fn deregister(mut self) -> Result<api::DeregisterRequest, RpcError> {
        foreign(&self.ttl_ms, "ttl_ms")?;
        foreign(&self.update_mask, "update_mask")?;
        let key = self.key(None, None)?;
        let (_, given) = self.spec(key.kind)?;
        if let Some(field) = given.first() {
            return Err(RpcError::field(field.clone(), "is no field of a deregistration"));
        }
        Ok(api::DeregisterRequest {
            key: Some(key),
            incarnation: self.incarnation.unwrap_or_default(),
            expected_revision: self.expected_revision,
            drain_ms: self.drain_ms.unwrap_or_default(),
            successor: self.successor.unwrap_or_default(),
        })
    }
}

/// One write of a batch; exactly one must be given.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationBody {
    register: Option<WriteBody>,
    update: Option<WriteBody>,
    deregister: Option<WriteBody>,
}

/// Several writes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchBody {
    operations: Vec<OperationBody>,
}

impl BatchBody {
    /// As a message; errors name the operation.
    pub fn request(self) -> Result<api::BatchRequest, RpcError> {
        use api::write_operation::Operation;
        let operation = |(index, body): (usize, OperationBody)| {
            let operation = match (body.register, body.update, body.deregister) {
                (Some(body), None, None) => body.register(None).map(Operation::Register),
                (None, Some(body), None) => body.update(None, None).map(Operation::Update),
                (None, None, Some(body)) => body.deregister().map(Operation::Deregister),
                _ => Err(RpcError::field("", "must be one of register, update, deregister")),
            };
            let operation = operation.map_err(|mut error| {
                let field = error.metadata.remove("field").unwrap_or_default();
                let path = format!("operations[{index}].{field}");
                error.message = format!("operations[{index}].{}", error.message).into();
                error.with("field", path.trim_end_matches('.'))
            })?;
            Ok(api::WriteOperation { operation: Some(operation) })
        };
        let operations = self.operations.into_iter().enumerate().map(operation);
        Ok(api::BatchRequest { operations: operations.collect::<Result<_, RpcError>>()? })
    }
}

/// What one lease's owner has left to give.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadBody {
    lease_id: String,
    free: CapacityBody,
}

/// A renewal.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenewBody {
    lease_ids: Vec<String>,
    #[serde(default)]
    loads: Vec<LoadBody>,
}

fn lease_id(field: &str, text: &str) -> Result<u64, RpcError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        RpcError::field(field, format!("has {text:?}, which is no lease id in decimal digits"))
    })
}

impl RenewBody {
    /// As a message.
    pub fn request(self) -> Result<api::RenewRequest, RpcError> {
        let lease_ids = self.lease_ids.iter().map(|text| lease_id("lease_ids", text));
        let loads = self.loads.into_iter().map(|load| {
            let lease_id = lease_id("loads.lease_id", &load.lease_id)?;
            Ok(api::LeaseLoad { lease_id, free: Some(load.free.into()) })
        });
        Ok(api::RenewRequest {
            lease_ids: lease_ids.collect::<Result<_, _>>()?,
            loads: loads.collect::<Result<_, RpcError>>()?,
        })
    }
}

/// Which partitions to take a snapshot of.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotBody {
    /// Their numbers; none means all.
    #[serde(default)]
    pub partitions: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a body as everything that it could be.
    fn read(bytes: &[u8]) {
        if let Ok(renew) = body::<RenewBody>(bytes) {
            let _ = renew.request();
        }
        if let Ok(batch) = body::<BatchBody>(bytes) {
            let _ = batch.request();
        }
        let _ = (body::<WriteBody>(bytes), body::<SnapshotBody>(bytes));
    }

    fn json() -> impl Strategy<Value = String> {
        let leaf = prop_oneof![
            Just("null".to_owned()),
            "-?[0-9]{1,25}(\\.[0-9]{1,3})?(e[0-9]{1,3})?",
            "\"[ -!#-\\[\\]-~]{0,12}\"",
        ];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let name = prop_oneof![
                Just("kind"),
                Just("name"),
                Just("gateway_port"),
                Just("capacity"),
                Just("labels"),
                Just("lease_ids"),
                Just("loads"),
                Just("operations"),
                Just("ttl_ms"),
                Just("cpu"),
            ];
            let pairs = proptest::collection::vec((name, inner.clone()), 0..5);
            prop_oneof![
                proptest::collection::vec(inner, 0..5)
                    .prop_map(|items| format!("[{}]", items.join(","))),
                pairs.prop_map(|pairs| {
                    let pair = |(name, value)| format!("\"{name}\":{value}");
                    format!("{{{}}}", pairs.into_iter().map(pair).collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes);
        }

        #[test]
        fn any_json_is_read_or_refused(text in json()) {
            read(text.as_bytes());
        }
    }
}
