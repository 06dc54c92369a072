//! Who allocates: samples of the allocator over some seconds, by stack, with what of them is still in use at the end.
//! Knows nothing of what was allocated before; that is `memory`'s.

use std::collections::HashMap;
use std::ffi::c_void;
use std::io;
use std::time::{Duration, SystemTime};

use cairn_allocator::{Amount, PERIOD_BYTES, Room, Sampled};
use pprof::Symbol;

use super::cpu::place;
use super::messages::{Builder, Frame};
use super::turn::Asker;
use crate::limits::{HEAP_PROFILE_SAMPLES_MAX, HEAP_PROFILE_STACKS_MAX};

/// How much is kept while it is taken.
const ROOM: Room = Room {
    stacks: HEAP_PROFILE_STACKS_MAX,
    living: HEAP_PROFILE_SAMPLES_MAX,
};

/// What a profile has, in the order of Go's.
const VALUES: [(&str, &str); 4] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
];

/// On the way from who allocates to the sample, and no owner of memory: by names of functions, and by their files where
/// they are inlined, for then a name is without its path.
const PLUMBING: [&str; 5] = [
    "cairn_allocator::",
    "<cairn_allocator::",
    "backtrace::",
    "alloc::alloc::",
    "<alloc::alloc::Global",
];
const PLUMBING_FILES: [&str; 4] = [
    "allocator/src/lib.rs",
    "allocator/src/sample.rs",
    "/alloc/src/alloc.rs",
    "/backtrace-0.",
];

/// Samples for so long, or until the asker leaves.
///
/// # Errors
/// When it leaves.
pub fn sample(limit: Duration, asker: &Asker) -> io::Result<Vec<u8>> {
    let began = SystemTime::now();
    let taking = cairn_allocator::start(ROOM)
        .ok_or_else(|| io::Error::other("another one was not over; please report this"))?;
    asker.waits(limit)?;
    let sampled = taking.end();
    encode(&sampled, began, began.elapsed().unwrap_or(limit))
}

fn encode(sampled: &Sampled, began: SystemTime, took: Duration) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(&VALUES);
    let every = i64::try_from(PERIOD_BYTES).unwrap_or(i64::MAX);
    builder.period(("space", "bytes"), every, began, took);
    builder.comment(
        "estimated from samples; inuse is what of the allocations of this time was not freed within it",
    );
    let Amount { objects, bytes } = sampled.dropped;
    if objects > 0.0 {
        let words = format!("no room for samples of {objects:.0} allocations of {bytes:.0} bytes");
        builder.comment(&words);
    }
    let mut names = HashMap::new();
    for stack in &sampled.stacks {
        // Where a thread begins there may be nothing more to return to.
        let frames = stack.frames.iter().filter(|frame| **frame != 0);
        let places = frames.map(|frame| {
            let known = names.entry(*frame).or_insert_with(|| named(*frame));
            known.clone()
        });
        let places = without_plumbing(places.collect());
        let values = [stack.allocated, stack.in_use]
            .into_iter()
            .flat_map(|amount| [amount.objects, amount.bytes])
            .map(|value| value.round() as i64);
        builder.sample(&places, values.collect(), &[]);
    }
    builder.finish()
}

/// The functions of a return address: the one it is in, and those that it was inlined into.
fn named(frame: usize) -> Vec<Frame> {
    let mut symbols = Vec::new();
    backtrace::resolve(frame as *mut c_void, |symbol| {
        symbols.push(Symbol {
            name: symbol.name().map(|name| name.as_bytes().to_vec()),
            addr: symbol.addr(),
            lineno: symbol.lineno(),
            filename: symbol.filename().map(Into::into),
        });
    });
    if symbols.is_empty() {
        let function = format!("{frame:#x}");
        return vec![Frame {
            function,
            ..Frame::default()
        }];
    }
    place(&symbols)
}

/// Without the innermost frames that allocating is made of.
fn without_plumbing(mut places: Vec<Vec<Frame>>) -> Vec<Vec<Frame>> {
    for place in &mut places {
        let is_plumbing = |frame: &Frame| {
            let (name, file) = (&*frame.function, &*frame.file);
            name.contains("__rust_")
                || PLUMBING.iter().any(|part| name.starts_with(part))
                || PLUMBING_FILES.iter().any(|part| file.contains(part))
        };
        let owner = place.iter().position(|frame| !is_plumbing(frame));
        place.drain(..owner.unwrap_or(place.len()));
        if owner.is_some() {
            break;
        }
    }
    places.retain(|place| !place.is_empty());
    places
}

#[cfg(test)]
mod tests;
