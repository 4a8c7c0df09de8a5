//! Every limit of the engine, with its unit in its name. A queue, batch, retry or size that is
//! not bounded by something in here is a defect.

/// Most partitions a cluster may have.
pub const PARTITIONS_MAX: u32 = 1024;
/// Partitions of a new cluster that does not say otherwise.
pub const PARTITIONS_DEFAULT: u32 = 16;

/// Replicas of a partition in a new cluster, as far as there are nodes.
pub const REPLICATION_DEFAULT: u32 = 3;
/// Most replicas that a partition may have.
pub const REPLICATION_MAX: u32 = 7;
/// Nodes that vote in the system group, at most; the others follow.
pub const SYSTEM_VOTERS_MAX: usize = 5;
/// Nodes that may ever join a cluster, those that left included.
pub const MEMBERS_EVER_MAX: usize = 10_000;

/// Submissions waiting for the driver before more are refused as overload.
pub const INBOX_SUBMISSIONS_MAX: usize = 65_536;
/// How much of a full queue deregistrations may fill, in percent; renewals may fill all of it.
pub const DEREGISTER_MARK_PERCENT: usize = 90;
/// The same for registrations, changes and reads of one record.
pub const REGISTER_MARK_PERCENT: usize = 75;
/// The same for watches that begin or catch up.
pub const WATCH_MARK_PERCENT: usize = 60;
/// The same for lists and discoveries.
pub const MANY_MARK_PERCENT: usize = 45;
/// Delay that an overloaded driver asks for, in milliseconds.
pub const OVERLOAD_RETRY_MS: u64 = 100;

/// Time between two Raft ticks, in milliseconds.
pub const TICK_MS: u64 = 100;
/// Ticks between heartbeats of a leader.
pub const HEARTBEAT_TICKS: usize = 2;
/// Ticks without a leader before a follower campaigns.
pub const ELECTION_TICKS: usize = 10;
/// Ticks between the turns of two voters that lost their leader: an election fits in between.
pub const ELECTION_TURN_TICKS: usize = 2;
/// Ticks made up for at once after a stall: more would start needless elections.
pub const CATCH_UP_TICKS_MAX: u64 = 5;
/// Drift between the clocks of two nodes that the clock-bound lease allows for, in percent.
pub const CLOCK_DRIFT_PERCENT: u64 = 10;
/// How long a leader may rely on a quorum round, from its start, in microseconds: no voter of that
/// quorum elects another one before.
pub const LEASE_US: u64 =
    (ELECTION_TICKS as u64 - 1) * TICK_MS * 1000 * (100 - CLOCK_DRIFT_PERCENT) / 100;
/// A driver that was away for longer may have been stopped together with its clock: the clock-bound
/// lease is void then.
pub const DOUBTFUL_GAP_US: u64 = LEASE_US / 2;
/// How far the wall clock may part from the time since boot between two turns of the driver, in
/// milliseconds: more is a jump, and one of the two was wrong about the time in between.
pub const WALL_JUMP_MS: u64 = 50;
/// A driver that was away for longer was stopped, not busy: leases don't count the rest of it.
pub const STALL_US: u64 = 500_000;
/// Reads, renewals and expiries of one partition that wait for a quorum round.
pub const CLAIMS_MAX: usize = 65_536;
/// Bytes of one append message.
pub const APPEND_MESSAGE_BYTES_MAX: u64 = 256 << 10;
/// Append messages under way to one follower.
pub const APPEND_MESSAGES_IN_FLIGHT_MAX: usize = 256;
/// Bytes of proposals of one partition that wait to be committed.
pub const UNCOMMITTED_BYTES_MAX: u64 = 32 << 20;
/// Bytes of committed entries applied in one turn of one partition.
pub const COMMITTED_BYTES_PER_TURN_MAX: u64 = 8 << 20;
/// Entries kept in memory behind the applied one for followers that lag.
pub const LOG_TAIL_ENTRIES_MAX: u64 = 5_000;
/// The same while a follower is being sent a snapshot or catches up behind one.
pub const LOG_TAIL_ENTRIES_CATCH_UP_MAX: u64 = 100_000;
/// Ticks between two looks at whether a group's members are the wanted ones.
pub const MEMBERSHIP_TICKS: u64 = 2;
/// Entries that a learner may lack when it is made a voter.
pub const CAUGHT_UP_ENTRIES: u64 = 100;
/// A node that was not heard for longer does not count as alive, in microseconds.
pub const SILENT_US: u64 = 2 * ELECTION_TICKS as u64 * TICK_MS * 1000;
/// How long a replica whose state is in doubt leaves the election to others, in microseconds: time
/// for two attempts of each. By then nobody else can be elected without what this one has.
pub const SUSPECT_STANDS_US: u64 = 3 * ELECTION_TICKS as u64 * TICK_MS * 1000;
/// Peer messages that wait for the driver; Raft repeats what finds no place.
pub const INBOX_MESSAGES_MAX: usize = 65_536;

/// Time between two looks at the timing wheels, in milliseconds.
pub const EXPIRY_SCAN_MS: u64 = 50;
/// The part of its time to live after which a lease that wasn't renewed is late, in percent. Owners
/// renew after a third of it, so a late one has missed it; and those that fell silent together are
/// all late before the first of them is due, because no deadline is further than a third from
/// another's.
pub const LATE_AFTER_PERCENT: u64 = 60;
/// The share of a domain's leases above which their silence is one fault, in percent.
pub const MASS_EXPIRY_SHARE_PERCENT_DEFAULT: u32 = 30;
/// Silent leases below which it never is.
pub const MASS_EXPIRY_LEASES_MIN_DEFAULT: u32 = 5;
/// Leases of a domain that go in a second once they were held for long enough.
pub const MASS_EXPIRY_LEASES_PER_S_DEFAULT: u32 = 1_000;
/// After how long a lease that was named for removal and is still there is named again, in
/// milliseconds.
pub const EXPIRY_RETRY_MS: u64 = 2_000;
/// Leases that a node names for removal at a time. Reads of their partition wait while it applies
/// that, and the driver doesn't keep a processor from others for longer.
pub const EXPIRY_BATCH_LEASES_MAX: usize = 100;
/// Time from one batch to the next, in microseconds. Readers see none of them any more, so there is
/// no hurry: 100,000 that end at once are gone within 1.5 s.
pub const EXPIRY_PACE_US: u64 = 1_250;

/// Bytes of log since the last round of snapshots that start the next one.
pub const SNAPSHOT_WAL_BYTES_DEFAULT: u64 = 256 << 20;
/// Bytes of a snapshot's block before it is compressed.
pub const SNAPSHOT_BLOCK_BYTES_MAX: usize = 256 << 10;
/// Snapshots kept of each partition: the newest, and one to fall back to.
pub const SNAPSHOTS_KEPT: usize = 2;
/// Time between two comparisons of the states of a partition's replicas, in milliseconds.
pub const STATE_CHECK_MS_DEFAULT: u64 = 10_000;
/// Snapshots that may wait to be taken because somebody asked.
pub const SNAPSHOT_REQUESTS_MAX: usize = 64;

/// Bytes of a segment of the log.
pub const WAL_SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
/// Bytes kept aside, to be given up when the disk is full.
pub const DISK_RESERVE_BYTES_DEFAULT: u64 = 64 << 20;
/// Bytes of the reserve that are written in one step, where a file system can't set them aside.
pub const DISK_SLICE_BYTES: u64 = 1 << 20;
/// Bytes of a segment that is made where there is no room for a whole one.
pub const WAL_SMALL_SEGMENT_BYTES: u64 = 1 << 20;
/// One KiB in so many of a segment is kept for what a node must write to lead: votes, empty
/// entries, and marks of snapshots, which is what a start with a full disk needs.
pub const WAL_MARGIN_ONE_IN: u64 = 64;
/// Time between two tries to append what a full disk refused, in milliseconds.
pub const DISK_FULL_RETRY_MS: u64 = 100;
/// Delay that a node with a full disk asks for, in milliseconds.
pub const DISK_FULL_CLIENT_RETRY_MS: u64 = 5_000;
/// How long an append may take before its node gives away what it leads, in microseconds.
pub const SLOW_APPEND_US: u64 = 1_000_000;
/// How long such an append counts, in microseconds.
pub const SLOW_APPEND_COUNTS_US: u64 = 10_000_000;
/// Time between two looks at the free space, in milliseconds.
pub const DISK_CHECK_MS: u64 = 500;

/// A renewal is asked for after this part of the time to live has passed (1/3), before jitter.
pub const RENEWALS_PER_TTL: i64 = 3;
/// Jitter of the next renewal, in percent of it, downwards.
pub const RENEWAL_JITTER_PERCENT: i64 = 20;
/// What is answered when nothing was renewed, in milliseconds.
pub const RENEWAL_DEFAULT_MS: i64 = 10_000;
/// Ticks that a transfer of leadership may take: its target lacks few entries, and a vote is quick.
pub const TRANSFER_TICKS_MAX: u32 = 5;
/// A leader hands over to who has answered within this time: three heartbeats, in microseconds.
pub const ANSWERS_US: u64 = 3 * HEARTBEAT_TICKS as u64 * TICK_MS * 1000;
/// Least time before somebody who didn't take the leadership is offered it again, in microseconds.
pub const TRANSFER_PAUSE_US_MIN: u64 = 2_000_000;
/// Most time before that, in microseconds.
pub const TRANSFER_PAUSE_US_MAX: u64 = 60_000_000;
/// Time that a leader leads before it hands over to the voter that should, in microseconds.
pub const PREFERRED_AFTER_US: u64 = 5_000_000;
/// Time between two questions of a follower after how far everything is complete, in microseconds,
/// while somebody reads stale data there.
pub const AGE_USED_US: u64 = 100_000;
/// The same while nobody does.
pub const AGE_IDLE_US: u64 = 1_000_000;
/// The age of a state of which nothing is known: as old as a number on the wire can say.
pub const AGE_UNKNOWN_MS: u64 = i64::MAX as u64;
