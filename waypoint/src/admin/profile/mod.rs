//! `/debug/pprof/`: profiles that `go tool pprof` reads. Where the process spends its time and who allocates are sampled
//! while somebody asks; who holds memory is what Cairn counts of itself.

mod cpu;
mod heap;
mod memory;
mod messages;
mod turn;

use std::io;
use std::time::Duration;

use futures::FutureExt;
use http::header::{CONTENT_DISPOSITION, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};

use super::answer::{Answered, Body, text, typed};
use super::state::AdminState;
use crate::limits::PROFILE_SECONDS_MAX;
use turn::{Asker, Turn};

/// How long is sampled when nobody says.
const SECONDS_DEFAULT: u64 = 10;

/// Answers `/debug/pprof/profile`.
pub(super) fn cpu(query: &str) -> Answered {
    taken(query, "cpu.pb.gz", cpu::sample)
}

/// Answers `/debug/pprof/heap`: with `seconds` who allocates in that time, else who holds memory now.
pub(super) fn heap(query: &str, state: &AdminState) -> Answered {
    if !query.is_empty() {
        return taken(query, "heap.pb.gz", heap::sample);
    }
    Answered::Now(match memory::profile(state) {
        Ok(profile) => file("memory.pb.gz", profile),
        Err(error) => failed(&error),
    })
}

fn taken(
    query: &str,
    name: &'static str,
    sample: fn(Duration, &Asker) -> io::Result<Vec<u8>>,
) -> Answered {
    let seconds = match seconds(query) {
        Ok(seconds) => seconds,
        Err(why) => return Answered::Now(text(StatusCode::BAD_REQUEST, why)),
    };
    let Some(turn) = Turn::take() else {
        let why = "a profile is being taken; one at a time\n".to_owned();
        return Answered::Now(text(StatusCode::CONFLICT, why));
    };
    let taken = match turn::start(turn, seconds, sample) {
        Ok(taken) => taken,
        Err(error) => return Answered::Now(failed(&error)),
    };
    let answer = async move {
        match taken.profile().await {
            Ok(profile) => file(name, profile),
            Err(error) => failed(&error),
        }
    };
    Answered::Later(answer.boxed())
}

fn seconds(query: &str) -> Result<u64, String> {
    let mut said = None;
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "seconds" => said = Some(value.into_owned()),
            other => return Err(format!("there is no parameter {other:?}; seconds\n")),
        }
    }
    let Some(said) = said else {
        return Ok(SECONDS_DEFAULT);
    };
    let seconds = said.parse().ok();
    let bounds = 1..=PROFILE_SECONDS_MAX.as_secs();
    let within = seconds.filter(|seconds| bounds.contains(seconds));
    within.ok_or_else(|| format!("seconds: a whole number from 1 to {}\n", bounds.end()))
}

fn file(name: &str, profile: Vec<u8>) -> Response<Body> {
    let body = Full::from(profile).boxed();
    let mut response = typed(StatusCode::OK, "application/octet-stream", body);
    let name = HeaderValue::try_from(format!("attachment; filename=\"{name}\""));
    if let Ok(name) = name {
        response.headers_mut().insert(CONTENT_DISPOSITION, name);
    }
    response
}

fn failed(error: &io::Error) -> Response<Body> {
    let why = format!("no profile could be taken: {error}\n");
    text(StatusCode::INTERNAL_SERVER_ERROR, why)
}

#[cfg(test)]
mod tests;
