//! Checks requests before anything is proposed; every error names the field and says what to do.
//!
//! Pure, so that each protocol front (gRPC, HTTP/JSON) refuses the same things in the same words.

use std::net::IpAddr;

use crate::proto::api::{self, Kind};

/// The namespace where none is given.
pub const NAMESPACE_DEFAULT: &str = "default";
/// A namespace, a name, a domain, an owner, a gateway or a label's value, in bytes.
pub const NAME_BYTES_MAX: usize = 253;
/// A region, in bytes.
pub const REGION_BYTES_MAX: usize = 63;
/// A label's key, in bytes.
pub const LABEL_KEY_BYTES_MAX: usize = 63;
/// Labels of a record.
pub const LABELS_MAX: usize = 64;
/// A public key, in bytes.
pub const PUBLIC_KEY_BYTES_MAX: usize = 4 * 1024;
/// A payload, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024;
/// A time to live, in milliseconds.
pub const TTL_MS_MIN: i64 = 1_000;
/// A time to live, in milliseconds.
pub const TTL_MS_MAX: i64 = 86_400_000;
/// A time of draining, in milliseconds.
pub const DRAIN_MS_MAX: i64 = 3_600_000;
/// Leases of one renewal.
pub const RENEW_LEASES_MAX: usize = 10_000;
/// Regions of one filter.
pub const FILTER_REGIONS_MAX: usize = 64;

/// A field that can't be accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FieldError {
    /// The field's path in the request, such as `spec.capacity.cpu`.
    pub field: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl FieldError {
    /// An error about a field.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> FieldError {
        FieldError { field: field.into(), message: message.into() }
    }
}

type Checked = Result<(), FieldError>;

/// Fills in a key's defaults and checks it. `domain` is a gateway's default name.
pub fn validate_key(key: Option<&api::Key>, domain: &str) -> Result<api::Key, FieldError> {
    let Some(key) = key else {
        return Err(FieldError::new("key", "must be given, with a kind and a name"));
    };
    let mut key = key.clone();
    if !matches!(Kind::try_from(key.kind), Ok(Kind::Gateway | Kind::Agent)) {
        return Err(FieldError::new("key.kind", "must be gateway or agent"));
    }
    if key.namespace.is_empty() {
        NAMESPACE_DEFAULT.clone_into(&mut key.namespace);
    }
    if key.namespace == "*" {
        return Err(FieldError::new("key.namespace", "must not be \"*\", which means all of them"));
    }
    if key.name.is_empty() && key.kind() == Kind::Gateway {
        domain.clone_into(&mut key.name);
    }
    text("key.namespace", &key.namespace, 1, NAME_BYTES_MAX)?;
    text("key.name", &key.name, 1, NAME_BYTES_MAX)?;
    Ok(key)
}

/// Checks a registration and answers its key with the defaults filled in.
pub fn validate_register(request: &api::RegisterRequest) -> Result<api::Key, FieldError> {
    let Some(spec) = &request.spec else {
        return Err(FieldError::new("spec", "must be given, with a region"));
    };
    let key = validate_key(request.key.as_ref(), &spec.domain)?;
    validate_spec(spec)?;
    validate_ttl(request.ttl_ms)?;
    if key.kind() == Kind::Gateway {
        validate_gateway(spec)?;
    }
    Ok(key)
}

/// Checks how a gateway is reached. Not part of its whole spec: what an older version has stored
/// must stay changeable. An address needs a port anyway.
pub fn validate_gateway(spec: &api::Spec) -> Checked {
    if spec.ip.is_empty() && spec.domain.is_empty() {
        let message = "must be given for a gateway, or spec.domain: others are to reach it";
        return Err(FieldError::new("spec.ip", message));
    }
    Ok(())
}

/// Checks a time to live; 0 means none.
pub fn validate_ttl(ttl_ms: i64) -> Checked {
    if ttl_ms != 0 && !(TTL_MS_MIN..=TTL_MS_MAX).contains(&ttl_ms) {
        let message =
            format!("must be {TTL_MS_MIN}..{TTL_MS_MAX}, or 0 to stay for good, not {ttl_ms}");
        return Err(FieldError::new("ttl_ms", message));
    }
    Ok(())
}

/// Checks a whole spec.
pub fn validate_spec(spec: &api::Spec) -> Checked {
    text("spec.region", &spec.region, 1, REGION_BYTES_MAX)?;
    validate_addresses(spec)?;
    if let Some(capacity) = &spec.capacity {
        validate_capacity("spec.capacity", capacity)?;
    }
    validate_labels("spec.labels", &spec.labels)?;
    text("spec.owner", &spec.owner, 0, NAME_BYTES_MAX)?;
    text("spec.gateway", &spec.gateway, 0, NAME_BYTES_MAX)?;
    size("spec.public_key", spec.public_key.len(), PUBLIC_KEY_BYTES_MAX)?;
    size("spec.payload", spec.payload.len(), PAYLOAD_BYTES_MAX)
}

fn validate_addresses(spec: &api::Spec) -> Checked {
    if !spec.ip.is_empty() && spec.ip.parse::<IpAddr>().is_err() {
        return Err(FieldError::new("spec.ip", "must be an IPv4 or IPv6 address in text form"));
    }
    text("spec.domain", &spec.domain, 0, NAME_BYTES_MAX)?;
    if !spec.domain.is_empty() && !is_domain(&spec.domain) {
        let message = "must be a DNS name: labels of letters, digits, - and _, parted by dots";
        return Err(FieldError::new("spec.domain", message));
    }
    // In the message 0 also stands for "not given", which an agent's port may be; the HTTP front,
    // which can tell the two apart, refuses a written 0.
    if spec.port > 65_535 {
        let message = format!("must be 1..65535, not {}", spec.port);
        return Err(FieldError::new("spec.port", message));
    }
    if spec.port == 0 && !(spec.ip.is_empty() && spec.domain.is_empty()) {
        return Err(FieldError::new("spec.port", "must be 1..65535 where an address is given"));
    }
    Ok(())
}

fn is_domain(domain: &str) -> bool {
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    domain.split('.').all(|label| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || c == '_')
    })
}

/// Checks amounts: finite and not negative.
pub fn validate_capacity(field: &str, capacity: &api::Capacity) -> Checked {
    let amounts = crate::capacity::named_amounts(capacity);
    for (name, amount) in amounts {
        if !amount.is_finite() || amount < 0.0 {
            let message = format!("must be a finite number of at least 0, not {amount}");
            return Err(FieldError::new(format!("{field}.{name}"), message));
        }
    }
    Ok(())
}

fn validate_labels(field: &str, labels: &std::collections::BTreeMap<String, String>) -> Checked {
    if labels.len() > LABELS_MAX {
        let message = format!("must be at most {LABELS_MAX} pairs, not {}", labels.len());
        return Err(FieldError::new(field, message));
    }
    for (key, value) in labels {
        text(field, key, 1, LABEL_KEY_BYTES_MAX)?;
        let named =
            if key.len() <= LABEL_KEY_BYTES_MAX { format!("{field}.{key}") } else { field.into() };
        text(&named, value, 0, NAME_BYTES_MAX)?;
    }
    Ok(())
}

/// Checks an update and answers its key with the defaults filled in.
pub fn validate_update(request: &api::UpdateRequest) -> Result<api::Key, FieldError> {
    let key = validate_key(request.key.as_ref(), "")?;
    let paths = request.update_mask.as_ref().map_or(&[][..], |mask| &mask.paths);
    if paths.is_empty() {
        return Err(FieldError::new("update_mask", "must name at least one field of the spec"));
    }
    for path in paths {
        if !is_update_path(path) {
            let message = format!("{path:?} isn't a field of the spec that can be changed");
            return Err(FieldError::new("update_mask", message));
        }
    }
    let mut spec = request.spec.clone().unwrap_or_default();
    // What isn't changed isn't checked: the region may be left out, say.
    let named = |field: &str| {
        paths.iter().any(|path| path == field || path.split('.').next() == Some(field))
    };
    if !named("region") {
        "unchanged".clone_into(&mut spec.region);
    }
    if !named("port") && spec.port == 0 {
        spec.port = 1;
    }
    validate_spec(&spec)?;
    Ok(key)
}

/// Whether an update mask may have this path: a field, an amount of the capacity, or one label.
pub fn is_update_path(path: &str) -> bool {
    const FIELDS: [&str; 10] = [
        "region",
        "ip",
        "domain",
        "port",
        "capacity",
        "labels",
        "owner",
        "gateway",
        "public_key",
        "payload",
    ];
    FIELDS.contains(&path)
        || path.strip_prefix("capacity.").is_some_and(|name| {
            crate::capacity::named_amounts(&api::Capacity::default())
                .iter()
                .any(|(resource, _)| *resource == name)
        })
        || path.strip_prefix("labels.").is_some_and(|key| !key.is_empty())
}

/// Checks a removal and answers its key with the defaults filled in.
pub fn validate_deregister(request: &api::DeregisterRequest) -> Result<api::Key, FieldError> {
    let key = validate_key(request.key.as_ref(), "")?;
    if !(0..=DRAIN_MS_MAX).contains(&request.drain_ms) {
        let message = format!("must be 0..{DRAIN_MS_MAX}, not {}", request.drain_ms);
        return Err(FieldError::new("drain_ms", message));
    }
    text("successor", &request.successor, 0, NAME_BYTES_MAX)?;
    if request.drain_ms == 0 && !request.successor.is_empty() {
        return Err(FieldError::new(
            "successor",
            "needs a drain_ms above 0, while which it is shown",
        ));
    }
    Ok(key)
}

/// Checks a renewal.
pub fn validate_renew(request: &api::RenewRequest) -> Checked {
    if request.lease_ids.len() > RENEW_LEASES_MAX {
        let message =
            format!("must be at most {RENEW_LEASES_MAX} a call, not {}", request.lease_ids.len());
        return Err(FieldError::new("lease_ids", message));
    }
    if request.loads.len() > RENEW_LEASES_MAX {
        let message =
            format!("must be at most {RENEW_LEASES_MAX} a call, not {}", request.loads.len());
        return Err(FieldError::new("loads", message));
    }
    for (position, load) in request.loads.iter().enumerate() {
        let field = format!("loads[{position}].free");
        let Some(free) = &load.free else {
            return Err(FieldError::new(field, "must be given"));
        };
        validate_capacity(&field, free)?;
    }
    Ok(())
}

/// Checks a filter; fields are named below `filter`.
pub fn validate_filter(filter: &api::Filter) -> Checked {
    if Kind::try_from(filter.kind).is_err() {
        return Err(FieldError::new("filter.kind", "must be gateway, agent or unspecified"));
    }
    text("filter.namespace", &filter.namespace, 0, NAME_BYTES_MAX)?;
    if filter.regions.len() > FILTER_REGIONS_MAX {
        let message = format!("must be at most {FILTER_REGIONS_MAX}, not {}", filter.regions.len());
        return Err(FieldError::new("filter.regions", message));
    }
    for region in &filter.regions {
        text("filter.regions", region, 1, REGION_BYTES_MAX)?;
    }
    validate_labels("filter.labels", &filter.labels)?;
    for (field, capacity) in
        [("filter.min_capacity", &filter.min_capacity), ("filter.min_free", &filter.min_free)]
    {
        if let Some(capacity) = capacity {
            validate_capacity(field, capacity)?;
        }
    }
    let known = |status: &i32| {
        api::Status::try_from(*status).is_ok_and(|status| status != api::Status::Unspecified)
    };
    if !filter.statuses.iter().all(known) {
        return Err(FieldError::new("filter.statuses", "must be alive, suspect or draining"));
    }
    text("filter.name_prefix", &filter.name_prefix, 0, NAME_BYTES_MAX)?;
    text("filter.gateway", &filter.gateway, 0, NAME_BYTES_MAX)
}

fn size(field: &str, bytes: usize, max: usize) -> Checked {
    if bytes > max {
        return Err(FieldError::new(field, format!("must be at most {max} bytes, not {bytes}")));
    }
    Ok(())
}

/// Checks a text's length in bytes and that each of its characters can be shown.
fn text(field: &str, text: &str, min: usize, max: usize) -> Checked {
    if text.len() < min {
        return Err(FieldError::new(field, format!("must be given, with {min}..{max} bytes")));
    }
    size(field, text.len(), max)?;
    if let Some(bad) = text.chars().find(|&c| !is_printable(c)) {
        let message = format!("must be printable, but contains U+{:04X}", u32::from(bad));
        return Err(FieldError::new(field, message));
    }
    Ok(())
}

/// Neither a control character, nor one that hides or reorders text.
fn is_printable(c: char) -> bool {
    let hidden = matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}');
    !c.is_control() && !hidden
}

#[cfg(test)]
mod tests;
