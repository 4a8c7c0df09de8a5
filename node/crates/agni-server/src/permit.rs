//! Who may make which call. Without TLS nobody is known, and so everybody may; that is why a node
//! without it keeps to its own machine.

use crate::call::Call;
use crate::node::Node;
use crate::status::{Code, RpcError};
use crate::tls::Identity;
use http::Extensions;

/// Refuses what this caller may not do.
///
/// # Errors
/// Says whose call it is.
pub fn permit(node: &Node, call: Call, caller: &Extensions) -> Result<(), RpcError> {
    if node.tls.is_none() {
        return Ok(());
    }
    decide(call, caller.get::<Identity>())
}

fn decide(call: Call, caller: Option<&Identity>) -> Result<(), RpcError> {
    let is_node = || caller.is_some_and(|identity| identity.node_name().is_some());
    let is_operator = || caller.is_some_and(Identity::is_operator);
    match call {
        Call::Ask | Call::Copy if !is_node() => Err(RpcError::new(
            Code::PermissionDenied,
            "NOT_A_NODE",
            "this is for nodes among each other: use the registry's own calls",
        )),
        Call::Snapshot
        | Call::Backup
        | Call::ChangeMember
        | Call::PlacePartition
        | Call::TransferLeader
            if !is_operator() =>
        {
            Err(RpcError::new(
                Code::PermissionDenied,
                "NOT_THE_OPERATOR",
                format!("{} is for the operator: use its certificate", call.name()),
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_is_the_operators_and_questions_between_nodes_are_the_nodes() {
        let reason = |call, who: &str| {
            let identity = Identity::parse(&format!("spiffe://eu.example{who}")).unwrap();
            decide(call, Some(&identity)).err().map(|error| error.reason)
        };
        let (node, operator, agent) = ("/registry/node/n1", "/operator", "/t/default/agent/a");
        for call in Call::ALL {
            match call {
                Call::Ask | Call::Copy => {
                    assert_eq!(reason(call, node), None);
                    assert_eq!(reason(call, operator), Some("NOT_A_NODE"));
                    assert_eq!(reason(call, agent), Some("NOT_A_NODE"));
                }
                Call::Snapshot
                | Call::Backup
                | Call::ChangeMember
                | Call::PlacePartition
                | Call::TransferLeader => {
                    assert_eq!(reason(call, operator), None);
                    assert_eq!(reason(call, node), Some("NOT_THE_OPERATOR"));
                    assert_eq!(reason(call, agent), Some("NOT_THE_OPERATOR"));
                    assert!(decide(call, None).is_err());
                }
                _ => assert_eq!(reason(call, agent), None),
            }
        }
    }
}
