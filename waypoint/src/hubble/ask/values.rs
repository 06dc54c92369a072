//! Values of filters as people write them. An error says what was expected.

use crate::hubble::flows::event;
use crate::hubble::messages::{
    DropReason, EventTypeFilter, HttpHeader, IpVersion, TcpFlags, TrafficDirection, Verdict,
    Workload,
};

/// As it is.
pub fn text(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// A number.
pub fn number(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected a number".to_owned())
}

/// `true` or `false`.
pub fn truth(text: &str) -> Result<bool, String> {
    text.parse()
        .map_err(|_| "expected true or false".to_owned())
}

/// `KIND/NAME`, or a name.
pub fn workload(text: &str) -> Result<Workload, String> {
    let (kind, name) = text.split_once('/').unwrap_or(("", text));
    Ok(Workload {
        name: name.to_owned(),
        kind: kind.to_owned(),
    })
}

/// `NAME:VALUE`.
pub fn header(text: &str) -> Result<HttpHeader, String> {
    let (key, value) = text.split_once(':').ok_or("expected NAME:VALUE")?;
    Ok(HttpHeader {
        key: key.to_owned(),
        value: value.trim_start().to_owned(),
    })
}

/// A verdict by its name.
pub fn verdict(text: &str) -> Result<i32, String> {
    let verdict = Verdict::from_name(text).ok_or("expected FORWARDED, DROPPED, ERROR or AUDIT")?;
    Ok(verdict as i32)
}

/// A reason by its name.
pub fn drop_reason(text: &str) -> Result<i32, String> {
    let reason = DropReason::from_name(text);
    let reason = reason.ok_or("expected POLICY_DENIED, POLICY_DENY or AUTH_REQUIRED")?;
    Ok(reason as i32)
}

/// A direction by its name.
pub fn direction(text: &str) -> Result<i32, String> {
    let direction = TrafficDirection::from_name(text).ok_or("expected ingress or egress")?;
    Ok(direction as i32)
}

/// `v4` or `v6`.
pub fn ip_version(text: &str) -> Result<i32, String> {
    match text.to_ascii_lowercase().as_str() {
        "v4" | "4" | "ipv4" => Ok(IpVersion::V4 as i32),
        "v6" | "6" | "ipv6" => Ok(IpVersion::V6 as i32),
        _ => Err("expected v4 or v6".to_owned()),
    }
}

/// A kind of event, by the name that the `hubble` command has for it.
pub fn event_type(text: &str) -> Result<EventTypeFilter, String> {
    let number = match text {
        "drop" => event::DROP,
        "trace" => event::TRACE,
        "policy-verdict" => event::POLICY_VERDICT,
        "l7" => event::L7,
        _ => return Err("expected l7, policy-verdict, trace or drop".to_owned()),
    };
    Ok(EventTypeFilter {
        r#type: number,
        match_sub_type: false,
        sub_type: 0,
    })
}

/// Flags with commas.
pub fn tcp_flags(text: &str) -> Result<TcpFlags, String> {
    let mut flags = TcpFlags::default();
    for name in text.split(',') {
        let flag = match name.trim().to_ascii_lowercase().as_str() {
            "fin" => &mut flags.fin,
            "syn" => &mut flags.syn,
            "rst" => &mut flags.rst,
            "psh" => &mut flags.psh,
            "ack" => &mut flags.ack,
            "urg" => &mut flags.urg,
            "ece" => &mut flags.ece,
            "cwr" => &mut flags.cwr,
            "ns" => &mut flags.ns,
            _ => return Err("expected syn, ack, fin, rst and the like".to_owned()),
        };
        *flag = true;
    }
    Ok(flags)
}
