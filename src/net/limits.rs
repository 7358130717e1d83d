//! The limit on open descriptors (`RLIMIT_NOFILE`; getrlimit(2)).

use std::os::fd::{AsFd, RawFd};

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one and returns the limit then in force. A refusal leaves the
/// soft limit as it is.
pub(crate) fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            log::warn!(
                "descriptor-limit soft={:?} hard={:?} error={error:?}",
                limit.current,
                limit.maximum
            );
        }
    }
    descriptor_limit()
}

/// Maximum number of entries that [`grow_descriptor_table`] makes: 512 KiB of kernel memory.
const MAX_TABLE: usize = 65_536;

/// Grows the descriptor table of the process to `limit` entries, 65,536 at most, by a duplicate of
/// `fd` that is closed again.
///
/// The kernel doubles the table when it is full. In a process with several threads each growth
/// waits for an RCU grace period, about 10 ms (fs/file.c, `expand_fdtable`), which accept(2) on the
/// loop must not.
pub(crate) fn grow_descriptor_table(fd: impl AsFd, limit: usize) {
    let last = limit.min(MAX_TABLE).saturating_sub(1);
    // A failure leaves the table as it is.
    drop(fcntl_dupfd_cloexec(
        fd,
        RawFd::try_from(last).unwrap_or(RawFd::MAX),
    ));
}

/// The soft limit now in force.
pub(crate) fn descriptor_limit() -> usize {
    getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn descriptor_table_grows_to_the_limit() {
        let fd = std::fs::File::open("/dev/null").expect("it is there");
        let limit = descriptor_limit().min(4096);
        grow_descriptor_table(&fd, limit);
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let size = status
            .lines()
            .find_map(|line| line.strip_prefix("FDSize:"))
            .and_then(|size| size.trim().parse::<usize>().ok());
        assert!(size.expect("a figure") >= limit);
    }
}
