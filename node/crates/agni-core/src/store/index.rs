//! Which slots have what: bitmaps by kind, namespace, region, gateway and label.

use std::borrow::Cow;

use hashbrown::HashMap;
use roaring::RoaringBitmap;

use super::record::{RecordParts, SpecParts};
use crate::proto::api::Kind;

/// The slots of one value. Most label values belong to one record, which needs no bitmap.
enum Posting {
    One(u32),
    Many(Box<RoaringBitmap>),
}

/// The slots of each value of one property.
#[derive(Default)]
struct Postings(HashMap<Box<str>, Posting>);

impl Postings {
    fn insert(&mut self, value: &str, slot: u32) {
        match self.0.get_mut(value) {
            None => {
                self.0.insert(value.into(), Posting::One(slot));
            }
            Some(Posting::One(other)) if *other == slot => {}
            Some(posting @ Posting::One(_)) => {
                let Posting::One(other) = *posting else { return };
                *posting = Posting::Many(Box::new([other, slot].into_iter().collect()));
            }
            Some(Posting::Many(slots)) => {
                slots.insert(slot);
            }
        }
    }

    fn remove(&mut self, value: &str, slot: u32) {
        let empty = match self.0.get_mut(value) {
            None => false,
            Some(Posting::One(other)) => *other == slot,
            Some(Posting::Many(slots)) => slots.remove(slot) && slots.is_empty(),
        };
        if empty {
            self.0.remove(value);
        }
    }

    fn get(&self, value: &str) -> Option<Cow<'_, RoaringBitmap>> {
        Some(match self.0.get(value)? {
            Posting::One(slot) => Cow::Owned([*slot].into_iter().collect()),
            Posting::Many(slots) => Cow::Borrowed(slots),
        })
    }

    fn memory_bytes(&self) -> usize {
        let posting = |value: &str, posting: &Posting| match posting {
            Posting::One(_) => value.len() + 16,
            Posting::Many(slots) => value.len() + 112 + slots.serialized_size(),
        };
        self.0.capacity() * 40
            + self.0.iter().map(|(value, slots)| posting(value, slots)).sum::<usize>()
    }
}

/// The indexes of one partition.
#[derive(Default)]
pub(crate) struct Index {
    all: RoaringBitmap,
    gateways: RoaringBitmap,
    agents: RoaringBitmap,
    namespaces: Postings,
    regions: Postings,
    behind: Postings,
    labels: Postings,
}

/// What a filter asks the indexes for.
#[derive(Default)]
pub(crate) struct Query<'a> {
    pub kind: Option<Kind>,
    pub namespace: Option<&'a str>,
    pub regions: &'a [String],
    /// As [`label_term`] writes them.
    pub labels: &'a [String],
    pub gateway: Option<&'a str>,
}

/// The term of a label with a value, or of having the label at all.
pub(crate) fn label_term(key: &str, value: Option<&str>) -> String {
    match value {
        Some(value) => format!("{key}\0{value}"),
        None => key.to_owned(),
    }
}

impl Index {
    /// Adds a record.
    pub(crate) fn insert(&mut self, slot: u32, record: &RecordParts<'_>, spec: &SpecParts<'_>) {
        self.all.insert(slot);
        match record.key.kind {
            Kind::Agent => self.agents.insert(slot),
            _ => self.gateways.insert(slot),
        };
        self.namespaces.insert(record.key.namespace, slot);
        self.insert_spec(slot, spec);
    }

    /// Removes a record.
    pub(crate) fn remove(&mut self, slot: u32, record: &RecordParts<'_>, spec: &SpecParts<'_>) {
        self.all.remove(slot);
        match record.key.kind {
            Kind::Agent => self.agents.remove(slot),
            _ => self.gateways.remove(slot),
        };
        self.namespaces.remove(record.key.namespace, slot);
        self.remove_spec(slot, spec);
    }

    /// Adds what a spec says.
    pub(crate) fn insert_spec(&mut self, slot: u32, spec: &SpecParts<'_>) {
        self.regions.insert(spec.region, slot);
        if !spec.gateway.is_empty() {
            self.behind.insert(spec.gateway, slot);
        }
        for (key, value) in spec.labels() {
            self.labels.insert(key, slot);
            self.labels.insert(&label_term(key, Some(value)), slot);
        }
    }

    /// Removes what a spec says.
    pub(crate) fn remove_spec(&mut self, slot: u32, spec: &SpecParts<'_>) {
        self.regions.remove(spec.region, slot);
        if !spec.gateway.is_empty() {
            self.behind.remove(spec.gateway, slot);
        }
        for (key, value) in spec.labels() {
            self.labels.remove(key, slot);
            self.labels.remove(&label_term(key, Some(value)), slot);
        }
    }

    /// The slots that match all that the indexes know of.
    pub(crate) fn query(&self, query: &Query<'_>) -> Cow<'_, RoaringBitmap> {
        let mut terms: Vec<Option<Cow<'_, RoaringBitmap>>> = Vec::new();
        match query.kind {
            Some(Kind::Agent) => terms.push(Some(Cow::Borrowed(&self.agents))),
            Some(Kind::Gateway) => terms.push(Some(Cow::Borrowed(&self.gateways))),
            _ => {}
        }
        terms.extend(query.namespace.map(|namespace| self.namespaces.get(namespace)));
        terms.extend(query.gateway.map(|gateway| self.behind.get(gateway)));
        terms.extend(query.labels.iter().map(|term| self.labels.get(term)));
        match query.regions {
            [] => {}
            [region] => terms.push(self.regions.get(region)),
            regions => {
                let mut any = RoaringBitmap::new();
                for slots in regions.iter().filter_map(|region| self.regions.get(region)) {
                    any |= slots.as_ref();
                }
                terms.push(Some(Cow::Owned(any)));
            }
        }
        let Some(mut terms) = terms.into_iter().collect::<Option<Vec<_>>>() else {
            return Cow::Owned(RoaringBitmap::new());
        };
        // The smallest first, so that the rest only has to be looked at where it can matter.
        terms.sort_by_key(|slots| slots.len());
        let mut terms = terms.into_iter();
        let Some(mut matching) = terms.next() else { return Cow::Borrowed(&self.all) };
        for slots in terms {
            if slots.len() == self.all.len() {
                continue;
            }
            matching = Cow::Owned(match matching {
                Cow::Owned(matching) => matching & slots.as_ref(),
                Cow::Borrowed(matching) => matching & slots.as_ref(),
            });
        }
        matching
    }

    /// Bytes on the heap, roughly.
    pub(crate) fn memory_bytes(&self) -> usize {
        [&self.all, &self.gateways, &self.agents]
            .map(|slots| slots.serialized_size())
            .iter()
            .sum::<usize>()
            + [&self.namespaces, &self.regions, &self.behind, &self.labels]
                .map(Postings::memory_bytes)
                .iter()
                .sum::<usize>()
    }
}
