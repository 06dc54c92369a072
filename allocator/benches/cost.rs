//! What watching costs a pair of allocation and release: the allocator alone, watched while nobody asks, and while
//! somebody does, in rounds that take turns. `cargo bench -p cairn-allocator`.

#![allow(
    unsafe_code,
    reason = "allocators are called as the compiler calls them"
)]

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::time::Instant;

use cairn_allocator::{Room, Watched};
use mimalloc::MiMalloc;

static ALONE: MiMalloc = MiMalloc;
static WATCHED: Watched<MiMalloc> = Watched::new(MiMalloc);

const PAIRS: u32 = 2_000_000;
const ROUNDS: usize = 21;
const ROOM: Room = Room {
    stacks: 4_096,
    living: 16_384,
};

/// Nanoseconds a pair.
fn round(allocator: &impl GlobalAlloc, bytes: usize) -> f64 {
    let began = Instant::now();
    for _ in 0..PAIRS {
        // SAFETY: no size here is 0, and what was allocated is freed with the same layout.
        unsafe {
            let layout = Layout::from_size_align_unchecked(black_box(bytes), 8);
            let at = black_box(allocator.alloc(layout));
            allocator.dealloc(at, layout);
        }
    }
    began.elapsed().as_secs_f64() * 1e9 / f64::from(PAIRS)
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

fn main() {
    println!("ns a pair, medians of {ROUNDS} rounds: alone, watched, while a profile is taken");
    for bytes in [32, 256, 4_096] {
        let (mut alone, mut watched, mut taken) = (vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            alone.push(round(&ALONE, bytes));
            watched.push(round(&WATCHED, bytes));
            let taking = cairn_allocator::start(ROOM);
            taken.push(round(&WATCHED, bytes));
            drop(taking);
        }
        let [alone, watched, taken] = [alone, watched, taken].map(median);
        println!("{bytes:>5} B: {alone:.2} {watched:.2} {taken:.2}");
    }
}
