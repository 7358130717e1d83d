//! The messages between the coordinator and its workers: one JSON value per line. The plan and the
//! commands go to a worker's stdin, the reports come from its stdout; when its stdin ends, the
//! worker ends.

use serde::{Deserialize, Serialize};

use super::counters::Counters;
use super::plan::ProgressCounts;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum WorkerCommand {
    /// Open connections until this many were dialled in all.
    Connect { upto: u32 },
    /// The measurement begins at this instant of the machine's monotonic clock.
    Go { at_ns: u64 },
    /// Report what there is.
    Stop,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum WorkerReport {
    /// Every dial that was commanded has succeeded or failed.
    Connected(ProgressCounts),
    Progress(ProgressCounts),
    /// The measurement is over. Connections stay open until stdin ends.
    Done(Box<Counters>),
    /// The worker has failed.
    Failed(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_a_single_line_of_json() {
        let command = serde_json::to_string(&WorkerCommand::Go { at_ns: u64::MAX })
            .expect("it can be written");
        assert!(!command.contains('\n'));
        assert_eq!(
            serde_json::from_str::<WorkerCommand>(&command).expect("it can be read"),
            WorkerCommand::Go { at_ns: u64::MAX }
        );
    }
}
