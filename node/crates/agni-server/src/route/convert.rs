//! Work, answers and refusals in the form in which nodes send them to one another.

use agni_core::proto::node::ask_refused::Why;
use agni_core::proto::node::ask_request::Work as Asked;
use agni_core::proto::node::ask_response::Answer as Told;
use agni_core::proto::node::write_done::{self, DeleteOutcome, PutOutcome, SystemDone};
use agni_core::proto::node::{AskRefused, RenewDone, WriteDone};
use agni_core::raft::work::{Answer, Priority, Refuse, Work};
use agni_core::store::{Outcome, Refusal};
use agni_core::system::{self, SystemOutcome, SystemRefusal};

/// What the engine is asked.
pub fn asked(work: Asked) -> Work {
    match work {
        Asked::Write(command) => Work::Write(command),
        Asked::Renew(renew) => {
            Work::Renew(renew.leases.into_iter().map(|l| (l.lease_id, l.free)).collect())
        }
        Asked::TransferTo(to) => Work::Transfer { to },
        // Reads don't get here: what they ask for has been looked up already.
        Asked::Read(_) => Work::Read(Priority::Many),
    }
}

/// The engine's answer for another node.
pub fn answered(answer: Answer) -> Told {
    match answer {
        Answer::Written { outcome, term, store_revision, next_renewal_ms } => {
            let outcome = Some(outcome_done(outcome));
            Told::Written(WriteDone { term, store_revision, next_renewal_ms, outcome })
        }
        Answer::Renewed { renewed, lost, next_renewal_ms } => {
            Told::Renewed(RenewDone { renewed, lost, next_renewal_ms })
        }
        Answer::Transferring => Told::Transferring(true),
        Answer::Refused(refuse) => Told::Refused(refusal_of(refuse)),
        Answer::Readable | Answer::Snapshot(_) | Answer::SnapshotFailed(_) => {
            Told::Refused(refusal_of(Refuse::NotReady))
        }
    }
}

/// The engine's answer, as another node sent it; none when it can't be understood.
pub fn heard(told: Told) -> Option<Result<super::Done, Refuse>> {
    use super::Done;
    Some(match told {
        Told::Written(done) => {
            let WriteDone { term, store_revision, next_renewal_ms, outcome } = done;
            let outcome = outcome_heard(outcome?)?;
            Ok(Done::Engine(Answer::Written { outcome, term, store_revision, next_renewal_ms }))
        }
        Told::Renewed(RenewDone { renewed, lost, next_renewal_ms }) => {
            Ok(Done::Engine(Answer::Renewed { renewed, lost, next_renewal_ms }))
        }
        Told::Read(done) => Ok(Done::Read(done)),
        Told::Transferring(_) => Ok(Done::Engine(Answer::Transferring)),
        Told::Refused(refused) => Err(refuse_heard(&refused)),
    })
}

/// A refusal for another node.
pub fn refused(refuse: Refuse) -> Told {
    Told::Refused(refusal_of(refuse))
}

fn refusal_of(refuse: Refuse) -> AskRefused {
    let (why, leader_id, retry_ms) = match refuse {
        Refuse::Overloaded { retry_ms } => (Why::Overloaded, 0, retry_ms),
        Refuse::DiskFull => (Why::DiskFull, 0, 0),
        Refuse::NotLeader { leader } => (Why::NotLeader, leader, 0),
        Refuse::Unknown { leader } => (Why::Unknown, leader, 0),
        Refuse::NotVoter => (Why::NotVoter, 0, 0),
        Refuse::Unfit => (Why::Unfit, 0, 0),
        Refuse::ShuttingDown => (Why::ShuttingDown, 0, 0),
        Refuse::NotReady | Refuse::RoundNeeded => (Why::NotReady, 0, 0),
        Refuse::StalenessExceeded => (Why::StalenessExceeded, 0, 0),
    };
    AskRefused { why: why.into(), leader_id, retry_ms }
}

fn refuse_heard(refused: &AskRefused) -> Refuse {
    let leader = refused.leader_id;
    match refused.why() {
        Why::Overloaded => Refuse::Overloaded { retry_ms: refused.retry_ms },
        Why::DiskFull => Refuse::DiskFull,
        Why::NotLeader => Refuse::NotLeader { leader },
        Why::NotVoter => Refuse::NotVoter,
        Why::Unfit => Refuse::Unfit,
        Why::ShuttingDown => Refuse::ShuttingDown,
        Why::StalenessExceeded => Refuse::StalenessExceeded,
        Why::NotReady | Why::OtherCluster => Refuse::NotReady,
        // What a newer version says and this one doesn't know may mean that it was done.
        Why::Unknown | Why::Unspecified => Refuse::Unknown { leader },
    }
}

fn outcome_done(outcome: Outcome) -> write_done::Outcome {
    use write_done::Outcome as Done;
    match outcome {
        Outcome::Put { revision, create_revision, lease_id, ttl_ms, incarnation, created } => {
            Done::Put(PutOutcome {
                revision,
                create_revision,
                lease_id,
                ttl_ms,
                incarnation,
                created,
            })
        }
        Outcome::Patched { revision } => Done::PatchedRevision(revision),
        Outcome::Deleted { revision, existed } => {
            Done::Deleted(DeleteOutcome { revision, existed })
        }
        Outcome::Draining { revision } => Done::DrainingRevision(revision),
        // Nobody asks another node for it.
        Outcome::Expired { .. } => Done::Deleted(DeleteOutcome::default()),
        Outcome::System(SystemOutcome { node_id, version }) => {
            Done::System(SystemDone { node_id, version })
        }
        Outcome::Refused(refusal) => Done::Refused(refusal_done(refusal)),
    }
}

fn outcome_heard(done: write_done::Outcome) -> Option<Outcome> {
    use write_done::Outcome as Done;
    Some(match done {
        Done::Put(put) => {
            let PutOutcome { revision, create_revision, lease_id, ttl_ms, incarnation, created } =
                put;
            Outcome::Put { revision, create_revision, lease_id, ttl_ms, incarnation, created }
        }
        Done::PatchedRevision(revision) => Outcome::Patched { revision },
        Done::Deleted(DeleteOutcome { revision, existed }) => {
            Outcome::Deleted { revision, existed }
        }
        Done::DrainingRevision(revision) => Outcome::Draining { revision },
        Done::System(SystemDone { node_id, version }) => {
            Outcome::System(SystemOutcome { node_id, version })
        }
        Done::Refused(refused) => Outcome::Refused(refusal_heard(refused)?),
    })
}

const NOT_FOUND: &str = "not-found";
const STALE_INCARNATION: &str = "stale-incarnation";
const REVISION_MISMATCH: &str = "revision-mismatch";
const ALREADY_EXISTS: &str = "already-exists";
const INVALID_SPEC: &str = "invalid-spec";
const EXPIRING: &str = "expiring";

fn refusal_done(refusal: Refusal) -> write_done::Refused {
    let plain = |reason: &str| write_done::Refused {
        reason: reason.to_owned(),
        ..write_done::Refused::default()
    };
    match refusal {
        Refusal::NotFound => plain(NOT_FOUND),
        Refusal::StaleIncarnation { stored } => {
            write_done::Refused { stored, ..plain(STALE_INCARNATION) }
        }
        Refusal::RevisionMismatch { expected, stored } => {
            write_done::Refused { expected, stored, ..plain(REVISION_MISMATCH) }
        }
        Refusal::AlreadyExists { stored } => {
            write_done::Refused { stored, ..plain(ALREADY_EXISTS) }
        }
        Refusal::InvalidSpec { field, message } => {
            write_done::Refused { field, message, ..plain(INVALID_SPEC) }
        }
        Refusal::Expiring => plain(EXPIRING),
        Refusal::System(SystemRefusal { reason, message }) => {
            write_done::Refused { message, ..plain(reason) }
        }
    }
}

fn refusal_heard(refused: write_done::Refused) -> Option<Refusal> {
    let write_done::Refused { reason, field, message, stored, expected } = refused;
    Some(match &*reason {
        NOT_FOUND => Refusal::NotFound,
        STALE_INCARNATION => Refusal::StaleIncarnation { stored },
        REVISION_MISMATCH => Refusal::RevisionMismatch { expected, stored },
        ALREADY_EXISTS => Refusal::AlreadyExists { stored },
        INVALID_SPEC => Refusal::InvalidSpec { field, message },
        EXPIRING => Refusal::Expiring,
        other => {
            let reason = system::REASONS.into_iter().find(|known| *known == other)?;
            Refusal::System(SystemRefusal { reason, message })
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_comes_back_as_it_was() {
        let refusals = [
            Refusal::NotFound,
            Refusal::StaleIncarnation { stored: 7 },
            Refusal::RevisionMismatch { expected: 3, stored: 4 },
            Refusal::AlreadyExists { stored: 5 },
            Refusal::InvalidSpec { field: "port".into(), message: "is too large".into() },
            Refusal::Expiring,
            Refusal::System(SystemRefusal { reason: "MEMBER_LEFT", message: "gone".into() }),
        ];
        let outcomes = [
            Outcome::Put {
                revision: 9,
                create_revision: 2,
                lease_id: 77,
                ttl_ms: 5_000,
                incarnation: 3,
                created: true,
            },
            Outcome::Patched { revision: 4 },
            Outcome::Deleted { revision: 6, existed: true },
            Outcome::Draining { revision: 8 },
            Outcome::System(SystemOutcome { node_id: 4, version: 12 }),
        ];
        for outcome in outcomes.into_iter().chain(refusals.map(Outcome::Refused)) {
            let written = Answer::Written {
                outcome: outcome.clone(),
                term: 2,
                store_revision: 9,
                next_renewal_ms: 1,
            };
            let Some(Ok(super::super::Done::Engine(Answer::Written { outcome: back, .. }))) =
                heard(answered(written))
            else {
                panic!("{outcome:?}");
            };
            assert_eq!(back, outcome);
        }
        let refuses = [
            Refuse::Overloaded { retry_ms: 50 },
            Refuse::DiskFull,
            Refuse::NotLeader { leader: 3 },
            Refuse::Unknown { leader: 2 },
            Refuse::NotVoter,
            Refuse::Unfit,
            Refuse::ShuttingDown,
            Refuse::NotReady,
            Refuse::StalenessExceeded,
        ];
        for refuse in refuses {
            assert_eq!(heard(refused(refuse)).and_then(Result::err), Some(refuse));
        }
    }
}
