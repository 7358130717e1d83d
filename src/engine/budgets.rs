//! How much a driver does in one turn, so that a flood delays no other connection. `Server`, the
//! simulation and the benches use these.

use std::time::Duration;

/// Events taken from the kernel at once. Those beyond wait one turn; none is lost.
pub const EVENTS_PER_TURN: usize = 256;
/// Peers accepted per turn, so that an accept storm cannot starve those already connected.
pub const ACCEPTS_PER_TURN: usize = 32;
/// Work per turn on commands of other threads, one unit for each and for each receiver.
pub const COMMAND_WORK: u32 = 1024;
/// Work on one connection per turn: a pipeline of ordinary depth at once, a flood in small parts.
pub const READ_WORK: u32 = 128;
/// Work per turn on all connections together that have more to read than their share. Replies leave
/// at the end of a turn, so a turn has to end soon: this is about 0.1 ms.
pub const LEFTOVER_WORK: u32 = 1024;
/// Leftover connections read even in a turn that has taken too long already: events that keep every
/// turn busy must not starve them.
pub const MIN_LEFTOVER_READS: u32 = 4;
/// Work on broadcasts per turn, one unit for every four receivers.
pub const FANOUT_WORK: u32 = 4096;
/// Checks of the timer wheel and final reads between two readings of the clock. A turn makes at
/// least this many, and more for as long as they take less than a quarter of the turn.
pub const CHECKS_AT_ONCE: usize = 8;
/// Connections written to per turn; the rest keep their place in the list.
pub const FLUSHES_PER_TURN: usize = 256;
/// Connections per turn that have nothing to be written but a broadcast. Kept low so that a
/// broadcast does not delay replies.
pub const BROADCAST_FLUSHES_PER_TURN: usize = 64;
/// Connections written to even in a turn that has taken too long already.
pub const MIN_FLUSHES: usize = 16;
/// Closed connections that are reported and whose sockets are dropped per turn.
pub const REAPS_PER_TURN: usize = 256;
/// The clock is read again after so much work, so that stamps stay true in a long turn and a slow
/// handler is noticed. A reading costs less than a unit.
pub const WORK_PER_CLOCK_READING: u32 = 256;
/// What one socket counts for: a system call or two.
pub const SOCKET_WORK: u32 = 16;
/// After this time a turn begins no work that can wait for the next one.
pub const TURN_LIMIT: Duration = Duration::from_millis(5);
/// Bytes read from one connection per turn; one that sends faster is read again after all others
/// had their turn.
pub const READ_BUDGET: usize = 128 * 1024;
/// Pieces handed to the kernel in one vectored write.
pub const SLICES_PER_WRITE: usize = 16;
/// Writes to one connection per flush; one that takes more is written to again after all others.
pub const WRITES_PER_FLUSH: usize = 4;
/// Size of the one buffer that all connections are read into.
pub const SCRATCH_BYTES: usize = 64 * 1024;

/// What one turn may do at most. The constants of this module are its default.
#[derive(Clone, Debug)]
pub struct TurnBudgets {
    /// Work on commands of other threads.
    pub command_work: u32,
    /// Connections accepted.
    pub accepts: usize,
    /// Bytes read from one connection.
    pub read_bytes: usize,
    /// Work on one connection.
    pub read_work: u32,
    /// Work on all connections that have more to read than their share.
    pub leftover_work: u32,
    /// Work on broadcasts.
    pub fanout_work: u32,
    /// Timer checks and final reads between two readings of the clock.
    pub checks: usize,
    /// Connections written to.
    pub flushes: usize,
    /// Connections written to that have only a broadcast queued.
    pub broadcast_flushes: usize,
    /// Writes to one connection per flush.
    pub writes: usize,
    /// Closed connections whose sockets are dropped.
    pub reaps: usize,
}

impl TurnBudgets {
    /// The constants of this module.
    pub const DEFAULT: TurnBudgets = TurnBudgets {
        command_work: COMMAND_WORK,
        accepts: ACCEPTS_PER_TURN,
        read_bytes: READ_BUDGET,
        read_work: READ_WORK,
        leftover_work: LEFTOVER_WORK,
        fanout_work: FANOUT_WORK,
        checks: CHECKS_AT_ONCE,
        flushes: FLUSHES_PER_TURN,
        broadcast_flushes: BROADCAST_FLUSHES_PER_TURN,
        writes: WRITES_PER_FLUSH,
        reaps: REAPS_PER_TURN,
    };
}
