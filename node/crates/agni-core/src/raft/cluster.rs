//! What a node does for the cluster by itself: it moves the groups that it leads towards their
//! wanted members, tells the system group what it has reached, and lets go of what it no longer
//! has to hold.

use crate::proto::node::{MemberState, SystemState};
use crate::raft::core::Core;
use crate::raft::group::Group;
use crate::raft::work::PeerMessage;
use crate::system::{self, SYSTEM_PARTITION};
use std::sync::Arc;

impl Core {
    /// The cluster as this node knows it; none before it has heard of it.
    pub fn system_state(&self) -> Option<Arc<SystemState>> {
        let system = self.groups.last()?;
        system.cell().store.read().system().cloned()
    }

    pub(super) fn look_at_members(&mut self) {
        let Some(state) = self.system_state() else { return };
        let now_us = self.clock.boot_us();
        let me = self.settings.node_id;
        let is_leaving = self.is_leaving;
        let may_lead = !is_leaving && self.fitness.may_lead(now_us);
        let unfit = self.fitness.unfit();
        let leads_freely = |id: u64| {
            if (id == me && !may_lead) || unfit.contains(&id) {
                return false;
            }
            let known = system::member(&state, id);
            known.is_some_and(|member| member.state() == MemberState::Active)
        };
        let mut reports = Vec::new();
        for group in &mut self.groups {
            let partition = group.partition();
            let (wanted, learners) = wanted_replicas(&state, group);
            if group.leads() && !leads_freely(me) {
                // Who isn't wanted would only hand it back.
                group.hand_over(|id| leads_freely(id) && wanted.contains(&id), now_us);
                if is_leaving {
                    group.hand_over(leads_freely, now_us);
                }
            }
            if partition == SYSTEM_PARTITION {
                group.reconfigure(&wanted, &learners, now_us);
                continue;
            }
            let Some(placement) = system::placement(&state, partition) else { continue };
            if group.leads() {
                group.reconfigure(&wanted, &learners, now_us);
                if let Some(preferred) = wanted.first().filter(|id| leads_freely(**id)) {
                    group.prefer(*preferred, now_us);
                }
                reports.extend(group.report(placement));
            } else if group.is_orphaned(placement.reported_index)
                && !placement.wanted.contains(&me)
                && !system::is_reported_on(placement, me)
            {
                group.discard(&mut self.turn);
            }
        }
        let Some(system) = self.groups.last_mut() else { return };
        for report in &reports {
            let message = system.bring(report);
            let partition = SYSTEM_PARTITION;
            let wrap = |message| PeerMessage { partition, message, sender_is_unfit: false };
            self.turn.messages.extend(message.map(wrap));
        }
    }
}

/// Who should vote in a group that is led here, the preferred leader first, and who should follow.
fn wanted_replicas(state: &SystemState, group: &Group) -> (Vec<u64>, Vec<u64>) {
    if !group.leads() {
        return Default::default();
    }
    match group.partition() {
        SYSTEM_PARTITION => system::wanted_system_replicas(state, &group.replicas().voters),
        partition => {
            let placement = system::placement(state, partition);
            (placement.map_or_else(Vec::new, |placement| placement.wanted.clone()), Vec::new())
        }
    }
}
