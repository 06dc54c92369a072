//! What the table tells, held against a list; that it never grows.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const ROOM: Room = Room {
    stacks: 4,
    living: 8,
};

#[derive(Clone, Debug)]
enum Step {
    Allocated(usize, usize, Vec<usize>),
    Freed(usize),
    Failed(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let at = 1_usize..16;
    let stack = proptest::collection::vec(1_usize..4, 1..3);
    let step = prop_oneof![
        (at.clone(), 1_usize..1_000_000, stack).prop_map(|(a, b, s)| Step::Allocated(a, b, s)),
        at.clone().prop_map(Step::Freed),
        at.prop_map(Step::Failed),
    ];
    proptest::collection::vec(step, 0..60)
}

fn close(a: Amount, b: Amount) -> bool {
    let close = |a: f64, b: f64| (a - b).abs() <= 1e-6 * (1.0 + a.abs());
    close(a.objects, b.objects) && close(a.bytes, b.bytes)
}

proptest! {
    #[test]
    fn it_tells_what_a_list_would(steps in steps()) {
        let mut table = Table::new(ROOM);
        let mut stacks: BTreeMap<Vec<usize>, Amount> = BTreeMap::new();
        let mut living: BTreeMap<usize, (Vec<usize>, usize)> = BTreeMap::new();
        let mut dropped = Amount::default();
        for step in steps {
            match step {
                Step::Allocated(at, bytes, frames) => {
                    living.remove(&at);
                    let known = stacks.contains_key(&frames);
                    let has_room = known || stacks.len() < ROOM.stacks;
                    if has_room {
                        stacks.entry(frames.clone()).or_default();
                    }
                    let fits = has_room && living.len() < ROOM.living;
                    prop_assert_eq!(table.allocated(at, bytes, &frames), fits);
                    let amount = Amount::of_sample(bytes);
                    if fits {
                        stacks.entry(frames.clone()).or_default().add(amount);
                        living.insert(at, (frames, bytes));
                    } else {
                        dropped.add(amount);
                    }
                }
                Step::Freed(at) => {
                    prop_assert_eq!(table.freed(at).is_some(), living.remove(&at).is_some());
                }
                Step::Failed(at) => {
                    if let Some(before) = table.freed(at) {
                        table.kept(at, before);
                    }
                }
            }
        }
        let told = table.told();
        prop_assert!(close(told.dropped, dropped));
        prop_assert_eq!(told.stacks.len(), stacks.len());
        for stack in &told.stacks {
            prop_assert!(close(stack.allocated, stacks[&stack.frames]));
            let mut in_use = Amount::default();
            for (_, bytes) in living.values().filter(|(frames, _)| *frames == stack.frames) {
                in_use.add(Amount::of_sample(*bytes));
            }
            prop_assert!(close(stack.in_use, in_use), "{:?} {:?}", stack.in_use, in_use);
        }
    }
}

/// Growing would be an allocation of its own, inside one of somebody else.
#[test]
fn it_never_grows() {
    let mut table = Table::new(ROOM);
    let room = |table: &Table| {
        let (frames, stacks) = (table.frames.capacity(), table.stacks.capacity());
        (
            frames,
            stacks,
            table.by_hash.capacity(),
            table.living.capacity(),
        )
    };
    let before = room(&table);
    let of_living = table.living.capacity();
    for n in 0..100_000_usize {
        table.allocated(n * 16, 64, &[n % 7; 30]);
        if n % 5 != 0 {
            table.freed(n * 16);
        }
        if n % 64 == 0 {
            for n in (0..n).rev().take(128) {
                table.freed(n * 16);
            }
        }
        assert!(table.living.len() <= ROOM.living);
    }
    let after = room(&table);
    assert_eq!((before.0, before.1, before.2), (after.0, after.1, after.2));
    // Its capacity is told as less while places are taken by what left; never as more.
    assert!(after.3 <= of_living, "{} of {of_living}", after.3);
}
