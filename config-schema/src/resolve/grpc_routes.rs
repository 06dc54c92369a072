//! GRPCRoutes as HTTPRoutes: a gRPC method is a path, `/<service>/<method>`, and everything else is the
//! same under the same names (specs/gateway-api.md 1.4, "GRPCRoute precedence"). Attaches nothing.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::route_rules::Reading;
use crate::diagnostics::Code;
use crate::resources::Object;
use crate::resources::gateway_api::{
    GrpcRouteRules, GrpcRouteRulesMatchesMethod as WrittenMethod,
    GrpcRouteRulesMatchesMethodType as MethodType, GrpcRouteSpec, HttpRouteParentRefs,
    HttpRouteRules, HttpRouteRulesMatches, HttpRouteSpec,
};
use crate::snapshot::{HttpMatch, PathMatch, Pattern};

/// Any service or method.
const ANY_NAME: &str = "[^/]+";
/// Any path; goes after every other expression.
const ANY_PATH: &str = "(?s:.*)";

/// The same object as an HTTPRoute whose matches lack the methods; [`set_paths`] adds them.
///
/// # Errors
/// When something of it has no counterpart, in words. The types say that there is nothing.
pub(super) fn as_http(
    object: &Object<GrpcRouteSpec>,
) -> Result<Object<HttpRouteSpec>, serde_json::Error> {
    let spec = &object.spec;
    Ok(Object {
        origin: object.origin.clone(),
        meta: object.meta.clone(),
        place: object.place.clone(),
        spec: HttpRouteSpec {
            hostnames: spec.hostnames.clone(),
            parent_refs: Some(http_parents(spec)?),
            rules: (spec.rules.as_ref())
                .map(|rules| rules.iter().map(http_rule).collect())
                .transpose()?,
            use_default_gateways: same(&spec.use_default_gateways)?,
        },
    })
}

/// Its parentRefs.
///
/// # Errors
/// As [`as_http`].
pub(crate) fn http_parents(
    spec: &GrpcRouteSpec,
) -> Result<Vec<HttpRouteParentRefs>, serde_json::Error> {
    same(&spec.parent_refs.as_deref().unwrap_or_default())
}

fn http_rule(rule: &GrpcRouteRules) -> Result<HttpRouteRules, serde_json::Error> {
    let matches = rule.matches.as_ref().map(|matches| {
        let one = |written: &crate::resources::gateway_api::GrpcRouteRulesMatches| {
            Ok(HttpRouteRulesMatches {
                headers: same(&written.headers)?,
                ..HttpRouteRulesMatches::default()
            })
        };
        matches.iter().map(one).collect()
    });
    Ok(HttpRouteRules {
        name: rule.name.clone(),
        matches: matches.transpose()?,
        filters: same(&rule.filters)?,
        backend_refs: same(&rule.backend_refs)?,
        session_persistence: same(&rule.session_persistence)?,
        ..HttpRouteRules::default()
    })
}

/// What has the same fields in both kinds, though it is of different types.
fn same<T: DeserializeOwned>(written: &impl Serialize) -> Result<T, serde_json::Error> {
    serde_json::from_value(serde_json::to_value(written)?)
}

/// Puts the methods of a GRPCRoute's rule into its matches.
pub(super) fn set_paths(
    written: &GrpcRouteRules,
    matches: &mut [HttpMatch],
    reading: &mut Reading<'_>,
) {
    let written = written.matches.as_deref().unwrap_or_default();
    for (index, found) in matches.iter_mut().enumerate() {
        let method = written.get(index).and_then(|m| m.method.as_ref());
        let at = format!("{}.matches[{index}].method", reading.path);
        // What can not be understood matches as widely as could have been meant (`route_matches`).
        let path = method.and_then(|method| path(method, &at, reading));
        if let Some(path) = path.or_else(any_path) {
            found.path = path;
        }
    }
}

fn any_path() -> Option<PathMatch> {
    Pattern::compile(ANY_PATH).ok().map(PathMatch::Regex)
}

/// The path of a method. `None`: any.
fn path(written: &WrittenMethod, at: &str, reading: &mut Reading<'_>) -> Option<PathMatch> {
    let named = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let (service, method) = (named(&written.service), named(&written.method));
    if service.is_none() && method.is_none() {
        reading.fail(Code::MissingField, at, "neither a service nor a method");
        return None;
    }
    match written.r#type {
        Some(MethodType::RegularExpression) => {
            for (name, field) in [(&service, "service"), (&method, "method")] {
                let source = name.as_deref().unwrap_or(ANY_NAME);
                if let Err(error) = Pattern::compile(source) {
                    let message =
                        format!("the regular expression '{source}' is not valid: {error}");
                    reading.fail(Code::BadValue, &format!("{at}.{field}"), message);
                    return None;
                }
            }
            expression(service.as_deref(), method.as_deref())
        }
        Some(MethodType::Exact) | None => {
            for (name, field) in [(&service, "service"), (&method, "method")] {
                if let Some(name) = name.as_deref().filter(|name| !is_name(name)) {
                    let message = format!("'{name}' is not the name of a {field}");
                    reading.fail(Code::BadValue, &format!("{at}.{field}"), message);
                    return None;
                }
            }
            match (&service, &method) {
                (Some(service), Some(method)) => {
                    Some(PathMatch::Exact(format!("/{service}/{method}").into()))
                }
                (Some(service), None) => Some(PathMatch::Prefix(format!("/{service}").into())),
                // Names have no character with a meaning in expressions but the dot of a package,
                // which no method has.
                (None, method) => expression(None, method.as_deref()),
            }
        }
    }
}

fn expression(service: Option<&str>, method: Option<&str>) -> Option<PathMatch> {
    let (wanted, called) = (service.unwrap_or(ANY_NAME), method.unwrap_or(ANY_NAME));
    let pattern = Pattern::compile(&format!("/(?:{wanted})/(?:{called})")).ok()?;
    let length = |name: Option<&str>| name.map_or(0, |name| name.chars().count());
    Some(PathMatch::Regex(
        pattern.ranked(length(service), length(method)),
    ))
}

/// Whether a text can be the name of a gRPC service or method.
fn is_name(text: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    let word = |w: &str| !w.is_empty() && w.bytes().all(legal);
    text.split('.').all(word)
}
