//! A member sees to it that the cluster knows where it can be reached.

use super::face::Face;
use super::join;
use crate::limits;
use crate::log::{self, Level};
use agni_core::engine::Engine;
use agni_core::proto::node::SystemState;
use agni_core::system;
use std::sync::Arc;
use std::time::Duration;

/// What the cluster knows of this node.
enum Known {
    Right,
    Wrong,
    Gone,
}

fn known(face: &Face, engine: &Engine, state: &SystemState) -> Known {
    let Some(me) = system::member(state, engine.node_id()) else { return Known::Right };
    if !system::takes_part(me) {
        return Known::Gone;
    }
    let config = &face.config;
    let is_right = me.name == config.name
        && me.client_address == config.client_address
        && me.peer_address == config.address
        && me.zone == config.zone;
    if is_right { Known::Right } else { Known::Wrong }
}

/// Compares what the cluster knows with what is so, for ever.
pub async fn announce(face: Arc<Face>, engine: Engine) {
    let mut told_gone = false;
    let mut seen = None;
    loop {
        let version = engine.system_version();
        if seen != Some(version) {
            let state = engine.system_state();
            match known(&face, &engine, &state) {
                Known::Right => seen = Some(version),
                Known::Wrong => {
                    if tell(&face, &engine, &state).await.is_err() {
                        tokio::time::sleep(Duration::from_millis(limits::PEER_BACKOFF_MS_MAX))
                            .await;
                    }
                }
                Known::Gone => {
                    seen = Some(version);
                    if !std::mem::replace(&mut told_gone, true) {
                        let remedy = "wipe its data directory to join anew, or stop it";
                        let fields =
                            [("node_id", engine.node_id().into()), ("remedy", remedy.into())];
                        log::write(Level::Error, "this node was removed from the cluster", &fields);
                    }
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(limits::PEER_MEMBERS_CHECK_MS)).await;
    }
}

/// Tells the first member that listens, beginning with itself: any takes it to the leader.
async fn tell(face: &Face, engine: &Engine, state: &SystemState) -> Result<(), ()> {
    let others = system::present(state).filter(|member| member.node_id != engine.node_id());
    let others = others.map(|member| member.peer_address.as_str());
    for address in std::iter::once(face.config.address.as_str()).chain(others) {
        if join::ask(face, address).await.is_ok() {
            let fields = [
                ("address", face.config.address.as_str().into()),
                ("client_address", face.config.client_address.as_str().into()),
            ];
            log::write(Level::Info, "the cluster knows this node's new addresses", &fields);
            return Ok(());
        }
    }
    Err(())
}
