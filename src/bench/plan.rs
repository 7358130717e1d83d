//! The plan of a worker.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::values::{Expect, PingAnswer};

/// The plan of a worker. Instants are counted from the beginning of the measurement, in
/// nanoseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) addr: SocketAddr,
    /// Addresses to dial from, in turn; without any, the kernel chooses address and port.
    pub(super) sources: Vec<IpAddr>,
    /// Whether further loopback addresses may be dialled from when those are used up.
    pub(super) more_sources: bool,
    /// Ports to dial from on each of them.
    pub(super) ports: Ports,
    /// Dials per second; `None`: no limit.
    pub(super) ramp_per_s: Option<f64>,
    pub(super) seed: u64,
    pub(super) answer: Option<PingAnswer>,
    /// Its connections, in the order in which they are opened.
    pub(super) groups: Vec<Group>,
    pub(super) wait_for: WaitFor,
    /// Until here messages are sent.
    pub(super) duration_ns: u64,
    /// How long after that replies are waited for.
    pub(super) grace_ns: u64,
    /// Time from a connection's last byte before which the server should not have closed it.
    pub(super) bound_ns: Option<u64>,
    /// Messages that are pushed, and the time from one to the next.
    pub(super) pushes: u32,
    pub(super) push_every_ns: u64,
}

/// Every `step`-th port from `first` to `last`, so that workers do not get into each other's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) step: u16,
}

/// Connections that do the same.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) connections: u32,
    pub(super) role: Role,
    /// Sent once the connection is established; may be empty.
    pub(super) hello: Vec<u8>,
    pub(super) message: Vec<u8>,
    pub(super) expect: Expect,
}

/// What a connection does once the measurement has begun. All answer the server's pings, except the
/// mute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    /// Sends nothing by itself.
    Quiet,
    /// Sends at fixed instants, independent of the server: an open loop.
    Paced(Pace),
    /// Sends when a reply arrives: a closed loop with this many messages in flight.
    Loop { depth: u32 },
    /// Counts pushed messages.
    Listen,
    /// Sends one message and nothing after it, without closing.
    Mute,
}

/// When an open loop sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pace {
    /// Whether each connection begins at an instant of its own within the first interval, or all at
    /// once.
    pub(super) spread: bool,
    pub(super) every_ns: u64,
    /// No message is due from here on.
    pub(super) until_ns: u64,
    /// Whether there is a reply to wait for.
    pub(super) replies: bool,
}

/// The condition that ends a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WaitFor {
    /// Replies to all that was sent.
    Replies,
    /// All pushed messages on all listening connections.
    Pushes,
    /// The end of all mute connections.
    Closes,
}

/// Counts so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProgressCounts {
    pub(super) dialled: u32,
    pub(super) established: u32,
    pub(super) failed: u32,
    pub(super) open: u32,
    pub(super) sent: u64,
    pub(super) answered: u64,
}

impl ProgressCounts {
    pub(super) fn plus(self, other: ProgressCounts) -> ProgressCounts {
        ProgressCounts {
            dialled: self.dialled + other.dialled,
            established: self.established + other.established,
            failed: self.failed + other.failed,
            open: self.open + other.open,
            sent: self.sent + other.sent,
            answered: self.answered + other.answered,
        }
    }
}

impl Plan {
    pub(super) fn connections(&self) -> u32 {
        self.groups.iter().map(|group| group.connections).sum()
    }

    /// The share of one of several workers: connections, dial rate and ports divided.
    pub(super) fn share(&self, worker: u32, workers: u32) -> Plan {
        let mut plan = self.clone();
        for group in &mut plan.groups {
            group.connections = share(group.connections, worker, workers);
        }
        // There are no more than 1,024 workers, and thousands of ports.
        plan.ports.first += worker as u16;
        plan.ports.step = workers as u16;
        plan.ramp_per_s = self.ramp_per_s.map(|per_s| per_s / f64::from(workers));
        plan.seed = self.seed.wrapping_add(u64::from(worker));
        plan
    }
}

/// An even share of `all`; the first ones get what does not divide.
fn share(all: u32, worker: u32, workers: u32) -> u32 {
    all / workers + u32::from(worker < all % workers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up() {
        for all in [0, 1, 7, 100, 100_000] {
            for workers in 1..9 {
                let shares: Vec<u32> = (0..workers)
                    .map(|worker| share(all, worker, workers))
                    .collect();
                assert_eq!(shares.iter().sum::<u32>(), all);
                assert!(shares.iter().max().expect("one") - shares.iter().min().expect("one") <= 1);
            }
        }
    }
}
