//! From the engine's failures to statuses of the specification.

use nvme::Status;
use nvme::log::AnaState;

use super::command::Kind;
use crate::request::Failure;

/// The status of a command that failed so; `None` if it is not to be answered: the server
/// stops, and a host that hears nothing repeats the command when it has connected again.
pub(super) fn of(kind: Kind, failure: Failure) -> Option<Status> {
    let reads = matches!(kind, Kind::Read | Kind::Compare);
    Some(match failure {
        Failure::OutOfRange => Status::LBA_OUT_OF_RANGE.with_dnr(),
        Failure::ReadOnly => Status::WRITE_PROTECTED.with_dnr(),
        Failure::NoSpace => Status::CAPACITY_EXCEEDED.with_dnr(),
        // There is no good copy: reading again finds none either.
        Failure::Media if reads => Status::UNRECOVERED_READ.with_dnr(),
        Failure::Media => Status::WRITE_FAULT.with_dnr(),
        Failure::Device => Status::INTERNAL,
        Failure::Miscompare => Status::COMPARE_FAILURE.with_dnr(),
        Failure::Stopping => return None,
    })
}

/// What forbids I/O in an ANA state. Never with DNR: the host is to try another path, or
/// later (Base 8.1.4).
pub(super) fn of_ana(state: AnaState) -> Option<Status> {
    match state {
        AnaState::Optimized | AnaState::NonOptimized => None,
        AnaState::Inaccessible => Some(Status::ANA_INACCESSIBLE),
        AnaState::PersistentLoss => Some(Status::ANA_PERSISTENT_LOSS),
        AnaState::Change => Some(Status::ANA_TRANSITION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_errors_are_retried_elsewhere_and_lost_data_is_not() {
        for state in [AnaState::Inaccessible, AnaState::PersistentLoss, AnaState::Change] {
            let status = of_ana(state).expect("no I/O");
            assert!(status.sct() == 3 && !status.dnr(), "{state:?}");
        }
        assert_eq!(of_ana(AnaState::NonOptimized), None);
        let bits = |kind, failure| of(kind, failure).map(Status::to_bits);
        assert_eq!(bits(Kind::Read, Failure::Media), Some(0x4281));
        assert_eq!(bits(Kind::Write, Failure::Media), Some(0x4280));
        assert_eq!(bits(Kind::Write, Failure::NoSpace), Some(0x4081));
        assert_eq!(bits(Kind::Compare, Failure::Miscompare), Some(0x4285));
        assert_eq!(bits(Kind::Read, Failure::Device), Some(0x0006));
        assert_eq!(bits(Kind::Read, Failure::Stopping), None);
    }
}
