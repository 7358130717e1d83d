//! A budget of work. The driver sets it and reads the clock between calls; the engine spends it.

/// How much work a call may do, in units of roughly 100 ns: one unit for each frame, for each
/// started KiB of it, and for each receiver of a broadcast.
///
/// A call stops before the next unit of work once the budget is spent, and goes on when it is
/// called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    left: u32,
}

impl Work {
    /// A budget of this many units; `u32::MAX` is practically unlimited.
    pub const fn new(units: u32) -> Self {
        Work { left: units }
    }

    /// Whether nothing is left.
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// Units that are left.
    pub fn left(&self) -> u32 {
        self.left
    }

    /// Takes units out of the budget; none is left if there are fewer.
    pub fn spend(&mut self, units: u32) {
        self.left = self.left.saturating_sub(units);
    }

    /// Splits off a part of at most `units`. Its rest is returned with [`Work::refund`].
    pub fn split(&mut self, units: u32) -> Work {
        let part = Work::new(units.min(self.left));
        self.left -= part.left;
        part
    }

    /// Adds the rest of `part`.
    pub fn refund(&mut self, part: Work) {
        self.left = self.left.saturating_add(part.left);
    }
}

/// What one frame costs.
pub(super) fn frame_units(bytes: usize) -> u32 {
    1 + u32::try_from(bytes >> 10).unwrap_or(u32::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_work_is_refunded() {
        let mut work = Work::new(10);
        let mut part = work.split(6);
        part.spend(2);
        assert_eq!((work.left(), part.left()), (4, 4));
        work.refund(part);
        assert_eq!(work.left(), 8);
        work.spend(9);
        assert!(work.is_spent());
        assert!(work.split(3).is_spent());
    }
}
