//! A profile of samples that are known, as pprof would read it.

use cairn_allocator::Stack;

use super::super::messages::read;
use super::*;

#[inline(never)]
fn here() -> Vec<usize> {
    let mut frames = Vec::new();
    backtrace::trace(|frame| {
        frames.push(frame.ip().addr());
        true
    });
    frames
}

fn amount(objects: f64, bytes: f64) -> Amount {
    Amount { objects, bytes }
}

#[test]
fn a_stack_has_its_functions_and_four_values() {
    let sampled = Sampled {
        stacks: vec![Stack {
            frames: here(),
            allocated: amount(1_024.4, 524_288.0),
            in_use: amount(2.0, 1_024.0),
        }],
        dropped: amount(3.0, 4_096.0),
    };
    let took = Duration::from_secs(2);
    let profile = encode(&sampled, SystemTime::now(), took).unwrap();
    let (profile, stacks) = read(&profile);
    let text = |n: i64| &*profile.string_table[usize::try_from(n).unwrap()];
    let types: Vec<_> = profile
        .sample_type
        .iter()
        .map(|value| (text(value.r#type), text(value.unit)))
        .collect();
    assert_eq!(types, VALUES);
    assert_eq!(profile.period, 524_288);
    assert_eq!(profile.duration_nanos, 2_000_000_000);
    let [(stack, values)] = &stacks[..] else {
        panic!("{stacks:?}");
    };
    assert_eq!(values[..], [1_024, 524_288, 2, 1_024]);
    // Frames of the backtrace itself are left out like those of the allocator.
    assert!(stack[0].contains("here"), "{stack:?}");
    assert!(
        stack
            .iter()
            .any(|f| f.contains("a_stack_has_its_functions"))
    );
    let dropped = "no room for samples of 3 allocations of 4096 bytes";
    assert!(profile.comment.iter().any(|n| text(*n) == dropped));
}

#[test]
fn functions_that_allocating_is_made_of_are_no_owners() {
    let place = |names: &[&str]| -> Vec<Frame> {
        let frame = |name: &&str| Frame {
            function: (*name).to_owned(),
            ..Frame::default()
        };
        names.iter().map(frame).collect()
    };
    let stack = vec![
        place(&[
            "cairn_allocator::sample::trace",
            "cairn_allocator::sample::allocated",
        ]),
        place(&["<cairn_allocator::Watched<A> as core::alloc::global::GlobalAlloc>::alloc"]),
        place(&["__rustc::__rust_alloc"]),
        place(&["alloc::alloc::alloc", "alloc::raw_vec::grow", "owner"]),
        place(&["alloc::alloc::not_at_the_end"]),
    ];
    let expected = vec![
        place(&["alloc::raw_vec::grow", "owner"]),
        place(&["alloc::alloc::not_at_the_end"]),
    ];
    assert_eq!(without_plumbing(stack), expected);
}
