//! Lists of names and of groups. A server may have as many names as connections, so a list is built
//! in parts, over the slots of the connections, and keeps the names of its page only.

use std::collections::BTreeSet;

use super::http::Response;
use crate::admin::api::{GroupEntry, GroupList, NameEntry, NameList};
use crate::directory::Name;
use crate::engine::Context;

/// Slots visited per turn: about 100 us.
const SLOTS_PER_TURN: usize = 1024;

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Names,
    Groups,
}

/// The query of a list, which is in the order of the names' bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NameQuery {
    pub(super) listed: Listed,
    /// What a name must begin with.
    pub(super) prefix: String,
    /// The last name of the page before.
    pub(super) after: String,
    pub(super) limit: usize,
}

/// A list that is being made.
pub(super) struct NameListing {
    query: NameQuery,
    /// Where the next part begins.
    slot: usize,
    /// The first names of those seen, `limit` at most.
    kept: BTreeSet<Name>,
}

impl NameListing {
    pub(super) fn new(query: NameQuery) -> Self {
        NameListing {
            query,
            slot: 0,
            kept: BTreeSet::new(),
        }
    }

    /// Visits some more connections; `true` if those were the last.
    pub(super) fn advance(&mut self, cx: &Context<'_>) -> bool {
        let Some(ids) = cx.ids_in_slots(self.slot, SLOTS_PER_TURN) else {
            return true;
        };
        for id in ids {
            match self.query.listed {
                Listed::Names => cx.name_of(id).into_iter().for_each(|name| self.add(name)),
                Listed::Groups => cx.groups_of(id).for_each(|group| self.add(group)),
            }
        }
        self.slot += SLOTS_PER_TURN;
        false
    }

    fn add(&mut self, name: &Name) {
        let NameQuery {
            prefix,
            after,
            limit,
            ..
        } = &self.query;
        if !name.starts_with(prefix.as_str()) || name.as_str() <= after.as_str() {
            return;
        }
        let is_full = self.kept.len() >= *limit;
        if is_full && self.kept.last().is_none_or(|last| name >= last) {
            return;
        }
        self.kept.insert(name.clone());
        if self.kept.len() > *limit {
            self.kept.pop_last();
        }
    }

    /// The page as of now.
    pub(super) fn finish(self, cx: &Context<'_>) -> Response {
        let counts = cx.name_counts();
        let kept = self.kept.into_iter();
        match self.query.listed {
            Listed::Names => Response::json(
                200,
                &NameList {
                    names: counts.names as u64,
                    list: kept
                        .map(|name| NameEntry {
                            ids: cx
                                .connections_named(&name)
                                .iter()
                                .take(MAX_IDS)
                                .map(ToString::to_string)
                                .collect(),
                            name: name.to_string(),
                        })
                        .collect(),
                },
            ),
            Listed::Groups => Response::json(
                200,
                &GroupList {
                    groups: counts.groups as u64,
                    list: kept
                        .map(|group| GroupEntry {
                            members: cx.members(&group).len() as u64,
                            group: group.to_string(),
                        })
                        .collect(),
                },
            ),
        }
    }
}

/// Most ids of one name that are listed: there are several with `--on-duplicate allow` only.
const MAX_IDS: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str], prefix: &str, after: &str, limit: usize) -> Vec<String> {
        let mut listing = NameListing::new(NameQuery {
            listed: Listed::Names,
            prefix: prefix.into(),
            after: after.into(),
            limit,
        });
        for name in names {
            listing.add(&Name::new(name).expect("a name"));
            assert!(listing.kept.len() <= limit, "nothing is kept in vain");
        }
        listing.kept.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pages_follow_one_another_in_the_order_of_the_names() {
        let names = ["d", "b", "a1", "c", "a3", "a2", "b"];
        assert_eq!(list(&names, "", "", 3), ["a1", "a2", "a3"]);
        assert_eq!(list(&names, "", "a3", 3), ["b", "c", "d"]);
        assert_eq!(list(&names, "", "d", 3), [""; 0]);
        assert_eq!(list(&names, "a", "a1", 1), ["a2"]);
        assert_eq!(list(&names, "x", "", 3), [""; 0]);
        assert_eq!(list(&names, "", "", 0), [""; 0]);
    }
}
