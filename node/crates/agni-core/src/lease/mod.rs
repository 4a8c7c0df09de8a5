//! Leases: soft state of a partition's leader that says until when each record is alive.
//!
//! Nothing in here is replicated, and nothing in here decides what a record says. Deadlines are
//! milliseconds of the `LeaseClock`, handed in by the caller. What runs out is proposed as an
//! `Expire` command, and only its application removes a record.

mod clock;
mod domain;
mod guard;
mod mass_expiry;
mod table;
mod wheel;

pub use clock::{Gap, LeaseClock};
pub use domain::Domain;
pub(crate) use domain::Home;
pub use guard::GuardSettings;
pub(crate) use guard::Tally;
pub(crate) use mass_expiry::Verdict;
pub use mass_expiry::{MassExpiry, MassExpiryNews, Visit};
pub(crate) use table::{LeaseTable, Liveness, Load};
pub use wheel::TICK_MS;
