//! The ring equals its Python twin by the vectors of `tests/golden/ring.json`.

use agni_core::key::KeyRef;
use agni_core::proto::api::Kind;
use agni_core::ring::{RingNode, partition_of, placement};
use serde_json::Value;

const GOLDEN: &str = include_str!("../../../../tests/golden/ring.json");

fn golden() -> Value {
    serde_json::from_str(GOLDEN).expect("the golden file is JSON")
}

fn number(value: &Value) -> u64 {
    value.as_str().expect("identities are text").parse().expect("identities are numbers")
}

#[test]
fn keys_hash_and_part_as_in_python() {
    let golden = golden();
    let keys = golden["keys"].as_array().unwrap();
    assert!(!keys.is_empty());
    for vector in keys {
        let key = KeyRef {
            namespace: vector["namespace"].as_str().unwrap(),
            kind: Kind::try_from(vector["kind"].as_i64().unwrap() as i32).unwrap(),
            name: vector["name"].as_str().unwrap(),
        };
        assert_eq!(format!("{:016x}", key.hash()), vector["hash"].as_str().unwrap());
        for (count, partition) in vector["partitions"].as_object().unwrap() {
            let answered = partition_of(key.hash(), count.parse().unwrap());
            assert_eq!(u64::from(answered), partition.as_u64().unwrap());
        }
    }
}

#[test]
fn partitions_are_placed_as_in_python() {
    let golden = golden();
    let placements = golden["placements"].as_array().unwrap();
    assert!(!placements.is_empty());
    for vector in placements {
        let nodes: Vec<RingNode> = vector["nodes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|node| RingNode {
                id: number(&node["id"]),
                zone: node["zone"].as_str().unwrap().to_owned(),
                weight: node["weight"].as_u64().unwrap() as u32,
            })
            .collect();
        let count = vector["partition_count"].as_u64().unwrap() as u32;
        let wanted: Vec<Vec<u64>> = vector["placement"]
            .as_array()
            .unwrap()
            .iter()
            .map(|ids| ids.as_array().unwrap().iter().map(number).collect())
            .collect();
        let replicas = vector["replicas"].as_u64().unwrap() as usize;
        assert_eq!(placement(count, &nodes, replicas), wanted);
    }
}
