//! What server and client need of the operating system: socket options, listening and dialling,
//! clocks, limits. socket2 and rustix are used here only. No policy.

mod alarm;
mod clock;
mod host_port;
mod limits;
#[cfg(feature = "cli")]
mod load;
mod options;
mod tcp_info;
#[cfg(feature = "cli")]
mod unix;

pub(crate) use alarm::Alarm;
pub(crate) use clock::{MonotonicClock, ResumeAlarm, SuspendClock};
pub(crate) use host_port::HostPort;
#[cfg(feature = "cli")]
pub(crate) use limits::descriptor_limit;
pub(crate) use limits::{grow_descriptor_table, raise_descriptor_limit};
#[cfg(feature = "cli")]
pub(crate) use load::{PreciseTimer, dial_from, monotonic_ns};
pub(crate) use options::{SocketOptions, dial, listen, reset_on_close, take_over};
pub(crate) use tcp_info::{received_before, unacknowledged_bytes, unacknowledged_for};
#[cfg(feature = "cli")]
pub(crate) use unix::{check_unix, listen_unix};
