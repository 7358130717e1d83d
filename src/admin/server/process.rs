//! What this process uses, at a glance: nothing here takes longer with more connections.

use std::fs;
use std::io;

use rustix::time::{ClockId, clock_gettime};

use crate::admin::api::ProcessUsage;
use crate::net;

/// Where Linux reports it (proc(5)); elsewhere these figures are 0.
const DESCRIPTORS: &str = "/proc/self/fd";
const STATUS: &str = "/proc/self/status";

/// This process.
pub(super) struct Process {
    /// Descriptors that were open before the first connection.
    at_start: u64,
}

impl Process {
    /// To be called while few descriptors are open: it counts them.
    pub(super) fn read() -> Self {
        // One of them is the descriptor of the directory.
        Process {
            at_start: fs::read_dir(DESCRIPTORS)
                .map_or(0, |all| all.count().saturating_sub(1) as u64),
        }
    }

    /// `connections`: descriptors opened since, of any kind.
    pub(super) fn usage(&self, connections: usize) -> ProcessUsage {
        // From Linux 6.2 on the directory reports their number. Before, counting them would take
        // milliseconds with ten thousand connections.
        let told = fs::metadata(DESCRIPTORS).map_or(0, |directory| directory.len());
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        ProcessUsage {
            resident_bytes: resident_bytes().unwrap_or(0),
            descriptors: if told > 0 {
                told
            } else {
                self.at_start + connections as u64
            },
            max_descriptors: net::descriptor_limit() as u64,
            cpu_s: cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        }
    }
}

fn resident_bytes() -> io::Result<u64> {
    let status = fs::read_to_string(STATUS)?;
    let kib = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    });
    Ok(kib.unwrap_or(0) * 1024)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn usage_is_that_of_this_process() {
        let usage = Process::read().usage(0);
        // A test of Rust takes megabytes, three standard streams and some time.
        assert!(
            (1 << 20..1 << 34).contains(&usage.resident_bytes),
            "{}",
            usage.resident_bytes
        );
        assert!(
            (3..=usage.max_descriptors).contains(&usage.descriptors),
            "{} of {}",
            usage.descriptors,
            usage.max_descriptors
        );
        assert!(usage.cpu_s > 0.0 && usage.cpu_s < 1e6, "{}", usage.cpu_s);
    }
}
