//! A member sees to it that the cluster knows where it can be reached.

use super::face::Face;
use super::join;
use crate::limits;
use crate::log::{self, Level};
use agni_core::engine::Engine;
use agni_core::proto::node::SystemState;
use agni_core::system::{self, SYSTEM_PARTITION};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

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

/// Compares what the cluster knows with what is so, until it is removed.
pub async fn announce(face: Arc<Face>, engine: Engine) {
    let mut seen = None;
    let mut led = Instant::now();
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
                Known::Gone => return leave(&face, &engine),
            }
        }
        if engine.leader_of(SYSTEM_PARTITION) != 0 {
            led = Instant::now();
        } else if led.elapsed() >= Duration::from_millis(limits::SILENCE_BEFORE_ASKING_MS) {
            // Whoever is removed while it is away is never told: nobody speaks to it any more.
            if is_removed(&face, &engine).await {
                return leave(&face, &engine);
            }
            led = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(limits::PEER_MEMBERS_CHECK_MS)).await;
    }
}

/// Asks the others that it knows of.
async fn is_removed(face: &Face, engine: &Engine) -> bool {
    let state = engine.system_state();
    for member in system::present(&state).filter(|member| member.node_id != engine.node_id()) {
        if face.greet(&member.peer_address).await.is_ok_and(|answer| answer.you_have_left) {
            return true;
        }
    }
    false
}

fn leave(face: &Face, engine: &Engine) {
    face.has_left.store(true, Relaxed);
    let remedy = "wipe its data directory to join anew";
    let fields = [("node_id", engine.node_id().into()), ("remedy", remedy.into())];
    log::write(Level::Error, "this node was removed from the cluster", &fields);
}

/// Tells the leader, by way of the first member that says who that is, itself before all others.
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
