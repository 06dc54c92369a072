//! `/debug/pprof/`: profiles that `go tool pprof` reads. Where the process spends its time is sampled while
//! somebody asks; who holds memory is what Cairn counts of itself, for the allocator samples nothing.

mod cpu;
mod memory;
mod messages;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::header::{CONTENT_DISPOSITION, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};

use super::answer::{Answered, Body, text, typed};
use super::state::AdminState;
use crate::limits::PROFILE_SECONDS_MAX;

/// How long is sampled when nobody says.
const SECONDS_DEFAULT: u64 = 10;

/// Answers `/debug/pprof/profile`.
pub(super) fn cpu(query: &str) -> Answered {
    let seconds = match seconds(query) {
        Ok(seconds) => seconds,
        Err(why) => return Answered::Now(text(StatusCode::BAD_REQUEST, why)),
    };
    let Some(turn) = cpu::Turn::take() else {
        let why = "a profile is being taken; one at a time\n".to_owned();
        return Answered::Now(text(StatusCode::CONFLICT, why));
    };
    match cpu::start(turn, seconds) {
        Ok(taken) => Answered::Later(told(taken)),
        Err(error) => Answered::Now(failed(&error)),
    }
}

fn told(taken: cpu::Taken) -> BoxFuture<'static, Response<Body>> {
    let answer = async {
        match taken.profile().await {
            Ok(profile) => file("cpu.pb.gz", profile),
            Err(error) => failed(&error),
        }
    };
    answer.boxed()
}

/// Answers `/debug/pprof/heap`.
pub(super) fn memory(state: &AdminState) -> Response<Body> {
    let taken = memory::profile(state);
    match taken {
        Ok(profile) => file("memory.pb.gz", profile),
        Err(error) => failed(&error),
    }
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

fn failed(error: &std::io::Error) -> Response<Body> {
    let why = format!("no profile could be taken: {error}\n");
    text(StatusCode::INTERNAL_SERVER_ERROR, why)
}

#[cfg(test)]
mod tests;
