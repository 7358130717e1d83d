//! Which connection has which name, and who is in which group. Pure: it knows ids and names,
//! nothing else.
//!
//! Only connections with a name or a group have an entry. Measured sizes are in
//! `docs/benchmarks.md`.

mod members;
mod name;

use std::collections::HashMap;

use crate::id::ConnId;
use members::Members;
pub use name::{MAX_NAME_BYTES, Name, NameError};

/// Most groups of one connection.
pub const MAX_GROUPS: usize = 64;

/// Why a connection cannot join a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyGroups;

impl std::fmt::Display for TooManyGroups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a connection is in at most {MAX_GROUPS} groups")
    }
}

impl std::error::Error for TooManyGroups {}

/// Names and groups of all connections.
///
/// Invariants: a connection has at most one name and is in a group at most once; a name or group
/// without connections is not kept; [`Directory::remove`] leaves no trace of a connection.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    entries: HashMap<ConnId, DirectoryEntry>,
    names: HashMap<Name, Members>,
    groups: HashMap<Name, Members>,
    memberships: usize,
}

/// One connection.
#[derive(Debug, Default)]
struct DirectoryEntry {
    name: Option<Place>,
    groups: Vec<Place>,
}

/// A place in the list of the connections with a name, or of the members of a group.
#[derive(Debug)]
struct Place {
    name: Name,
    index: u32,
}

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Table {
    Names,
    Groups,
}

impl Directory {
    /// Gives a connection a name. One that it had before is dropped.
    pub(crate) fn set_name(&mut self, id: ConnId, name: Name) {
        self.clear_name(id);
        let place = insert(&mut self.names, id, name);
        self.entries.entry(id).or_default().name = Some(place);
    }

    fn clear_name(&mut self, id: ConnId) {
        let entry = self.entries.get_mut(&id);
        if let Some(place) = entry.and_then(|entry| entry.name.take()) {
            self.vacate(Table::Names, place);
        }
    }

    /// The name of a connection.
    pub(crate) fn name(&self, id: ConnId) -> Option<&Name> {
        let entry = self.entries.get(&id)?;
        entry.name.as_ref().map(|place| &place.name)
    }

    /// The connections with that name.
    pub(crate) fn holders(&self, name: &str) -> &[ConnId] {
        self.names.get(name).map_or(&[], Members::as_slice)
    }

    /// Number of different names.
    pub(crate) fn names(&self) -> usize {
        self.names.len()
    }

    /// Adds a connection to a group. `false` if it is in it already.
    pub(crate) fn join(&mut self, id: ConnId, group: &Name) -> Result<bool, TooManyGroups> {
        let entry = self.entries.entry(id).or_default();
        if entry.groups.iter().any(|place| place.name == *group) {
            return Ok(false);
        }
        if entry.groups.len() >= MAX_GROUPS {
            return Err(TooManyGroups);
        }
        let place = insert(&mut self.groups, id, group.clone());
        self.memberships += 1;
        entry.groups.push(place);
        Ok(true)
    }

    /// Removes a connection from a group. `false` if it is not in it.
    pub(crate) fn leave(&mut self, id: ConnId, group: &str) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        let mut groups = entry.groups.iter();
        let Some(at) = groups.position(|place| place.name.as_str() == group) else {
            return false;
        };
        let place = entry.groups.swap_remove(at);
        if entry.groups.is_empty() {
            entry.groups = Vec::new();
            if entry.name.is_none() {
                self.entries.remove(&id);
            }
        }
        self.memberships -= 1;
        self.vacate(Table::Groups, place);
        true
    }

    /// The groups of a connection.
    pub(crate) fn groups_of(&self, id: ConnId) -> impl Iterator<Item = &Name> {
        let entry = self.entries.get(&id).into_iter();
        entry.flat_map(|entry| entry.groups.iter().map(|place| &place.name))
    }

    /// The members of a group.
    pub(crate) fn members(&self, group: &str) -> &[ConnId] {
        self.groups.get(group).map_or(&[], Members::as_slice)
    }

    /// Number of groups with members.
    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Members of all groups together.
    pub(crate) fn memberships(&self) -> usize {
        self.memberships
    }

    /// Drops the name and the groups of a connection. Does nothing if it has none.
    pub(crate) fn remove(&mut self, id: ConnId) {
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        if let Some(place) = entry.name {
            self.vacate(Table::Names, place);
        }
        self.memberships -= entry.groups.len();
        for place in entry.groups {
            self.vacate(Table::Groups, place);
        }
        if self.entries.is_empty() {
            // Tables keep the capacity of their busiest time.
            *self = Directory::default();
        }
    }

    /// Removes a place from its list. The last connection of the list moves there.
    fn vacate(&mut self, table: Table, place: Place) {
        let lists = match table {
            Table::Names => &mut self.names,
            Table::Groups => &mut self.groups,
        };
        let Some(members) = lists.get_mut(&place.name) else {
            return;
        };
        let moved = members.swap_remove(place.index);
        if members.as_slice().is_empty() {
            lists.remove(&place.name);
        }
        let Some(entry) = moved.and_then(|moved| self.entries.get_mut(&moved)) else {
            return;
        };
        let of_moved = match table {
            Table::Names => entry.name.as_mut(),
            Table::Groups => {
                let mut groups = entry.groups.iter_mut();
                groups.find(|other| other.name == place.name)
            }
        };
        if let Some(of_moved) = of_moved {
            of_moved.index = place.index;
        }
    }
}

/// Adds a connection to the list of that name, which shares the name's bytes with all its members.
fn insert(lists: &mut HashMap<Name, Members>, id: ConnId, name: Name) -> Place {
    let (name, members) = match lists.get_key_value(name.as_str()) {
        Some((shared, _)) => {
            let shared = shared.clone();
            (shared, lists.get_mut(&name).expect("it was found above"))
        }
        None => (name.clone(), lists.entry(name).or_default()),
    };
    let index = members.push(id);
    Place { name, index }
}

#[cfg(test)]
mod tests;
