//! What goes wrong, and for how long.

use crate::check::Checked;
use crate::world::{What, World};

/// A misfortune.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A process dies; with `power`, unsynced bytes die with it.
    Kill { node: usize, power: bool },
    /// All machines lose power at once.
    Blackout,
    /// A process stands still.
    Pause { node: usize, for_us: u64 },
    /// One node is cut off from all others.
    Isolate { node: usize, for_us: u64 },
    /// Nothing from one node reaches another.
    OneWay { from: usize, to: usize, for_us: u64 },
    /// Messages are lost, doubled, late and out of order.
    BadNetwork { loss_permille: u64, slow_us: u64, for_us: u64 },
    /// A disk takes long.
    SlowDisk { node: usize, append_us_max: u64, for_us: u64 },
    /// A sync fails.
    BrokenDisk { node: usize },
    /// The wall clock of a node jumps.
    WallJump { node: usize, by_ms: i64 },
    /// Somebody asks for another leader.
    Transfer,
    /// The same, and the old leader doesn't hear of the new one for a while.
    TransferUnheard { from: usize, to: usize, for_us: u64 },
    /// A disk takes nothing new.
    FullDisk { node: usize, for_us: u64 },
    /// A machine is gone for ever, with its disk.
    Lose { node: usize },
    /// Somebody asks a node for snapshots.
    Snapshot { node: usize },
    /// A leader loses one voter from sight; when that one asks the other for its vote, the other
    /// has just restarted, and both are out of the leader's sight.
    Desertion,
    /// A leader and as few voters as make a quorum with it stand still together, for `for_us`; the
    /// others are out of its sight. It wakes up first and begins a round. Those voters wake up to
    /// it, confirm it, and hear no more of this leader.
    Awakening { for_us: u64, later_us: u64 },
    /// A leader's machine is suspended, and its time since boot with it; its wall clock is set when
    /// it goes on. The others are out of its sight by then, and elect another leader.
    Suspend { for_us: u64 },
}

impl Fault {
    /// Any fault.
    pub fn draw(world: &mut World) -> Fault {
        let count = world.nodes.len() as u64;
        let random = &mut world.random;
        let node = random.below(count) as usize;
        let other = (node + 1 + random.below(count - 1) as usize) % count as usize;
        match random.below(31) {
            0..=2 => Fault::Kill { node, power: random.chance(500) },
            3 => Fault::Blackout,
            4..=6 => Fault::Pause { node, for_us: random.between(100_000, 12_000_000) },
            7 | 8 => Fault::Isolate { node, for_us: random.between(300_000, 6_000_000) },
            9 => {
                Fault::OneWay { from: node, to: other, for_us: random.between(300_000, 6_000_000) }
            }
            10 => Fault::BadNetwork {
                loss_permille: random.between(10, 400),
                slow_us: random.between(1_000, 300_000),
                for_us: random.between(500_000, 4_000_000),
            },
            11 => Fault::SlowDisk {
                node,
                append_us_max: random.between(50_000, 3_000_000),
                for_us: random.between(500_000, 5_000_000),
            },
            12 => Fault::BrokenDisk { node },
            13 => Fault::WallJump { node, by_ms: random.below(7_200_000) as i64 - 3_600_000 },
            14 | 15 => Fault::Transfer,
            16 | 17 => Fault::Desertion,
            18 | 19 => Fault::FullDisk { node, for_us: random.between(500_000, 8_000_000) },
            20 | 21 => Fault::Lose { node },
            22 | 23 => Fault::Snapshot { node },
            24 | 25 => Fault::Suspend { for_us: random.between(1_200_000, 3_000_000) },
            26 | 27 => Fault::Awakening {
                for_us: random.between(500_000, 1_000_000),
                later_us: random.between(4_000, 60_000),
            },
            _ => Fault::TransferUnheard {
                from: node,
                to: other,
                for_us: random.between(300_000, 2_000_000),
            },
        }
    }

    /// Makes it happen, and plans its end.
    pub fn begin(self, world: &mut World) -> Checked {
        match self {
            Fault::Kill { node, power } => self.kill(world, node, power),
            Fault::Blackout => {
                (0..world.nodes.len()).for_each(|node| self.kill(world, node, true));
            }
            Fault::Pause { node, for_us } => {
                world.pause(node);
                world.plan(for_us, What::Resume(node));
            }
            Fault::Isolate { node, for_us } => {
                for other in (0..world.nodes.len()).filter(|other| *other != node) {
                    world.network.cut(node, other);
                    world.network.cut(other, node);
                }
                world.plan(for_us, What::Heal(None));
            }
            Fault::OneWay { from, to, for_us } => {
                world.network.cut(from, to);
                world.plan(for_us, What::Heal(None));
            }
            Fault::BadNetwork { loss_permille, slow_us, for_us } => {
                world.network.loss_permille = loss_permille;
                world.network.twice_permille = loss_permille / 2;
                world.network.slow_us = slow_us;
                world.plan(for_us, What::Heal(None));
            }
            Fault::SlowDisk { node, append_us_max, for_us } => {
                world.append_us_max[node] = append_us_max;
                world.plan(for_us, What::Heal(Some(node)));
            }
            Fault::BrokenDisk { node } => {
                if world.nodes[node].life.is_some() {
                    world.nodes[node].disk.fail_syncs();
                }
            }
            Fault::FullDisk { node, for_us } => {
                world.nodes[node].fill_disk();
                world.plan(for_us, What::MakeRoom(node));
            }
            Fault::Lose { node } => {
                let may = world.operator.is_restless && !world.operator.is_frugal;
                if may && world.may_lose(node) {
                    world.kill(node, true);
                    world.nodes[node].is_lost = true;
                }
            }
            Fault::Snapshot { node } => return world.snapshot(node),
            Fault::WallJump { node, by_ms } => world.nodes[node].clock.jump_wall(by_ms),
            Fault::Transfer => {
                let count = world.nodes.len() as u64;
                let from = world.random.below(count) as usize;
                let to = (from + 1 + world.random.below(count - 1) as usize) % count as usize;
                return world.transfer(from, to);
            }
            Fault::Desertion => {
                let Some(leader) = world.leader(0) else { return Ok(()) };
                let count = world.nodes.len();
                let restarted = (leader + 1) % count;
                for other in (0..count).filter(|other| ![leader, restarted].contains(other)) {
                    world.network.cut(leader, other);
                    world.network.cut(other, leader);
                }
                world.deserting = Some((leader, restarted));
                world.plan(4_000_000, What::Heal(None));
            }
            Fault::Suspend { for_us } => {
                let Some(leader) = world.leader(0) else { return Ok(()) };
                world.pause(leader);
                world.nodes[leader].clock.stop();
                for other in (0..world.nodes.len()).filter(|other| *other != leader) {
                    world.network.cut(leader, other);
                    world.network.cut(other, leader);
                }
                world.plan(for_us, What::Resume(leader));
                world.plan(for_us + 1_000_000, What::Heal(None));
            }
            Fault::Awakening { for_us, later_us } => self.awakening(world, for_us, later_us),
            Fault::TransferUnheard { from, to, for_us } => {
                for other in (0..world.nodes.len()).filter(|other| *other != from) {
                    world.network.cut(other, from);
                }
                world.plan(for_us, What::Heal(None));
                return world.transfer(from, to);
            }
        }
        Ok(())
    }

    fn awakening(self, world: &mut World, for_us: u64, later_us: u64) {
        let Some(leader) = world.leader(0) else { return };
        let count = world.nodes.len();
        world.pause(leader);
        world.plan(for_us, What::Resume(leader));
        for distance in 1..count {
            let other = (leader + distance) % count;
            if distance <= count / 2 {
                // Once it has confirmed what the leader has begun before.
                world.plan(10_000, What::Pause(other));
                world.plan(for_us + later_us, What::Awaken { leader, voter: other });
            } else {
                world.network.cut(leader, other);
                world.network.cut(other, leader);
            }
        }
        world.plan(for_us + 2_000_000, What::Heal(None));
    }

    fn kill(self, world: &mut World, node: usize, power: bool) {
        world.kill(node, power);
        let in_us = world.random.between(50_000, 4_000_000);
        world.plan(in_us, What::Start(node));
    }
}
