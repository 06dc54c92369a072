//! External authorization services of the mesh configuration (specs/istio-waypoint.md 4.8, CUSTOM).
//! One that can not be asked as written is not asked at all: what its policies match is denied.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};

use super::Findings;
use crate::diagnostics::{Code, Diagnostic};
use crate::duration::go_ms;
use crate::limits::{EXT_AUTHZ_BODY_BYTES_MAX, EXT_AUTHZ_TIMEOUT_DEFAULT_MS};
use crate::origin::ObjectKey;

use crate::resources::Object;
use crate::resources::istio::{
    ExtAuthzGrpcSpec, ExtAuthzHttpSpec, ExtensionProviderKind, MeshConfigSpec, RequestBodySpec,
};
use crate::snapshot::{
    BodyInCheck, CheckProtocol, ClusterKey, ExternalProvider, FRAMING_HEADERS, GrpcCheck,
    HeaderNames, HttpCheck, Provider, Service, StringMatch,
};

/// Status of requests for which there was no answer, when nothing is said.
const STATUS_ON_ERROR_DEFAULT: u16 = 403;

/// Every provider that a policy may name.
#[derive(Debug, Default)]
pub(super) struct Providers(BTreeMap<String, Provider>);

impl Providers {
    /// Whom a policy asks that names this one.
    pub fn named(&self, name: &str) -> Provider {
        let unknown = || format!("there is no extension provider '{name}'");
        let known = self.0.get(name).cloned();
        known.unwrap_or_else(|| Provider::Unusable(unknown().into()))
    }

    /// Names, for a hint.
    pub fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// Reads the providers of the mesh configuration in force.
pub(super) fn resolve(
    config: Option<&Object<MeshConfigSpec>>,
    services: &BTreeMap<ObjectKey, Service>,
    findings: &mut Findings,
) -> Providers {
    let mut providers = BTreeMap::new();
    let Some(config) = config else {
        return Providers(providers);
    };
    for (index, written) in config.spec.extension_providers.iter().enumerate() {
        let mut reading = Reading {
            config,
            services,
            name: &written.name,
            path: format!("data.mesh.extensionProviders[{index}]"),
            broken: None,
            findings: &mut *findings,
        };
        let read = match &written.kind {
            ExtensionProviderKind::Http(spec) => reading.http(spec),
            ExtensionProviderKind::Grpc(spec) => reading.grpc(spec),
            ExtensionProviderKind::OpenTelemetry(_)
            | ExtensionProviderKind::FileLog(_)
            | ExtensionProviderKind::OtelLog(_)
            | ExtensionProviderKind::HttpEntryLog(_)
            | ExtensionProviderKind::TcpEntryLog(_)
            | ExtensionProviderKind::Prometheus
            | ExtensionProviderKind::Other(_) => {
                let reason = format!(
                    "provider '{}' is `{}`, which can not be asked",
                    written.name,
                    written.kind.field()
                );
                reading.broken = Some(reason.into());
                None
            }
            ExtensionProviderKind::Broken(reason) => {
                let reason = format!("provider '{}' is broken: {reason}", written.name);
                reading.broken = Some(reason.into());
                None
            }
        };
        if providers.contains_key(&written.name) {
            reading.fail(Code::Conflict, "name", "another provider has the name");
        }
        let provider = match (reading.broken, read) {
            (None, Some(provider)) => Provider::Ask(Arc::new(provider)),
            (reason, _) => Provider::Unusable(reason.unwrap_or_else(|| "it is broken".into())),
        };
        providers.insert(written.name.clone(), provider);
    }
    Providers(providers)
}

/// A provider being read.
struct Reading<'a> {
    config: &'a Object<MeshConfigSpec>,
    services: &'a BTreeMap<ObjectKey, Service>,
    name: &'a str,
    path: String,
    /// The first thing that makes it unusable.
    broken: Option<Arc<str>>,
    findings: &'a mut Findings,
}

/// What both kinds of provider have.
struct Common<'a> {
    service: &'a str,
    port: u32,
    timeout: Option<&'a str>,
    fail_open: Option<bool>,
    clear_route_cache: Option<bool>,
    status_on_error: Option<&'a str>,
    body: Option<&'a RequestBodySpec>,
}

impl Reading<'_> {
    fn http(&mut self, spec: &ExtAuthzHttpSpec) -> Option<ExternalProvider> {
        let at = "envoyExtAuthzHttp";
        let common = Common {
            service: &spec.service,
            port: spec.port,
            timeout: spec.timeout.as_deref(),
            fail_open: spec.fail_open,
            clear_route_cache: spec.clear_route_cache,
            status_on_error: spec.status_on_error.as_deref(),
            body: spec.include_request_body_in_check.as_ref(),
        };
        let mut included = spec.include_request_headers_in_check.clone();
        let older = spec.include_headers_in_check.iter().flatten().cloned();
        included.get_or_insert_default().extend(older);
        let upstream = &spec.headers_to_upstream_on_allow;
        let names = |written: &Option<Vec<String>>| header_names(written.iter().flatten());
        let check = HttpCheck {
            path_prefix: self.path_prefix(at, spec.path_prefix.as_deref().unwrap_or_default()),
            request_headers: names(&included),
            additional_headers: self.additional_headers(at, spec),
            to_upstream_on_allow: names(upstream),
            to_client_on_allow: names(&spec.headers_to_downstream_on_allow),
            // An empty list is no list in protobuf, and then all of them are meant.
            to_client_on_deny: (spec.headers_to_downstream_on_deny.as_ref())
                .filter(|list| !list.is_empty())
                .map(header_names),
        };
        for (index, name) in upstream.iter().flatten().enumerate() {
            if is_reserved(&name.to_ascii_lowercase()) {
                let field = format!("{at}.headersToUpstreamOnAllow[{index}]");
                let message = format!("header {name} is not a provider's to set");
                self.fail(Code::Unsupported, &field, &message);
            }
        }
        self.common(at, &common, CheckProtocol::Http(check))
    }

    fn grpc(&mut self, spec: &ExtAuthzGrpcSpec) -> Option<ExternalProvider> {
        let common = Common {
            service: &spec.service,
            port: spec.port,
            timeout: spec.timeout.as_deref(),
            fail_open: spec.fail_open,
            clear_route_cache: spec.clear_route_cache,
            status_on_error: spec.status_on_error.as_deref(),
            body: spec.include_request_body_in_check.as_ref(),
        };
        let protocol = CheckProtocol::Grpc(GrpcCheck::default());
        self.common("envoyExtAuthzGrpc", &common, protocol)
    }

    fn common(
        &mut self,
        at: &str,
        written: &Common<'_>,
        protocol: CheckProtocol,
    ) -> Option<ExternalProvider> {
        let timeout_ms = match written.timeout {
            None => EXT_AUTHZ_TIMEOUT_DEFAULT_MS,
            Some(text) => go_ms(text).filter(|ms| *ms > 0).unwrap_or_else(|| {
                let message = format!("`{text}` is no duration of a millisecond or more");
                self.fail(Code::BadValue, &format!("{at}.timeout"), &message);
                EXT_AUTHZ_TIMEOUT_DEFAULT_MS
            }),
        };
        let status_on_error = match written.status_on_error {
            None | Some("") => STATUS_ON_ERROR_DEFAULT,
            Some(text) => {
                let status = text.parse().ok().filter(|s| (400..=599).contains(s));
                status.unwrap_or_else(|| {
                    let message = format!("`{text}` is no status of an error");
                    self.fail(Code::BadValue, &format!("{at}.statusOnError"), &message);
                    STATUS_ON_ERROR_DEFAULT
                })
            }
        };
        let cluster = self.cluster(at, written.service, written.port)?;
        Some(ExternalProvider {
            name: self.name.into(),
            cluster,
            timeout_ms,
            fail_open: written.fail_open.unwrap_or(false),
            status_on_error,
            clear_route_cache: written.clear_route_cache.unwrap_or(false),
            body: self.body(at, written.body),
            protocol,
        })
    }

    fn cluster(&mut self, at: &str, service: &str, port: u32) -> Option<ClusterKey> {
        match find_cluster(self.services, service, port) {
            Ok(cluster) => Some(cluster),
            Err(missing) => {
                let field = format!("{at}.{}", missing.field);
                self.fail_hint(
                    Code::BackendNotFound,
                    &field,
                    &missing.message,
                    &missing.hint,
                );
                None
            }
        }
    }

    fn path_prefix(&mut self, at: &str, prefix: &str) -> Arc<str> {
        let is_path = prefix.starts_with('/')
            && prefix
                .bytes()
                .all(|c| c.is_ascii_graphic() && !b"?#".contains(&c));
        if !prefix.is_empty() && !is_path {
            let message = format!("'{prefix}' is no path");
            self.fail(Code::BadValue, &format!("{at}.pathPrefix"), &message);
        }
        prefix.trim_end_matches('/').into()
    }

    fn additional_headers(
        &mut self,
        at: &str,
        spec: &ExtAuthzHttpSpec,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers = Vec::new();
        let written = spec.include_additional_headers_in_check.iter().flatten();
        for (name, value) in written {
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .ok()
                .filter(|name| !FRAMING_HEADERS.contains(&name.as_str()));
            match (parsed, HeaderValue::from_str(value)) {
                (Some(name), Ok(value)) => headers.push((name, value)),
                _ => {
                    let field = format!("{at}.includeAdditionalHeadersInCheck");
                    let message = format!("'{name}' with its value is no header to be sent");
                    self.fail(Code::BadValue, &field, &message);
                }
            }
        }
        headers
    }

    fn body(&mut self, at: &str, written: Option<&RequestBodySpec>) -> Option<BodyInCheck> {
        let written = written?;
        let field = format!("{at}.includeRequestBodyInCheck.maxRequestBytes");
        let wanted = usize::try_from(written.max_request_bytes).unwrap_or(usize::MAX);
        if wanted == 0 {
            self.fail(Code::BadValue, &field, "maxRequestBytes is missing or zero");
        }
        if wanted > EXT_AUTHZ_BODY_BYTES_MAX {
            let message = format!("maxRequestBytes is at most {EXT_AUTHZ_BODY_BYTES_MAX} here");
            let effect = match written.allow_partial_message {
                true => "the provider gets no more of a body",
                false => "a request with a larger body is answered 413",
            };
            let finding = Diagnostic::warning(Code::LimitExceeded, message).with_effect(effect);
            let path = format!("{}.{field}", self.path);
            self.findings.push(self.config.mark(finding, &path));
        }
        Some(BodyInCheck {
            max_bytes: wanted.min(EXT_AUTHZ_BODY_BYTES_MAX),
            allow_partial: written.allow_partial_message,
            pack_as_bytes: written.pack_as_bytes,
        })
    }

    fn fail(&mut self, code: Code, field: &str, message: &str) {
        self.fail_hint(code, field, message, "");
    }

    fn fail_hint(&mut self, code: Code, field: &str, message: &str, hint: &str) {
        let reason = format!("provider '{}' is broken: {message}", self.name);
        self.broken.get_or_insert_with(|| reason.into());
        let effect = format!(
            "what CUSTOM policies of provider '{}' match is denied",
            self.name
        );
        // The policies that name it are in error; a provider that nobody names harms nobody.
        let mut finding = Diagnostic::warning(code, message).with_effect(effect);
        if !hint.is_empty() {
            finding = finding.with_hint(hint);
        }
        let path = format!("{}.{field}", self.path);
        self.findings.push(self.config.mark(finding, &path));
    }
}

/// Why a provider's service is not to be found.
pub(super) struct Missing {
    /// The field at fault.
    pub field: &'static str,
    pub message: String,
    pub hint: String,
}

/// Where a provider is: `[namespace/]hostname`, a Service's whole name, and one of its ports.
pub(super) fn find_cluster(
    services: &BTreeMap<ObjectKey, Service>,
    service: &str,
    port: u32,
) -> Result<ClusterKey, Missing> {
    let (namespace, hostname) = match service.split_once('/') {
        Some((namespace, hostname)) => (Some(namespace), hostname),
        None => (None, service),
    };
    let mut found = (services.values())
        .filter(|s| *s.hostname == *hostname)
        .filter(|s| namespace.is_none_or(|n| n == &*s.key.namespace));
    let Some(found) = found.next() else {
        return Err(Missing {
            field: "service",
            message: match service {
                "" => "the provider has no `service`".to_owned(),
                service => format!("no Service has the name '{service}'"),
            },
            hint: "write the whole name of a Service: name.namespace.svc.cluster.local".to_owned(),
        });
    };
    let declared: Vec<u16> = found.ports.iter().map(|p| p.number).collect();
    match declared.iter().find(|number| u32::from(**number) == port) {
        Some(number) => Ok(ClusterKey::new(found.key.clone(), *number)),
        None => {
            let has: Vec<String> = declared.iter().map(u16::to_string).collect();
            Err(Missing {
                field: "port",
                message: format!("Service {} has no port {port}", found.key),
                hint: format!("it has: {}", has.join(", ")),
            })
        }
    }
}

/// Patterns of header names, compared in lower case.
pub(super) fn header_names<S: AsRef<str>>(written: impl IntoIterator<Item = S>) -> HeaderNames {
    let lower = |name: S| StringMatch::parse(&name.as_ref().to_ascii_lowercase());
    HeaderNames(written.into_iter().map(lower).collect())
}

/// Whether a header belongs to the message, the connection or the waypoint: nobody who is asked about
/// a request may replace it.
fn is_reserved(name: &str) -> bool {
    FRAMING_HEADERS.contains(&name)
        || name.starts_with(':')
        || name.starts_with("x-envoy-")
        || matches!(name, "host" | "x-forwarded-client-cert")
}
