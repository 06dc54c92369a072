//! CORS of a VirtualService's rule (specs/policies.md 2.6, specs/gateway-api.md 1.4, "CORS").

use super::virtual_rules::Reading;
use super::virtual_traffic::duration_ms;
use crate::diagnostics::Code;
use crate::resources::virtual_service::CorsPolicy;
use crate::snapshot::{Cors, Names, OriginPattern, TextMatch};

/// What browsers take when they are told nothing, in seconds.
const MAX_AGE_DEFAULT_S: u32 = 5;

/// `corsPolicy`.
pub(super) fn read(written: &CorsPolicy, at: &str, reading: &mut Reading<'_>) -> Cors {
    let mut allow_origins = Vec::new();
    for (index, origin) in written.allow_origins.iter().flatten().enumerate() {
        let at = format!("{at}.allowOrigins[{index}]");
        match reading.text(origin, &at) {
            Some(TextMatch::Exact(text)) if *text == *"*" => allow_origins.push(OriginPattern::Any),
            // `{}` elsewhere means that there is one: here that would be every origin.
            Some(TextMatch::Present) => {
                let message = "an origin that says nothing allows none";
                let effect = "browsers refuse what only this item was to allow";
                reading.warn(Code::MissingField, &at, message, effect);
            }
            Some(text) => allow_origins.push(OriginPattern::Text(text)),
            None => {}
        }
    }
    for origin in written.allow_origin.iter().flatten() {
        allow_origins.push(match origin.as_str() {
            "*" => OriginPattern::Any,
            origin => OriginPattern::Text(TextMatch::Exact(origin.into())),
        });
    }
    let forwards_unmatched = match written.unmatched_preflights.as_deref() {
        Some("FORWARD") => true,
        Some("IGNORE") => false,
        None | Some("" | "UNSPECIFIED") => {
            let message =
                "unmatchedPreflights is not said, which is FORWARD at Istio and IGNORE here";
            let effect = "preflights of other origins are answered here, and allow nothing";
            let hint = "unmatchedPreflights: FORWARD sends them to the service, as any other request; IGNORE says what is done here";
            reading.tell(at, message, effect, hint);
            false
        }
        Some(other) => {
            let at = format!("{at}.unmatchedPreflights");
            let message = format!("unmatchedPreflights '{other}' is neither FORWARD nor IGNORE");
            let effect = "preflights of other origins are answered here, and allow nothing";
            reading.warn(Code::BadValue, &at, message, effect);
            false
        }
    };
    let max_age_ms = (written.max_age.as_deref())
        .and_then(|text| duration_ms(text, &format!("{at}.maxAge"), reading));
    Cors {
        allow_origins,
        forwards_unmatched,
        allow_credentials: written.allow_credentials.unwrap_or(false),
        allow_methods: names(
            &written.allow_methods,
            &format!("{at}.allowMethods"),
            reading,
        ),
        allow_headers: names(
            &written.allow_headers,
            &format!("{at}.allowHeaders"),
            reading,
        ),
        expose_headers: names(
            &written.expose_headers,
            &format!("{at}.exposeHeaders"),
            reading,
        ),
        max_age_s: max_age_ms.map_or(MAX_AGE_DEFAULT_S, |ms| {
            u32::try_from(ms / 1_000).unwrap_or(u32::MAX)
        }),
    }
}

fn names(written: &Option<Vec<String>>, at: &str, reading: &mut Reading<'_>) -> Names {
    let written = written.as_deref().unwrap_or_default();
    if written.iter().any(|name| name == "*") {
        return Names::Any;
    }
    for (index, name) in written.iter().enumerate() {
        if http::Method::from_bytes(name.as_bytes()).is_err() {
            let message = format!("'{name}' is not the name of a method or header");
            reading.fail(Code::BadValue, &format!("{at}[{index}]"), message);
        }
    }
    Names::Listed(written.join(", ").into())
}
