//! What is told of allocations of this very program, whose sizes and functions are known.

// A panic here is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use std::ffi::c_void;
use std::hint::black_box;
use std::sync::{Mutex, MutexGuard, PoisonError};

use cairn_allocator::{Room, Sampled, Watched};
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: Watched<MiMalloc> = Watched::new(MiMalloc);

const MIB: f64 = 1024.0 * 1024.0;
const ROOM: Room = Room {
    stacks: 1_024,
    living: 8_192,
};

/// One profile at a time is all that a process can take.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// 256 MiB in pieces of 4 KiB: some 512 samples.
#[inline(never)]
fn hoards() -> Vec<Vec<u8>> {
    (0..65_536).map(|_| black_box(vec![1; 4_096])).collect()
}

#[inline(never)]
fn wastes() {
    (0..65_536).for_each(|_| drop(black_box(vec![1_u8; 4_096])));
}

/// Doubles its memory again and again, to 64 MiB.
#[inline(never)]
fn grows() -> Vec<u8> {
    let mut all = vec![0_u8; 1_024];
    while all.len() < 64 * 1024 * 1024 {
        all.reserve_exact(all.len());
        all.resize(all.len() * 2, 0);
    }
    black_box(all)
}

/// MiB that stacks with this function allocated, and what of it is in use.
fn of(sampled: &Sampled, function: &str) -> (f64, f64) {
    let is_in = |frame: &usize| {
        let mut found = false;
        backtrace::resolve(*frame as *mut c_void, |symbol| {
            let name = symbol.name().map(|name| name.to_string());
            found |= name.unwrap_or_default().contains(function);
        });
        found
    };
    let with = sampled
        .stacks
        .iter()
        .filter(|stack| stack.frames.iter().any(is_in));
    let (mut allocated, mut in_use) = (0.0, 0.0);
    for stack in with {
        allocated += stack.allocated.bytes / MIB;
        in_use += stack.in_use.bytes / MIB;
    }
    (allocated, in_use)
}

#[track_caller]
fn near(found: f64, expected: f64) {
    assert!(
        (found / expected - 1.0).abs() < 0.3,
        "{found} of {expected} MiB"
    );
}

#[test]
fn memory_is_told_by_function_and_what_was_freed_is_not_in_use() {
    let _turn = turn();
    let taking = cairn_allocator::start(ROOM).unwrap();
    let mut held = hoards();
    wastes();
    held.truncate(held.len() / 2);
    let sampled = taking.end();
    let (allocated, in_use) = of(&sampled, "hoards");
    near(allocated, 256.0);
    near(in_use, 128.0);
    let (allocated, in_use) = of(&sampled, "wastes");
    near(allocated, 256.0);
    assert!(in_use < 1.0, "{in_use} MiB");
    assert!(sampled.dropped.objects < 1.0);
    drop(held);
}

#[test]
fn what_moved_is_in_use_once_and_another_thread_may_free_it() {
    let _turn = turn();
    let taking = cairn_allocator::start(ROOM).unwrap();
    let grown = grows();
    let held = std::thread::spawn(hoards).join().unwrap();
    std::thread::spawn(move || drop(held)).join().unwrap();
    let sampled = taking.end();
    let (allocated, in_use) = of(&sampled, "grows");
    near(allocated, 128.0);
    near(in_use, 64.0);
    let (allocated, in_use) = of(&sampled, "hoards");
    near(allocated, 256.0);
    assert!(in_use < 8.0, "{in_use} MiB");
    drop(grown);
}

#[test]
fn what_finds_no_room_is_told_as_that() {
    let _turn = turn();
    let room = Room {
        stacks: 64,
        living: 16,
    };
    let taking = cairn_allocator::start(room).unwrap();
    let held = hoards();
    let sampled = taking.end();
    let living: f64 = sampled.stacks.iter().map(|s| s.in_use.bytes).sum();
    near(living / MIB + sampled.dropped.bytes / MIB, 256.0);
    assert!(sampled.dropped.bytes / MIB > 200.0);
    drop(held);
}

#[test]
fn there_is_one_at_a_time_and_an_ended_one_leaves_nothing() {
    let _turn = turn();
    let first = cairn_allocator::start(ROOM).unwrap();
    assert!(cairn_allocator::start(ROOM).is_none());
    let held = hoards();
    drop(first);
    let second = cairn_allocator::start(ROOM).unwrap();
    let (allocated, _) = of(&second.end(), "hoards");
    assert!(allocated < 1.0, "{allocated} MiB of the one before");
    drop(held);
}

/// Threads come and go, and free what others allocated, while profiles begin and end.
#[test]
fn threads_are_not_disturbed_by_profiles() {
    let _turn = turn();
    let workers: Vec<_> = (0_u8..4)
        .map(|n| {
            std::thread::spawn(move || {
                let mut kept: Vec<Vec<u8>> = Vec::new();
                for turn in 0..8_000_usize {
                    kept.push(vec![n; 1 + turn * 37 % 60_000]);
                    if turn % 3 != 0 {
                        let gone = kept.swap_remove(turn % kept.len());
                        assert!(gone.iter().all(|byte| *byte == n));
                    }
                    if kept.len() > 200 {
                        let away = std::mem::take(&mut kept);
                        drop(std::thread::spawn(move || drop(away)));
                    }
                }
            })
        })
        .collect();
    let mut sampled = 0;
    while workers.iter().any(|worker| !worker.is_finished()) {
        let taking = cairn_allocator::start(ROOM).unwrap();
        std::thread::yield_now();
        sampled += taking.end().stacks.len();
    }
    workers
        .into_iter()
        .for_each(|worker| worker.join().unwrap());
    assert!(sampled > 0);
}
