//! A filter, checked and taken apart once a request.
//!
//! Kind, namespace, regions, labels and gateway are answered by bitmaps; capacity, free capacity,
//! name prefix and status are looked at slot by slot.

use bytes::Bytes;

use super::index::{Query, label_term};
use super::record::{self, RecordParts, SpecParts};
use crate::capacity::amounts;
use crate::lease::Load;
use crate::proto::api::{self, Kind, Status};
use crate::validate::{self, FieldError};

/// A checked filter.
#[derive(Clone, Debug, Default)]
pub struct CompiledFilter {
    pub(crate) kind: Option<Kind>,
    pub(crate) namespace: Option<String>,
    pub(crate) regions: Vec<String>,
    pub(crate) labels: Vec<(String, Option<String>)>,
    label_terms: Vec<String>,
    pub(crate) min_capacity: Option<[f64; 4]>,
    pub(crate) min_free: Option<[f64; 4]>,
    /// One bit a status; 0 means any.
    pub(crate) statuses: u8,
    pub(crate) name_prefix: String,
    pub(crate) gateway: Option<String>,
}

fn status_bit(status: Status) -> u8 {
    1 << (status as i32 as u8)
}

/// The bounds above zero, or none.
fn bounds(capacity: Option<&api::Capacity>) -> Option<[f64; 4]> {
    capacity.map(amounts).filter(|amounts| amounts.iter().any(|&amount| amount > 0.0))
}

impl CompiledFilter {
    /// Checks a filter; an error names the field below `filter`.
    pub fn new(filter: &api::Filter) -> Result<CompiledFilter, FieldError> {
        validate::validate_filter(filter)?;
        let labels: Vec<(String, Option<String>)> = filter
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), (!value.is_empty()).then(|| value.clone())))
            .collect();
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(CompiledFilter {
            kind: (filter.kind() != Kind::Unspecified).then_some(filter.kind()),
            namespace: match filter.namespace.as_str() {
                "" => Some(validate::NAMESPACE_DEFAULT.to_owned()),
                "*" => None,
                namespace => Some(namespace.to_owned()),
            },
            regions: filter.regions.clone(),
            label_terms: labels
                .iter()
                .map(|(key, value)| label_term(key, value.as_deref()))
                .collect(),
            labels,
            min_capacity: bounds(filter.min_capacity.as_ref()),
            min_free: bounds(filter.min_free.as_ref()),
            statuses: filter.statuses().fold(0, |bits, status| bits | status_bit(status)),
            name_prefix: filter.name_prefix.clone(),
            gateway: given(&filter.gateway),
        })
    }

    /// As `new`, but where no status is asked for, draining records are left out: nobody new is to
    /// be sent to them. Suspect ones stay in, since the fault is likelier in between.
    pub fn for_discover(filter: &api::Filter) -> Result<CompiledFilter, FieldError> {
        let mut compiled = CompiledFilter::new(filter)?;
        if compiled.kind.is_none() {
            return Err(FieldError::new("filter.kind", "must be gateway or agent"));
        }
        if compiled.statuses == 0 {
            compiled.statuses = status_bit(Status::Alive) | status_bit(Status::Suspect);
        }
        Ok(compiled)
    }

    /// The same filter within one region; none where that region is excluded already.
    pub fn narrowed_to(&self, region: &str) -> Option<CompiledFilter> {
        let allowed = self.regions.is_empty() || self.regions.iter().any(|other| other == region);
        allowed.then(|| CompiledFilter { regions: vec![region.to_owned()], ..self.clone() })
    }

    /// Whether an encoded record matches by what it says itself: all but status and free capacity.
    /// For watches, whose events carry neither.
    pub fn matches_record(&self, record: &Bytes) -> bool {
        let Some(parts) = record::parse(record) else { return false };
        SpecParts::parse(parts.spec).is_some_and(|spec| self.matches_parts(&parts, &spec))
    }

    /// What the indexes are asked for.
    pub(crate) fn query(&self) -> Query<'_> {
        Query {
            kind: self.kind,
            namespace: self.namespace.as_deref(),
            regions: &self.regions,
            labels: &self.label_terms,
            gateway: self.gateway.as_deref(),
        }
    }

    /// Whether what a record says has to be looked at, beyond what the indexes know.
    pub(crate) fn looks_at_records(&self) -> bool {
        self.min_capacity.is_some() || self.min_free.is_some() || !self.name_prefix.is_empty()
    }

    pub(crate) fn matches_parts(&self, parts: &RecordParts<'_>, spec: &SpecParts<'_>) -> bool {
        let key = &parts.key;
        self.kind.is_none_or(|kind| kind == key.kind)
            && self.namespace.as_deref().is_none_or(|namespace| namespace == key.namespace)
            && self.matches_region(spec)
            && self.gateway.as_deref().is_none_or(|gateway| gateway == spec.gateway)
            && key.name.starts_with(&self.name_prefix)
            && self.missing_label(spec).is_none()
            && self.min_capacity.is_none_or(|min| covers(&spec.capacity, &min))
    }

    pub(crate) fn matches_region(&self, spec: &SpecParts<'_>) -> bool {
        self.regions.is_empty() || self.regions.iter().any(|region| region == spec.region)
    }

    /// The first label that a spec lacks or has with another value.
    pub(crate) fn missing_label(&self, spec: &SpecParts<'_>) -> Option<&(String, Option<String>)> {
        self.labels.iter().find(|(key, value)| {
            !spec.labels().any(|(other, stored)| {
                other == key && value.as_deref().is_none_or(|value| value == stored)
            })
        })
    }

    /// The same as `matches_parts`, for a slot that the indexes answered.
    pub(crate) fn matches_slot(&self, record: &Bytes, rounded: &[f32; 4]) -> bool {
        if !self.name_prefix.is_empty()
            && !record::key_of(record).is_some_and(|key| key.name.starts_with(&self.name_prefix))
        {
            return false;
        }
        self.min_capacity.is_none_or(|min| covers_rounded(record, rounded, &min))
    }

    pub(crate) fn matches_free(
        &self,
        record: &Bytes,
        rounded: &[f32; 4],
        load: Option<&Load>,
    ) -> bool {
        match (self.min_free, load) {
            (None, _) => true,
            (Some(min), Some(load)) => covers(&load.free, &min),
            (Some(min), None) => covers_rounded(record, rounded, &min),
        }
    }

    pub(crate) fn matches_status(&self, status: Status) -> bool {
        self.statuses == 0 || self.statuses & status_bit(status) != 0
    }
}

/// Whether there is at least so much of each.
pub(crate) fn covers(amounts: &[f64; 4], min: &[f64; 4]) -> bool {
    amounts.iter().zip(min).all(|(amount, min)| amount >= min)
}

/// The same from amounts rounded to single precision. Rounding keeps order, so that only equal
/// rounded amounts need a look at the record.
fn covers_rounded(record: &Bytes, rounded: &[f32; 4], min: &[f64; 4]) -> bool {
    let mut unsure = false;
    for (&amount, &min) in rounded.iter().zip(min) {
        if amount < min as f32 {
            return false;
        }
        unsure |= amount == min as f32 && min > 0.0;
    }
    !unsure || exact_capacity(record).is_some_and(|capacity| covers(&capacity, min))
}

/// The capacity that a record says.
pub(crate) fn exact_capacity(record: &Bytes) -> Option<[f64; 4]> {
    SpecParts::parse(record::parse(record)?.spec).map(|spec| spec.capacity)
}
