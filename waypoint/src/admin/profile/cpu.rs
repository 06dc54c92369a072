//! Where the process spends its time: a timer interrupts whoever uses a processor some hundred times a second,
//! and the stack is noted.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, SystemTime};

use pprof::{Frames, ProfilerGuardBuilder, Symbol};

use super::messages::{Builder, Frame};
use super::turn::Asker;

/// Samples in a second of processor time; no divisor of what timers usually run at.
const FREQUENCY_HZ: i32 = 99;

/// Code in which no sample is taken: a stack can not be followed out of it in every version.
const NOT_IN: [&str; 2] = ["libgcc", "vdso"];

/// Samples for so long, or until the asker leaves.
///
/// # Errors
/// When it leaves, and when nothing can be sampled.
pub fn sample(limit: Duration, asker: &Asker) -> io::Result<Vec<u8>> {
    let guard = ProfilerGuardBuilder::default()
        .frequency(FREQUENCY_HZ)
        .blocklist(&NOT_IN)
        .build()
        .map_err(io::Error::other)?;
    let began = SystemTime::now();
    asker.waits(limit)?;
    let took = began.elapsed().unwrap_or(limit);
    let noted = guard.report().build_unresolved();
    // Nothing is interrupted any more while names are looked up.
    drop(guard);
    let noted = noted.map_err(io::Error::other)?.data;
    let stacks = noted
        .into_iter()
        .map(|(stack, count)| (stack.into(), count));
    encode(stacks.collect(), began, took)
}

fn encode(
    stacks: HashMap<Frames, isize>,
    began: SystemTime,
    took: Duration,
) -> io::Result<Vec<u8>> {
    let every = 1_000_000_000 / i64::from(FREQUENCY_HZ);
    let mut builder = Builder::new(&[("samples", "count"), ("cpu", "nanoseconds")]);
    builder.period(("cpu", "nanoseconds"), every, began, took);
    for (stack, count) in stacks {
        let count = i64::try_from(count).unwrap_or_default();
        let places: Vec<Vec<Frame>> = stack.frames.iter().map(|p| place(p)).collect();
        let thread = stack.thread_name_or_id();
        let values = vec![count, count.saturating_mul(every)];
        builder.sample(&places, values, &[("thread", &thread)]);
    }
    builder.finish()
}

pub(super) fn place(symbols: &[Symbol]) -> Vec<Frame> {
    let frame = |symbol: &Symbol| Frame {
        function: symbol.name(),
        file: symbol.filename().into_owned(),
        line: symbol.lineno(),
    };
    symbols.iter().map(frame).collect()
}
