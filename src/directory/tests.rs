use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn id(slot: usize) -> ConnId {
    ConnId::new(slot, 1)
}

#[test]
fn name_leads_to_its_connections_and_back() {
    let mut directory = Directory::default();
    directory.set_name(id(1), name("a"));
    directory.set_name(id(2), name("a"));
    directory.set_name(id(3), name("b"));
    assert_eq!(directory.holders("a"), [id(1), id(2)]);
    assert_eq!(directory.name(id(3)), Some(&name("b")));
    directory.remove(id(1));
    assert_eq!(directory.holders("a"), [id(2)]);
    directory.set_name(id(2), name("b"));
    assert!(directory.holders("a").is_empty(), "the old name is gone");
    assert_eq!((directory.holders("b").len(), directory.names()), (2, 1));
}

#[test]
fn entry_without_name_and_groups_is_dropped() {
    let mut directory = Directory::default();
    assert_eq!(directory.join(id(1), &name("g")), Ok(true));
    assert_eq!(directory.join(id(1), &name("g")), Ok(false));
    assert!(directory.leave(id(1), "g") && !directory.leave(id(1), "g"));
    assert!(directory.entries.is_empty() && directory.groups.is_empty());
}

#[test]
fn groups_of_one_connection_are_bounded() {
    let mut directory = Directory::default();
    for n in 0..MAX_GROUPS {
        assert_eq!(directory.join(id(1), &name(&format!("g{n}"))), Ok(true));
    }
    assert_eq!(directory.join(id(1), &name("more")), Err(TooManyGroups));
    assert_eq!(directory.join(id(1), &name("g3")), Ok(false));
    assert_eq!(directory.memberships(), MAX_GROUPS);
    directory.remove(id(1));
    assert_eq!((directory.groups(), directory.memberships()), (0, 0));
}

/// Resident memory of this process in bytes (proc(5)).
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let resident = pages.split(' ').nth(1).expect("the second field");
    resident.parse::<usize>().expect("a number") * 4096
}

/// `cargo test --release --lib directory::tests::cost -- --ignored --nocapture`
#[test]
#[ignore = "prints what a name and a membership cost"]
fn cost_of_names_and_memberships() {
    const NAMES: usize = 100_000;
    const GROUPS: usize = 1000;
    const EACH: usize = 8;
    let mut directory = Directory::default();
    let before = resident_bytes();
    for slot in 0..NAMES {
        directory.set_name(id(slot), name(&format!("device-{slot:06}")));
    }
    let named = resident_bytes();
    for slot in 0..NAMES {
        for n in 0..EACH {
            let group = name(&format!("group-{}", (slot * EACH + n) % GROUPS));
            directory.join(id(slot), &group).expect("few enough");
        }
    }
    let joined = resident_bytes();
    println!("{} bytes per name of 13 bytes", (named - before) / NAMES);
    let memberships = NAMES * EACH;
    println!("{} bytes per membership", (joined - named) / memberships);
}

#[derive(Clone, Debug)]
enum Step {
    SetName(usize, u8),
    Join(usize, u8),
    Leave(usize, u8),
    Remove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let slot = || 0usize..6;
    prop_oneof![
        (slot(), 0u8..4).prop_map(|(slot, name)| Step::SetName(slot, name)),
        (slot(), 0u8..4).prop_map(|(slot, group)| Step::Join(slot, group)),
        (slot(), 0u8..4).prop_map(|(slot, group)| Step::Leave(slot, group)),
        slot().prop_map(Step::Remove),
    ]
}

proptest! {
    /// The directory agrees with two sets of pairs.
    #[test]
    fn directory_agrees_with_a_model(steps in proptest::collection::vec(step(), 0..80)) {
        let mut directory = Directory::default();
        let mut names: BTreeMap<ConnId, Name> = BTreeMap::new();
        let mut groups: BTreeSet<(Name, ConnId)> = BTreeSet::new();
        let text = |n: u8| name(&format!("n{n}"));
        for step in steps {
            match step {
                Step::SetName(slot, n) => {
                    directory.set_name(id(slot), text(n));
                    names.insert(id(slot), text(n));
                }
                Step::Join(slot, n) => {
                    let joined = directory.join(id(slot), &text(n));
                    prop_assert_eq!(joined, Ok(groups.insert((text(n), id(slot)))));
                }
                Step::Leave(slot, n) => {
                    let left = directory.leave(id(slot), &text(n));
                    prop_assert_eq!(left, groups.remove(&(text(n), id(slot))));
                }
                Step::Remove(slot) => {
                    directory.remove(id(slot));
                    names.remove(&id(slot));
                    groups.retain(|(_, member)| *member != id(slot));
                }
            }
            prop_assert_eq!(directory.memberships(), groups.len());
            for n in 0..4 {
                let holders: BTreeSet<ConnId> =
                    directory.holders(&text(n)).iter().copied().collect();
                prop_assert_eq!(holders.len(), directory.holders(&text(n)).len());
                let expected = names.iter().filter(|(_, name)| **name == text(n));
                prop_assert_eq!(holders, expected.map(|(id, _)| *id).collect());
                let members: BTreeSet<ConnId> =
                    directory.members(&text(n)).iter().copied().collect();
                let expected = groups.iter().filter(|(group, _)| *group == text(n));
                prop_assert_eq!(members, expected.map(|(_, id)| *id).collect());
            }
            for slot in 0..6 {
                prop_assert_eq!(directory.name(id(slot)), names.get(&id(slot)));
                let of_one: BTreeSet<&Name> = directory.groups_of(id(slot)).collect();
                let expected = groups.iter().filter(|(_, member)| *member == id(slot));
                prop_assert_eq!(of_one, expected.map(|(group, _)| group).collect());
            }
            for entry in directory.entries.values() {
                prop_assert!(entry.name.is_some() || !entry.groups.is_empty());
            }
        }
    }
}
