//! `when` of an AuthorizationPolicy rule: which keys there are, and what each is compared with
//! (specs/istio-waypoint.md 4.8).

use std::sync::Arc;

use http::header::{HOST, HeaderName};

use super::policy_rules::Reading;
use super::policy_values as read_value;
use crate::diagnostics::Code;
use crate::resources::istio::When;
use crate::snapshot::Condition;

/// Keys that are a word of their own, for "did you mean".
const KEYS: [&str; 13] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "destination.ip",
    "destination.port",
    "request.headers",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims",
];

/// Reads one condition. `None`: it can not be evaluated, and the rule is broken.
pub(super) fn read(written: &When, path: &str, reading: &mut Reading<'_>) -> Option<Condition> {
    let is_empty = |values: &Option<Vec<String>>| values.as_ref().is_none_or(Vec::is_empty);
    if is_empty(&written.values) && is_empty(&written.not_values) {
        let message = "a condition has values or notValues";
        reading.fail(Code::MissingField, path, message);
        return None;
    }
    let any_of = (&written.values, format!("{path}.values"));
    let none_of = (&written.not_values, format!("{path}.notValues"));
    let condition = match written.key.as_str() {
        "source.ip" => Condition::SourceIp(reading.values(any_of, none_of, read_value::ip_block)),
        "remote.ip" => Condition::RemoteIp(reading.values(any_of, none_of, read_value::ip_block)),
        "source.namespace" => {
            Condition::SourceNamespace(reading.values(any_of, none_of, read_value::namespace))
        }
        "source.principal" => {
            Condition::SourcePrincipal(reading.values(any_of, none_of, read_value::principal))
        }
        "source.serviceAccount" => Condition::SourceServiceAccount(reading.values(
            any_of,
            none_of,
            read_value::service_account,
        )),
        "source.trustDomain" => {
            Condition::SourceTrustDomain(reading.values(any_of, none_of, read_value::text))
        }
        "destination.ip" => {
            Condition::DestinationIp(reading.values(any_of, none_of, read_value::ip_block))
        }
        "destination.port" => {
            Condition::DestinationPort(reading.values(any_of, none_of, read_value::port))
        }
        "request.auth.principal" => Condition::RequestPrincipal(reading.values(
            any_of,
            none_of,
            read_value::request_principal,
        )),
        "request.auth.audiences" => {
            Condition::Audience(reading.values(any_of, none_of, read_value::text))
        }
        "request.auth.presenter" => {
            Condition::Presenter(reading.values(any_of, none_of, read_value::text))
        }
        key if key.starts_with("request.auth.claims[") => Condition::Claim {
            path: claim_of(key, &format!("{path}.key"), reading)?,
            values: reading.values(any_of, none_of, read_value::text),
        },
        key => {
            let name = header_of(key, &format!("{path}.key"), reading)?;
            let values = if name == HOST {
                reading.values(any_of, none_of, read_value::host_header)
            } else {
                reading.values(any_of, none_of, read_value::text)
            };
            Condition::RequestHeader { name, values }
        }
    };
    Some(condition)
}

/// The names in `request.auth.claims[a][b]`: a name may have dots and slashes, but no brackets.
fn claim_of(key: &str, path: &str, reading: &mut Reading<'_>) -> Option<Arc<[Arc<str>]>> {
    let inner = key
        .strip_prefix("request.auth.claims[")
        .and_then(|rest| rest.strip_suffix(']'));
    let names: Vec<&str> = inner.map_or(Vec::new(), |inner| inner.split("][").collect());
    let is_name = |name: &&str| !name.is_empty() && !name.contains(['[', ']']);
    if names.is_empty() || !names.iter().all(is_name) {
        let message = format!("'{key}' is not of the form request.auth.claims[a][b]");
        reading.fail(Code::BadValue, path, message);
        return None;
    }
    Some(names.into_iter().map(Arc::from).collect())
}

/// The name in `request.headers[name]`; any other key breaks the rule.
fn header_of(key: &str, path: &str, reading: &mut Reading<'_>) -> Option<HeaderName> {
    let name = key
        .strip_prefix("request.headers[")
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(name) = name {
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
        if parsed.is_none() {
            let message = format!("'{name}' is not the name of a header");
            reading.fail(Code::BadValue, path, message);
        }
        return parsed;
    }
    if key == "connection.sni" {
        let message = "connection.sni is not known to a waypoint, which sees no server name";
        reading.fail(Code::Unsupported, path, message);
    } else if key.starts_with("experimental.") {
        let message = format!("{key} is Envoy's own and not supported");
        reading.fail(Code::Unsupported, path, message);
    } else {
        let nearest = KEYS
            .into_iter()
            .map(|known| (strsim::jaro_winkler(key, known), known))
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .filter(|(likeness, _)| *likeness > 0.8)
            .map(|(_, known)| format!("did you mean {known}?"));
        let message = format!("unknown key '{key}'");
        reading.fail_with_hint(Code::BadValue, path, message, nearest);
    }
    None
}
