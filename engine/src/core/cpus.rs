//! The CPUs of this process: where cores are pinned, and where what runs beside them goes.
//!
//! A core spins for some of its time and wants its CPU when something arrives; whatever else
//! this process runs stays on the CPUs that no core has, where there are such.

use std::mem;

/// The CPUs this process may run on, ascending.
pub fn allowed_cpus() -> Vec<usize> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is a cpu_set_t of the size given, and ours to write.
    let failed = unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) };
    assert_eq!(failed, 0, "sched_getaffinity: {}", std::io::Error::last_os_error());
    let bits = 8 * size_of_val(&set);
    // SAFETY: `cpu` is below the set's number of bits.
    (0..bits).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect()
}

/// Keeps the calling thread on some CPUs; false if this process may run on none of them.
pub fn keep_this_thread_on(cpus: &[usize]) -> bool {
    let set = set_of(cpus);
    // SAFETY: `set` is a cpu_set_t of the size given.
    unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) == 0 }
}

/// Makes the calling thread give way to cores: it keeps to the CPUs that they have not, if any,
/// and yields to whatever else wants to run there.
pub fn give_way(spare: &[usize]) {
    if !spare.is_empty() && !keep_this_thread_on(spare) {
        tracing::warn!("a thread may run beside a core: CPUs {spare:?} are not ours any more");
    }
    // Lowering a priority is always allowed.
    let _ = rustix::process::nice(19);
}

/// The set of some CPUs.
pub(crate) fn set_of(cpus: &[usize]) -> libc::cpu_set_t {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    for &cpu in cpus {
        assert!(cpu < 8 * size_of_val(&set), "a CPU number");
        // SAFETY: `cpu` is below the set's number of bits.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    set
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_gives_way_keeps_to_what_is_spare() {
        let all = allowed_cpus();
        let last = vec![*all.last().expect("this runs somewhere")];
        let kept = std::thread::scope(|scope| {
            let body = || {
                give_way(&last);
                (allowed_cpus(), rustix::process::getpriority_process(None))
            };
            scope.spawn(body).join().expect("ends")
        });
        assert_eq!((kept.0, kept.1.expect("a priority")), (last, 19));
        assert_eq!(allowed_cpus(), all, "others go on as they were");
    }
}
