//! Filters on requests and responses. They ask for something that only flows of layer 7 have, so that an
//! event type beside them that leaves those out is a mistake.

use regex::{RegexSet, RegexSetBuilder};

use super::{Filter, Invalid, Test};
use crate::hubble::flows::event;
use crate::hubble::messages::{Flow, FlowFilter, Http, HttpHeader, layer7};
use crate::limits::HUBBLE_REGEX_BYTES_MAX;

/// `404`, or the beginning of it: `4+`, `40+`, which may be written `4xx`, too.
#[derive(Debug)]
pub enum Status {
    Exactly(u32),
    /// The first digits, and how many are left out.
    Beginning(u32, u32),
}

/// Reads the fields that are about HTTP.
pub fn read(from: &FlowFilter, tests: &mut Filter) -> Result<(), Invalid> {
    let fields = [
        ("status code", !from.http_status_code.is_empty()),
        ("method", !from.http_method.is_empty()),
        ("path", !from.http_path.is_empty()),
        ("url", !from.http_url.is_empty()),
        ("header", !from.http_header.is_empty()),
    ];
    let types = &from.event_type;
    let without_l7 = !types.is_empty() && !types.iter().any(|t| t.r#type == event::L7);
    if let Some((field, _)) = fields.iter().find(|(_, asked)| *asked && without_l7) {
        return Err(Invalid::new(format!(
            "filtering by http {field} needs the event type l7, or none"
        )));
    }
    if !from.http_status_code.is_empty() {
        let statuses = from.http_status_code.iter().map(|text| Status::read(text));
        tests.push(Test::Status(statuses.collect::<Result<_, _>>()?));
    }
    if !from.http_method.is_empty() {
        tests.push(Test::Method(from.http_method.clone()));
    }
    if !from.http_path.is_empty() {
        tests.push(Test::Path(expressions(&from.http_path)?));
    }
    if !from.http_url.is_empty() {
        tests.push(Test::Url(expressions(&from.http_url)?));
    }
    if !from.http_header.is_empty() {
        tests.push(Test::Header(from.http_header.clone()));
    }
    Ok(())
}

fn expressions(texts: &[String]) -> Result<RegexSet, Invalid> {
    let mut builder = RegexSetBuilder::new(texts);
    builder.size_limit(HUBBLE_REGEX_BYTES_MAX);
    let set = builder.build();
    set.map_err(|error| Invalid::new(format!("not a regular expression: {error}")))
}

impl Status {
    fn read(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new(format!("{text:?} is not a status, like 404, 5+ or 5xx"));
        let digits = text.trim_end_matches(['+', 'x', 'X']);
        let more = text.get(digits.len()..).unwrap_or_default();
        let number: u32 = digits.parse().map_err(|_| invalid())?;
        let first = digits.bytes().next().unwrap_or_default();
        if !(b'1'..=b'5').contains(&first) {
            return Err(invalid());
        }
        let is_open = |left_out| more == "+" || more.len() == left_out && !more.contains('+');
        match digits.len() {
            3 if more.is_empty() => Ok(Self::Exactly(number)),
            2 if is_open(1) => Ok(Self::Beginning(number, 10)),
            1 if is_open(2) => Ok(Self::Beginning(number, 100)),
            _ => Err(invalid()),
        }
    }
}

fn http(flow: &Flow) -> Option<&Http> {
    let layer7::Record::Http(http) = flow.l7.as_ref()?.record.as_ref()?;
    Some(http)
}

/// Of responses only: a request has no status.
pub fn status(wanted: &[Status], flow: &Flow) -> bool {
    let code = http(flow).map_or(0, |http| http.code);
    code != 0
        && wanted.iter().any(|status| match status {
            Status::Exactly(wanted) => *wanted == code,
            Status::Beginning(digits, rest) => code / rest == *digits,
        })
}

/// In any case of letters.
pub fn method(wanted: &[String], flow: &Flow) -> bool {
    let method = http(flow).map_or("", |http| &http.method);
    !method.is_empty() && wanted.iter().any(|m| m.eq_ignore_ascii_case(method))
}

/// An expression matches somewhere in the URL.
pub fn url(wanted: &RegexSet, flow: &Flow) -> bool {
    http(flow).is_some_and(|http| !http.url.is_empty() && wanted.is_match(&http.url))
}

/// An expression matches somewhere in the path, with its escapes undone and without the query.
pub fn path(wanted: &RegexSet, flow: &Flow) -> bool {
    let path = http(flow).and_then(|http| path_of(&http.url));
    path.is_some_and(|path| wanted.is_match(&path))
}

/// Name and value are the same, letter by letter.
pub fn header(wanted: &[HttpHeader], flow: &Flow) -> bool {
    let headers = http(flow).map_or(&[][..], |http| &http.headers);
    headers.iter().any(|header| wanted.contains(header))
}

/// The path of a URL; `None` if an escape in it is none.
fn path_of(url: &str) -> Option<String> {
    let (_, after) = url.split_once("://")?;
    let path = after.find('/').and_then(|at| after.get(at..)).unwrap_or("");
    let path = path.split('?').next().unwrap_or_default();
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |c: u8| char::from(c).to_digit(16);
                let (high, low) = (digit(bytes.next()?)?, digit(bytes.next()?)?);
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&decoded).into_owned())
}
