//! The limit on open descriptors (`RLIMIT_NOFILE`; getrlimit(2)).

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

/// The soft limit now in force.
pub(crate) fn descriptor_limit() -> usize {
    getrlimit(Resource::Nofile)
        .current
        .map_or(usize::MAX, |limit| {
            usize::try_from(limit).unwrap_or(usize::MAX)
        })
}
