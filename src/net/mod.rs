//! What server and client ask of the operating system: socket options, listening and dialling, clocks, limits. socket2 and rustix
//! stay in here. No policy.

mod clock;
mod limits;
mod options;

pub(crate) use clock::{MonotonicClock, ResumeAlarm, SuspendClock};
pub(crate) use limits::raise_descriptor_limit;
pub(crate) use options::{SocketOptions, dial, listen};
