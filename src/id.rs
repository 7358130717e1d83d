//! The name of one connection, which no later connection ever answers to.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

/// How many low bits of a poll token hold the slot. mio's token is a `usize`: on 64-bit machines
/// both halves fit whole, on 32-bit machines a million slots and 12 bits of the generation do,
/// which is ample for an event that outlives its socket by one poll.
const SLOT_BITS: u32 = if usize::BITS >= 64 { 32 } else { 20 };
const SLOT_MASK: usize = (1 << SLOT_BITS) - 1;

/// Names one connection: its slot in the slab, and a generation that differs for each connection in
/// that slot.
///
/// Calls with the id of a closed connection do nothing and report it. The generation is a 32-bit
/// count of connections opened by this engine, so a stale id could match a new connection only
/// after 2^32 further connections. A server begins to count at random, so the id of an earlier
/// process matches a connection with a chance of 1 in 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId {
    slot: u32,
    generation: u32,
}

impl ConnId {
    /// The most slots that fit a poll token on this machine, less some that the driver reserves.
    pub const MAX_SLOTS: usize = SLOT_MASK - 0xfff;

    pub(crate) fn new(slot: usize, generation: u32) -> Self {
        // The slab never grows past MAX_SLOTS: admission is bounded by it.
        let slot = u32::try_from(slot).expect("a slot number below ConnId::MAX_SLOTS fits 32 bits");
        ConnId { slot, generation }
    }

    /// The index of the connection in the slab. Reused after the connection has closed.
    pub fn slot(self) -> usize {
        self.slot as usize
    }

    /// Which of the tenants of the slot this is.
    pub fn generation(self) -> u32 {
        self.generation
    }

    /// The id as one integer, for logs of other systems and for tables; [`ConnId::from_u64`] is its
    /// inverse.
    pub fn as_u64(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// The id that [`ConnId::as_u64`] made this integer of. Any integer is accepted: one that names
    /// no connection is simply stale.
    pub fn from_u64(id: u64) -> Self {
        ConnId {
            slot: id as u32,
            generation: (id >> 32) as u32,
        }
    }

    /// The poll token of this connection.
    pub(crate) fn token(self) -> usize {
        // On 32-bit machines the shift drops the generation's high bits, on purpose.
        (self.generation as usize).wrapping_shl(SLOT_BITS) | self.slot()
    }

    /// The slot of a poll token. Compare [`ConnId::token`] of the connection there to see whether
    /// it is still the same one.
    pub(crate) fn slot_of_token(token: usize) -> usize {
        token & SLOT_MASK
    }
}

/// Written as `slot.generation`, as in the logs.
impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.generation)
    }
}

/// Reads what [`ConnId`]'s `Display` has written. Any two numbers are accepted: an id that names no
/// connection is simply stale.
impl FromStr for ConnId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        // Without a dot the generation is missing, and the error calls it empty.
        let (slot, generation) = text.split_once('.').unwrap_or((text, ""));
        Ok(ConnId {
            slot: slot.parse()?,
            generation: generation.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_identifies_slot_and_generation() {
        let old = ConnId::new(77, 5);
        let new = ConnId::new(77, 6);
        assert_eq!(ConnId::slot_of_token(old.token()), 77);
        assert_ne!(old.token(), new.token());
    }

    #[test]
    fn no_connection_has_a_token_in_the_drivers_reserve() {
        let id = ConnId::new(ConnId::MAX_SLOTS - 1, u32::MAX);
        assert!(id.token() < usize::MAX - 0x7ff);
    }

    #[test]
    fn id_round_trips_through_u64() {
        let id = ConnId::new(123_456, 0xdead_beef);
        assert_eq!(ConnId::from_u64(id.as_u64()), id);
        assert_eq!(id.to_string(), "123456.3735928559");
        assert_eq!(id.to_string().parse(), Ok(id));
        for bad in ["", "1", "1.", ".1", "1.2.3", "4294967296.0", "-1.2"] {
            assert!(bad.parse::<ConnId>().is_err(), "{bad}");
        }
    }
}
