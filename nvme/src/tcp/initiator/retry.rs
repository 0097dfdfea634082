//! Which failed commands are worth another attempt (Base 3.3.3.2.1: DNR and CRD).

use std::time::Duration;

use crate::Status;
use crate::code::sct;

/// Attempts after the first, as Linux has it.
const RETRIES: u8 = 5;
/// Before a command is tried again on a path that says it cannot serve it now.
const PATH_DELAY: Duration = Duration::from_millis(100);

/// The requests waited longer than the host is willing to (Base 3.3.3.2.1.4).
pub const HOST_PATHING_ERROR: Status = Status::new(sct::PATH, 0x70);

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The caller hears of it.
    Deliver,
    /// It is tried again after this time.
    Retry(Duration),
}

/// Judges a completion after `retries` further attempts. `delays`: CRDT1 to CRDT3 of the
/// controller.
pub fn judge(status: Status, retries: u8, delays: &[Duration; 3]) -> Verdict {
    if status.is_success() || status.dnr() {
        return Verdict::Deliver;
    }
    let delay = match status.to_bits() >> 11 & 0b11 {
        0 => Duration::ZERO,
        crd => delays[usize::from(crd) - 1],
    };
    if status.sct() == sct::PATH {
        // Nothing is wrong with the command: it waits for the path, as after a loss.
        return Verdict::Retry(delay.max(PATH_DELAY));
    }
    if retries < RETRIES { Verdict::Retry(delay) } else { Verdict::Deliver }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dnr_crd_and_the_path_decide() {
        let delays = [100, 200, 300].map(Duration::from_millis);
        let crd = |status: Status, crd: u16| Status::from_bits(status.to_bits() | crd << 11);
        let retry = |ms| Verdict::Retry(Duration::from_millis(ms));
        for (status, retries, verdict) in [
            (Status::SUCCESS, 0, Verdict::Deliver),
            (Status::INTERNAL, 0, retry(0)),
            (Status::INTERNAL, 4, retry(0)),
            (Status::INTERNAL, 5, Verdict::Deliver),
            (Status::INTERNAL.with_dnr(), 0, Verdict::Deliver),
            (crd(Status::INTERNAL, 1), 0, retry(100)),
            (crd(Status::INTERNAL, 3), 0, retry(300)),
            (crd(Status::INTERNAL, 3).with_dnr(), 0, Verdict::Deliver),
            (Status::TRANSIENT_TRANSPORT_ERROR, 0, retry(0)),
            (Status::ANA_INACCESSIBLE, 200, retry(100)),
            (crd(Status::ANA_TRANSITION, 2), 0, retry(200)),
            (Status::ANA_PERSISTENT_LOSS.with_dnr(), 0, Verdict::Deliver),
        ] {
            assert_eq!(judge(status, retries, &delays), verdict, "{status:?} after {retries}");
        }
    }
}
