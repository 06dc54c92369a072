//! The Location of a redirect (specs/gateway-api.md 1.4, Redirect). Does not decide whether to.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use cairn_authz::jwt::without_params;
use cairn_config_schema::snapshot::{HttpMatch, Redirect, RedirectScheme};
use http::header::HeaderValue;

use crate::authority::host_without_port;
use crate::normalise::Target;
use crate::rewrite::change_path;

/// The Location for a request that came to `service_port` with this authority and target, without the
/// query parameters whose tokens are nobody else's. `None`: the redirect can not be made for this
/// match, or the result is not a header value.
pub fn location(
    redirect: &Redirect,
    matched: &HttpMatch,
    target: &Target<'_>,
    authority: &str,
    service_port: u16,
    removed_params: &[Arc<str>],
) -> Option<HeaderValue> {
    // Requests reach a waypoint in the clear, whatever x-forwarded-proto says.
    let scheme = redirect.scheme.unwrap_or(RedirectScheme::Http);
    let (scheme, well_known) = match scheme {
        RedirectScheme::Http => ("http", 80),
        RedirectScheme::Https => ("https", 443),
    };
    let port = match (redirect.port, redirect.scheme) {
        (Some(port), _) => port,
        (None, Some(_)) => well_known,
        (None, None) => service_port,
    };
    let host = redirect.hostname.as_deref();
    let host = host.unwrap_or_else(|| host_without_port(authority));
    let mut location = format!("{scheme}://{host}");
    if port != well_known {
        write!(location, ":{port}").ok()?;
    }
    match &redirect.path {
        Some(change) => location.push_str(&change_path(change, matched, &target.path)?),
        None => location.push_str(&target.path),
    }
    if let Some(query) = target.query {
        let query = Cow::Owned(format!("?{query}"));
        location.push_str(&without_params(query, removed_params));
    }
    HeaderValue::from_bytes(location.as_bytes()).ok()
}

#[cfg(test)]
mod tests;
