//! Who holds memory, as far as Cairn counts it: by owner, with the rest of what the kernel says this process
//! has. Who allocates is `heap`'s to say.

use std::io;
use std::time::{Duration, SystemTime};

use super::super::state::AdminState;
use super::messages::{Builder, Frame};
use crate::telemetry::counters::{
    CONNECTIONS, STREAMS, TUNNELS, UPSTREAM_STREAMS, UPSTREAM_TUNNELS,
};
use crate::telemetry::{access_log, flow, otlp, series};

/// What is said of it in the profile.
const COMMENT: &str = "counted by Cairn itself, without what allocators add; (rest) is what the kernel says is \
    resident and nobody counted";

/// Something that is held, the widest name first.
struct Holding {
    by: Vec<&'static str>,
    objects: u64,
    bytes: u64,
}

/// The profile, compressed.
///
/// # Errors
/// When the kernel does not say how much memory there is.
pub fn profile(state: &AdminState) -> io::Result<Vec<u8>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let counted = holdings(state);
    let mut builder = Builder::new(&[("inuse_objects", "count"), ("inuse_space", "bytes")]);
    builder.period(("space", "bytes"), 1, SystemTime::now(), Duration::ZERO);
    builder.comment(COMMENT);
    let known: u64 = counted.iter().map(|holding| holding.bytes).sum();
    for holding in &counted {
        add(&mut builder, holding);
    }
    let anonymous = kib(&status, "RssAnon")? * 1024;
    for (by, bytes) in [
        (vec!["memory", "(rest)"], anonymous.saturating_sub(known)),
        (vec!["program and files"], kib(&status, "RssFile")? * 1024),
    ] {
        let objects = 1;
        add(&mut builder, &Holding { by, objects, bytes });
    }
    builder.finish()
}

fn add(builder: &mut Builder, holding: &Holding) {
    let place = |name: &&str| {
        vec![Frame {
            function: (*name).to_owned(),
            ..Frame::default()
        }]
    };
    let stack: Vec<_> = holding.by.iter().rev().map(place).collect();
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let values = vec![number(holding.objects), number(holding.bytes)];
    builder.sample(&stack, values, &[]);
}

/// A line of /proc/self/status (proc(5)).
fn kib(status: &str, name: &str) -> io::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("/proc/self/status has no {name}")))
}

fn holdings(state: &AdminState) -> Vec<Holding> {
    let mut all = Vec::new();
    let mut add = |by: &[&'static str], objects: usize, bytes: usize| {
        let by = [&["memory"][..], by].concat();
        let (objects, bytes) = (objects as u64, bytes as u64);
        all.push(Holding { by, objects, bytes });
    };
    for series::Size {
        table,
        objects,
        bytes,
    } in state.registry.sizes()
    {
        add(&["telemetry", "metrics", table], objects, bytes);
    }
    if let Some(ring) = flow::ring() {
        let (records, bytes) = ring.size();
        add(&["telemetry", "flow records"], records, bytes);
    }
    let (records, bytes) = otlp::waiting();
    add(&["telemetry", "records for collectors"], records, bytes);
    let (objects, bytes) = otlp::known();
    add(&["telemetry", "what spans say of objects"], objects, bytes);
    let (kinds, bytes) = access_log::kept();
    add(&["telemetry", "what lines have in common"], kinds, bytes);
    // Counted, not measured: their buffers are in the rest.
    for (name, gauge) in [
        ("connections", &CONNECTIONS),
        ("tunnels", &TUNNELS),
        ("streams", &STREAMS),
        ("upstream tunnels", &UPSTREAM_TUNNELS),
        ("upstream streams", &UPSTREAM_STREAMS),
    ] {
        let open = usize::try_from(gauge.value()).unwrap_or_default();
        add(&["traffic", name], open, 0);
    }
    all
}
