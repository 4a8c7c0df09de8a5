//! The calls of the interface. gRPC names them in its paths, HTTP's routes mean them, and the
//! metrics and the access log count them under the same names.

/// Where the paths of the registry's calls begin.
const REGISTRY: &str = "/agniregistry.api.v1.RegistryService/";
/// Where the paths of the cluster's calls begin.
const CLUSTER: &str = "/agniregistry.api.v1.ClusterService/";
/// Where the paths of what nodes ask one another begin.
const NODE: &str = "/agniregistry.node.v1.NodeService/";

/// A call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Call {
    Register,
    Get,
    List,
    Update,
    Deregister,
    Batch,
    Renew,
    Discover,
    KeepAlive,
    Watch,
    Status,
    Routing,
    Snapshot,
    Backup,
    Members,
    ChangeMember,
    PlacePartition,
    TransferLeader,
    Ask,
    Copy,
    /// None of ours: health checks, the metrics themselves, mistakes.
    Other,
}

impl Call {
    /// All of them, in the order in which they are counted.
    pub const ALL: [Call; 21] = [
        Call::Register,
        Call::Get,
        Call::List,
        Call::Update,
        Call::Deregister,
        Call::Batch,
        Call::Renew,
        Call::Discover,
        Call::KeepAlive,
        Call::Watch,
        Call::Status,
        Call::Routing,
        Call::Snapshot,
        Call::Backup,
        Call::Members,
        Call::ChangeMember,
        Call::PlacePartition,
        Call::TransferLeader,
        Call::Ask,
        Call::Copy,
        Call::Other,
    ];

    /// Its name, as the protos write it.
    pub fn name(self) -> &'static str {
        match self {
            Call::Register => "Register",
            Call::Get => "Get",
            Call::List => "List",
            Call::Update => "Update",
            Call::Deregister => "Deregister",
            Call::Batch => "Batch",
            Call::Renew => "Renew",
            Call::Discover => "Discover",
            Call::KeepAlive => "KeepAlive",
            Call::Watch => "Watch",
            Call::Status => "Status",
            Call::Routing => "Routing",
            Call::Snapshot => "Snapshot",
            Call::Backup => "Backup",
            Call::Members => "Members",
            Call::ChangeMember => "ChangeMember",
            Call::PlacePartition => "PlacePartition",
            Call::TransferLeader => "TransferLeader",
            Call::Ask => "Ask",
            Call::Copy => "Copy",
            Call::Other => "Other",
        }
    }

    fn service(self) -> Option<&'static str> {
        match self {
            Call::Other => None,
            Call::Ask | Call::Copy => Some(NODE),
            Call::Status
            | Call::Routing
            | Call::Snapshot
            | Call::Backup
            | Call::Members
            | Call::ChangeMember
            | Call::PlacePartition
            | Call::TransferLeader => Some(CLUSTER),
            _ => Some(REGISTRY),
        }
    }

    /// The call that a gRPC path means: `Other` where the service is ours and the method isn't,
    /// none where the service isn't.
    pub fn of_path(path: &str) -> Option<Call> {
        let service =
            [REGISTRY, CLUSTER, NODE].into_iter().find(|prefix| path.starts_with(prefix))?;
        let name = &path[service.len()..];
        let meant = |call: &Call| call.service() == Some(service) && call.name() == name;
        Some(Call::ALL.into_iter().find(meant).unwrap_or(Call::Other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn every_method_of_the_protos_is_a_call() {
        let set = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
        let set = prost_types::FileDescriptorSet::decode(&set[..]).expect("descriptors");
        let mut found = 0;
        for file in &set.file {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let call = Call::of_path(&path).expect("a service of ours");
                    assert_eq!(call.name(), method.name(), "{path}");
                    found += 1;
                }
            }
        }
        // Reflection shows neither what nodes ask one another nor what is no call.
        assert_eq!(found, Call::ALL.len() - 3);
    }

    #[test]
    fn a_method_belongs_to_its_own_service() {
        assert_eq!(Call::of_path(&format!("{CLUSTER}Register")), Some(Call::Other));
        assert_eq!(Call::of_path(&format!("{REGISTRY}Other")), Some(Call::Other));
        assert_eq!(Call::of_path("/grpc.health.v1.Health/Check"), None);
    }

    #[test]
    fn calls_are_counted_in_their_order() {
        for (index, call) in Call::ALL.into_iter().enumerate() {
            assert_eq!(call as usize, index);
        }
    }
}
