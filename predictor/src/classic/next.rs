//! The next N fragments.
//!
//! Source: A. J. Smith, "Sequential Program Prefetching in Memory Hierarchies",
//! IEEE Computer 11(12), 1978, and "Cache Memories", ACM Computing Surveys 14(3),
//! 1982, section 2.1: one-block lookahead in its *always prefetch* form, and its
//! extension to N blocks.
//!
//! "Always" means at each crossing, hit or miss, not at each request: requests are
//! smaller than fragments. It confirms nothing and adapts to nothing.
#![forbid(unsafe_code)]

use super::request::Requests;
use super::{Rule, Touch, propose_run};
use crate::prefetch::Predictions;

/// Proposes the fragments that follow.
#[derive(Clone, Debug)]
pub(super) struct Next {
    requests: Requests,
    count: usize,
}

impl Next {
    pub fn new(count: usize) -> Self {
        Self { requests: Requests::new(), count }
    }
}

impl Rule for Next {
    fn touch(&mut self, touch: &Touch, out: &mut Predictions) {
        let (_, request) = self.requests.follow(touch);
        let Some(request) = request.filter(|r| r.crossed && !r.write) else { return };
        if let Some(first) = request.last.checked_add(1) {
            propose_run(out, request.volume, first, self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::Driver;
    use super::*;

    #[test]
    fn each_crossing_of_a_read_proposes_what_follows() {
        let (mut next, mut driver) = (Next::new(2), Driver::default());
        assert_eq!(driver.read(&mut next, 10), [11, 12]);
        assert!(driver.read(&mut next, 10).is_empty(), "no crossing");
        assert_eq!(driver.read(&mut next, 500), [501, 502]);
        assert_eq!(driver.request(&mut next, false, &[7, 8, 9]), [10, 11], "behind the request");
        assert!(driver.request(&mut next, true, &[20]).is_empty());
        assert_eq!(driver.read(&mut next, u64::MAX - 1), [u64::MAX]);
        assert!(driver.read(&mut next, u64::MAX).is_empty());
    }
}
