//! The four resources of a capacity as an array, so that code can go over them.

use crate::proto::api::Capacity;

/// The names of the four resources, in the order of their fields.
pub(crate) const RESOURCES: [&str; 4] = ["cpu", "bandwidth", "memory", "storage"];

/// A capacity's amounts, in the order of `RESOURCES`.
pub(crate) fn amounts(capacity: &Capacity) -> [f64; 4] {
    [capacity.cpu, capacity.bandwidth, capacity.memory, capacity.storage]
}

/// The capacity with these amounts.
pub(crate) fn capacity_of(amounts: &[f64; 4]) -> Capacity {
    let [cpu, bandwidth, memory, storage] = *amounts;
    Capacity { cpu, bandwidth, memory, storage }
}

/// The four amounts with their field names.
pub(crate) fn named_amounts(capacity: &Capacity) -> [(&'static str, f64); 4] {
    let amounts = amounts(capacity);
    std::array::from_fn(|resource| (RESOURCES[resource], amounts[resource]))
}
