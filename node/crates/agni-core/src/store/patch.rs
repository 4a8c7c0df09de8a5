//! Takes the named fields of one spec over into another, and checks what comes of it.

use prost::Message;

use crate::proto::api::{Capacity, Kind, Spec};
use crate::proto::node::Patch;
use crate::validate::{FieldError, validate_gateway, validate_spec};

/// The stored spec with what the command changes of it, encoded.
pub(super) fn patched(stored: &[u8], patch: &Patch) -> Result<Vec<u8>, FieldError> {
    let decode = |bytes| Spec::decode(bytes).map_err(|_| FieldError::new("spec", "is malformed"));
    let (mut spec, new) = (decode(stored)?, decode(&patch.spec)?);
    for path in &patch.paths {
        take(&mut spec, &new, path)?;
    }
    validate_spec(&spec)?;
    // What an older version has stored without an address stays changeable in all else.
    let is_of_address = patch.paths.iter().any(|path| path == "ip" || path == "domain");
    let kind = patch.key.as_ref().map_or(Kind::Unspecified, |key| key.kind());
    if patch.keeps_address && is_of_address && kind == Kind::Gateway {
        validate_gateway(&spec)?;
    }
    Ok(spec.encode_to_vec())
}

fn take(spec: &mut Spec, new: &Spec, path: &str) -> Result<(), FieldError> {
    match path {
        "region" => spec.region.clone_from(&new.region),
        "ip" => spec.ip.clone_from(&new.ip),
        "domain" => spec.domain.clone_from(&new.domain),
        "port" => spec.port = new.port,
        "capacity" => spec.capacity = new.capacity,
        "labels" => spec.labels.clone_from(&new.labels),
        "owner" => spec.owner.clone_from(&new.owner),
        "gateway" => spec.gateway.clone_from(&new.gateway),
        "public_key" => spec.public_key = new.public_key.clone(),
        "payload" => spec.payload = new.payload.clone(),
        _ => return take_part(spec, new, path),
    }
    Ok(())
}

/// One amount of the capacity, or one label: set where `new` has it, else removed.
fn take_part(spec: &mut Spec, new: &Spec, path: &str) -> Result<(), FieldError> {
    if let Some(key) = path.strip_prefix("labels.") {
        match new.labels.get(key) {
            Some(value) => spec.labels.insert(key.to_owned(), value.clone()),
            None => spec.labels.remove(key),
        };
        return Ok(());
    }
    let given = new.capacity.unwrap_or_default();
    let capacity: &mut Capacity = spec.capacity.get_or_insert_default();
    match path {
        "capacity.cpu" => capacity.cpu = given.cpu,
        "capacity.bandwidth" => capacity.bandwidth = given.bandwidth,
        "capacity.memory" => capacity.memory = given.memory,
        "capacity.storage" => capacity.storage = given.storage,
        _ => {
            let message = format!("{path:?} isn't a field of the spec that can be changed");
            return Err(FieldError::new("update_mask", message));
        }
    }
    Ok(())
}
