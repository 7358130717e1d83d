//! A list of connections. Most names have one connection, which needs no heap.

use crate::id::ConnId;

/// Connections, each at most once, in no order.
#[derive(Debug, Default)]
pub(super) enum Members {
    #[default]
    None,
    One(ConnId),
    Many(Vec<ConnId>),
}

impl Members {
    pub(super) fn as_slice(&self) -> &[ConnId] {
        match self {
            Members::None => &[],
            Members::One(id) => std::slice::from_ref(id),
            Members::Many(ids) => ids,
        }
    }

    /// Adds a connection. Returns its index, which holds until [`Members::swap_remove`] moves it.
    pub(super) fn push(&mut self, id: ConnId) -> u32 {
        let index = self.as_slice().len();
        match self {
            Members::None => *self = Members::One(id),
            Members::One(first) => *self = Members::Many(vec![*first, id]),
            Members::Many(ids) => ids.push(id),
        }
        u32::try_from(index).expect("there are fewer than 2^32 connections")
    }

    /// Removes the connection at `index`. Returns the connection that has moved there, if one has.
    pub(super) fn swap_remove(&mut self, index: u32) -> Option<ConnId> {
        match self {
            Members::None => None,
            Members::One(_) => {
                *self = Members::None;
                None
            }
            Members::Many(ids) => {
                ids.swap_remove(index as usize);
                if ids.len() < ids.capacity() / 4 {
                    ids.shrink_to(ids.len() * 2);
                }
                ids.get(index as usize).copied()
            }
        }
    }
}
