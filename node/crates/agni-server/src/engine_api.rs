//! STUB
use agni_core::proto::{api, node};
use bytes::Bytes;
use std::path::PathBuf;
pub type Ticket = u64;
#[derive(Debug)]
pub enum Work { Write(node::Command), Renew(Vec<(u64, Option<api::Capacity>)>), Snapshot }
#[derive(Debug)]
pub struct Submission { pub ticket: Ticket, pub partition: u32, pub work: Work }
#[derive(Debug)]
pub enum Outcome { Put{revision:u64,create_revision:u64,lease_id:u64,ttl_ms:i64,incarnation:u64,created:bool}, Patched{revision:u64}, Deleted{revision:u64,existed:bool}, Draining{revision:u64}, Expired{removed:u32, spared:u32}, Refused(Refusal) }
#[derive(Debug)]
pub enum Refusal { NotFound, StaleIncarnation{stored:u64}, RevisionMismatch{expected:u64, stored:u64}, AlreadyExists{stored:u64}, InvalidSpec{field:String,message:String} }
#[derive(Debug)]
pub struct SnapshotMeta { pub file: String, pub bytes: u64, pub index: u64, pub term: u64, pub revision: u64, pub records: u64, pub partition: u32 }
#[derive(Debug)]
pub enum Answer { Written{ outcome: Outcome, term: u64, store_revision: u64, next_renewal_ms: i64 }, Renewed{ lost: Vec<u64>, renewed: u32, next_renewal_ms: i64 }, Snapshot(SnapshotMeta), SnapshotFailed(String), Refused(Refuse) }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refuse { Overloaded{retry_ms: u64}, DiskFull, NotLeader{leader:u64}, ShuttingDown, NotReady, StalenessExceeded }
pub trait Deliver: Send { fn answers(&mut self, a: &mut Vec<(Ticket, Answer)>); fn changed(&mut self, partitions: &[u32]); }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadPoint { pub revision: u64, pub term: u64, pub age_ms: u64 }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness { Linearizable, Leader, Stale { max_ms: u64 }, Local }
#[derive(Debug, Clone)]
pub struct InstanceOwned { pub record: Bytes, pub status: api::Status, pub lease_remaining_ms: Option<i64>, pub load: Option<(api::Capacity, u64)> }
#[derive(Debug, Clone)]
pub struct EngineConfig { pub data_dir: PathBuf, pub partitions: u32, pub cluster_id: Option<[u8; 16]>, pub snapshot_wal_bytes: u64, pub disk_reserve_bytes: u64, pub wal_segment_bytes: u64, pub queue_limit: usize, pub mass_expiry_guard: bool }
impl Default for EngineConfig { fn default() -> Self { unimplemented!() } }
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskState { Ok, Low, Full }
#[derive(Debug, Clone, Default)]
pub struct PartitionState { pub partition: u32, pub term: u64, pub leader_id: u64, pub commit_index: u64, pub applied_index: u64, pub revision: u64, pub records: u64, pub leases: u64, pub snapshot_index: u64, pub suspect_domains: u32, pub memory_bytes: u64 }
#[derive(Debug, Clone)]
pub struct EngineStatus { pub ready: bool, pub disk: DiskState, pub wal_bytes: u64, pub uptime_ms: u64, pub partitions: Vec<PartitionState> }
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct StartError;
impl StartError { pub fn code(&self) -> &'static str { "x" } }
pub struct KeyRef<'a> { pub namespace: &'a str, pub kind: api::Kind, pub name: &'a str }
impl KeyRef<'_> { pub fn of(_k: &api::Key) -> KeyRef<'_> { unimplemented!() } }
pub struct Histogram; impl Histogram { pub fn observe(&self, _v: u64) {} pub fn read(&self) -> ([u64; 26], u64) { unimplemented!() } pub fn bound(_i: usize) -> Option<u64> { None } }
impl Default for Histogram { fn default() -> Self { Histogram } }
use std::sync::atomic::AtomicU64;
#[derive(Default)]
pub struct EngineMetrics { pub queue_us: Histogram, pub fsync_us: Histogram, pub apply_us: Histogram, pub batch_entries: Histogram, pub batch_bytes: Histogram, pub expiry_lag_ms: Histogram, pub snapshot_us: Histogram, pub proposals: AtomicU64, pub overloaded: AtomicU64, pub disk_full: AtomicU64, pub renewals: AtomicU64, pub renewals_lost: AtomicU64, pub expired: AtomicU64, pub expiry_spared: AtomicU64, pub snapshots: AtomicU64, pub snapshots_failed: AtomicU64 }
pub struct Store;
pub struct CompiledFilter; impl CompiledFilter { pub fn new(_f: &api::Filter) -> Self { unimplemented!() } }
pub struct ListPosition { pub revision: Option<u64>, pub after_slot: Option<u32> }
pub struct ListPage { pub instances: Vec<InstanceOwned>, pub next_slot: Option<u32>, pub revision: u64 }
#[derive(Debug)]
pub struct PageExpired;
#[derive(Debug)]
pub struct Compacted;
pub struct Sample { pub matched: u64, pub instances: Vec<InstanceOwned> }
#[derive(Clone, Debug)]
pub struct Event { pub revision: u64, pub slot: u32, pub kind: api::EventType, pub created: bool, pub record: Option<Bytes>, pub previous: Option<Bytes>, pub key: api::Key }
#[derive(Clone, Debug, Default)]
pub struct DifferenceCursor;
pub struct DifferencePage { pub events: Vec<Event>, pub present: Vec<api::Key>, pub present_complete: bool, pub revision: u64, pub next: Option<DifferenceCursor> }
impl Store {
  pub fn revision(&self) -> u64 { 0 }
  pub fn get(&self, _k: &KeyRef, _now: u64) -> Option<InstanceOwned> { None }
  pub fn list(&self, _f: &CompiledFilter, _at: ListPosition, _l: usize, _b: usize, _now: u64) -> Result<ListPage, PageExpired> { unimplemented!() }
  pub fn sample(&self, _f: &CompiledFilter, _w: usize, _rng: &mut dyn FnMut() -> u64, _now: u64) -> Sample { unimplemented!() }
  pub fn explain(&self, _k: &KeyRef, _f: &CompiledFilter, _now: u64) -> Option<(api::ExclusionReason, String)> { None }
  pub fn events_after(&self, _r: u64, _l: usize) -> Result<Vec<Event>, Compacted> { unimplemented!() }
  pub fn difference_after(&self, _r: u64, _c: DifferenceCursor, _l: usize) -> DifferencePage { unimplemented!() }
}
#[derive(Clone)]
pub struct Engine;
impl Engine {
  pub fn start(_c: EngineConfig, _d: Box<dyn Deliver>) -> Result<Engine, StartError> { unimplemented!() }
  pub fn submit(&self, _b: &mut Vec<Submission>) {}
  pub fn partition_of(&self, _k: &KeyRef<'_>) -> u32 { 0 }
  pub fn partition_count(&self) -> u32 { 1 }
  pub fn cluster_id(&self) -> [u8; 16] { [0; 16] }
  pub fn node_id(&self) -> u64 { 1 }
  pub fn read<T>(&self, _p: u32, _f: Freshness, f: impl FnOnce(&Store, ReadPoint, u64) -> T) -> Result<T, Refuse> { Ok(f(&Store, ReadPoint { revision: 0, term: 0, age_ms: 0 }, 0)) }
  pub fn now_ms(&self) -> u64 { 0 }
  pub fn metrics(&self) -> &EngineMetrics { unimplemented!() }
  pub fn status(&self) -> EngineStatus { unimplemented!() }
  pub fn is_ready(&self) -> bool { true }
  pub fn stop(&self) {}
}
