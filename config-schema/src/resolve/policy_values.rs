//! The forms that values of an AuthorizationPolicy have, field by field (specs/istio-waypoint.md 4.8).
//! Each function adds what one value means, or says what is wrong with it. None is empty here.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::paths::{canonical, never_seen};
use super::policy_rules::Reading;
use crate::diagnostics::Code;
use crate::snapshot::{PathPattern, PathTemplate, RequestPrincipal, StringMatch};

type Result = std::result::Result<(), String>;

/// `abc`, `abc*`, `*abc` or `*`.
pub(super) fn text(
    _: &mut Reading<'_>,
    text: &str,
    _: &str,
    values: &mut Vec<StringMatch>,
) -> Result {
    values.push(StringMatch::parse(text));
    Ok(())
}

/// A principal without `spiffe://`, for the mesh's trust domain and every alias.
pub(super) fn principal(
    reading: &mut Reading<'_>,
    text: &str,
    path: &str,
    values: &mut Vec<StringMatch>,
) -> Result {
    if let Some(bare) = text.strip_prefix("spiffe://") {
        return Err(format!("a principal is written without spiffe://: {bare}"));
    }
    match reading.terms.trust_domains.expand(text) {
        Some(principals) => {
            values.extend(principals.iter().map(|text| StringMatch::parse(text)));
        }
        None => {
            let message =
                format!("the trust domain of '{text}' is neither the mesh's nor an alias");
            let effect = "no peer that is let in has such a principal, so it matches nobody";
            reading.warn(path, message, effect);
            values.push(StringMatch::parse(text));
        }
    }
    Ok(())
}

/// `iss/sub` of a token.
pub(super) fn request_principal(
    reading: &mut Reading<'_>,
    text: &str,
    path: &str,
    values: &mut Vec<RequestPrincipal>,
) -> Result {
    let principal = RequestPrincipal::parse(text);
    let never = match (&principal.issuer, &principal.subject) {
        (_, StringMatch::Exact(subject)) if subject.is_empty() => {
            Some("it has no subject; every subject is written ISSUER/*".to_owned())
        }
        // `https://issuer*`: the last slash is that of the scheme.
        (StringMatch::Exact(issuer), _) if issuer.ends_with(":/") => Some(format!(
            "what stands before the last '/' is the issuer, and none is '{issuer}'"
        )),
        _ => None,
    };
    if let Some(why) = never {
        reading.warn(path, format!("'{text}': {why}"), "it matches nobody");
    }
    values.push(principal);
    Ok(())
}

/// A namespace, with stars anywhere.
pub(super) fn namespace(
    _: &mut Reading<'_>,
    text: &str,
    _: &str,
    values: &mut Vec<StringMatch>,
) -> Result {
    let inner = text.strip_prefix('*').unwrap_or(text);
    let both_ends = inner.len() < text.len() && inner.ends_with('*');
    let inner = inner.strip_suffix('*').unwrap_or(inner);
    values.push(if inner.contains('*') || both_ends {
        StringMatch::Glob(text.into())
    } else {
        StringMatch::parse(text)
    });
    Ok(())
}

/// `account`, in the policy's namespace, or `namespace/account`; no wildcards.
pub(super) fn service_account(
    reading: &mut Reading<'_>,
    text: &str,
    _: &str,
    values: &mut Vec<StringMatch>,
) -> Result {
    let own_namespace = &*reading.object.origin.key.namespace;
    let (namespace, account) = text.split_once('/').unwrap_or((own_namespace, text));
    if text.contains('*') || namespace.is_empty() || account.is_empty() || account.contains('/') {
        return Err(format!(
            "'{text}' is neither a service account nor namespace/account; stars are not for it"
        ));
    }
    let exact: Arc<str> = format!("{namespace}/{account}").into();
    values.push(StringMatch::Exact(exact));
    Ok(())
}

/// One address or a CIDR block.
pub(super) fn ip_block(
    _: &mut Reading<'_>,
    text: &str,
    _: &str,
    values: &mut Vec<IpNet>,
) -> Result {
    let block = match text.parse::<IpNet>() {
        Ok(block) => block.trunc(),
        Err(_) => text
            .parse::<IpAddr>()
            .map(IpNet::from)
            .map_err(|_| format!("'{text}' is neither an IP address nor a CIDR block"))?,
    };
    values.push(block);
    Ok(())
}

/// A port as a string.
pub(super) fn port(_: &mut Reading<'_>, text: &str, _: &str, values: &mut Vec<u16>) -> Result {
    let digits = text.bytes().all(|c| c.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => {
            values.push(port);
            Ok(())
        }
        _ => Err(format!("'{text}' is not a port between 1 and 65535")),
    }
}

/// An authority, compared without regard to case.
pub(super) fn host(
    _: &mut Reading<'_>,
    text: &str,
    _: &str,
    values: &mut Vec<StringMatch>,
) -> Result {
    let text = text.to_ascii_lowercase();
    values.push(StringMatch::parse(&without_last_dot(&text)));
    Ok(())
}

/// A value of the header Host, compared as it is sent but for the dot at its end.
pub(super) fn host_header(
    _: &mut Reading<'_>,
    text: &str,
    _: &str,
    values: &mut Vec<StringMatch>,
) -> Result {
    values.push(StringMatch::parse(&without_last_dot(text)));
    Ok(())
}

/// Requests reach policy and routes without the dot at the end of their host, so a value with one
/// (`foo.example.`, `*.example.:8080`) must not have it either: it would match nothing.
pub(super) fn without_last_dot(text: &str) -> Cow<'_, str> {
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    match (host.strip_suffix('.'), port) {
        // `*.` is no name with a dot at its end.
        (None | Some("" | "*"), _) => Cow::Borrowed(text),
        (Some(host), None) => Cow::Borrowed(host),
        (Some(host), Some(port)) => Cow::Owned(format!("{host}:{port}")),
    }
}

/// A method, case-sensitive.
pub(super) fn method(
    reading: &mut Reading<'_>,
    text: &str,
    path: &str,
    values: &mut Vec<StringMatch>,
) -> Result {
    if text.bytes().any(|c| c.is_ascii_lowercase()) {
        let message = format!("methods are case-sensitive: '{text}' is not what clients send");
        let effect = format!("it does not match {}", text.to_ascii_uppercase());
        reading.lint(Code::LowerCaseMethod, path, message, &effect);
    }
    values.push(StringMatch::parse(text));
    Ok(())
}

/// A path in one of the string forms, or a template.
pub(super) fn path(
    reading: &mut Reading<'_>,
    text: &str,
    path: &str,
    values: &mut Vec<PathPattern>,
) -> Result {
    let mode = reading.terms.path_normalization;
    let canonical = canonical(text, mode);
    if let Some(why) = never_seen(&canonical, mode) {
        reading.warn(path, format!("'{text}': {why}"), "it matches nothing");
    }
    if PathTemplate::is_template(text) {
        let template = PathTemplate::parse(&canonical);
        let template = template.map_err(|error| format!("'{text}': {error}"))?;
        values.push(PathPattern::Template(template));
        return Ok(());
    }
    if text.contains(['{', '}']) {
        return Err(format!(
            "'{text}': braces are for the operators {{*}} and {{**}} only"
        ));
    }
    if !text.starts_with(['/', '*']) {
        let message = format!("'{text}' does not begin with '/', as every path does");
        reading.warn(path, message, "it matches nothing");
    }
    values.push(PathPattern::Text(StringMatch::parse(&canonical)));
    Ok(())
}
