//! Rules of an AuthorizationPolicy: sources and operations (specs/istio-waypoint.md 4.8). Conditions
//! are in `policy_conditions`, the forms of values in `policy_values`.
//!
//! A part that can not be evaluated breaks its rule: a DENY rule then matches everything and an
//! ALLOW rule nothing, so that a mistake never lets anybody in.

use std::sync::Arc;

use super::Findings;
use super::policy_conditions;
use super::policy_values as read_value;
use super::trust_domains::TrustDomains;
use crate::diagnostics::{Code, Diagnostic};
use crate::resources::Object;
use crate::resources::istio::{self, AuthorizationPolicySpec};
use crate::snapshot::{Action, Operation, PathNormalization, PolicyRule, Source, Values};

/// What the whole mesh has in common and values are read by.
pub(super) struct Terms<'a> {
    /// For principals.
    pub trust_domains: TrustDomains<'a>,
    /// For paths.
    pub path_normalization: PathNormalization,
}

/// A rule being read: what it belongs to and what breaks it.
pub(super) struct Reading<'a> {
    /// The policy.
    pub object: &'a Object<AuthorizationPolicySpec>,
    /// Its action, which says what a broken rule does.
    pub action: Action,
    /// Whether the policy only reports.
    pub dry_run: bool,
    /// Where it applies, in words.
    pub scope: &'a str,
    /// What values are read by.
    pub terms: &'a Terms<'a>,
    /// The first thing that broke the rule.
    pub broken: Option<Arc<str>>,
    /// Where findings go.
    pub findings: &'a mut Findings,
}

/// Values as written, `None` when the field is absent.
type Written = Option<Vec<String>>;

impl Reading<'_> {
    /// Something that can not be evaluated: it breaks the rule.
    pub fn fail(&mut self, code: Code, path: &str, message: impl Into<String>) {
        self.fail_with_hint(code, path, message, None);
    }

    /// The same, saying what to do.
    pub fn fail_with_hint(
        &mut self,
        code: Code,
        path: &str,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        let message = message.into();
        self.broken.get_or_insert_with(|| message.as_str().into());
        let scope = self.scope;
        let effect = match (self.action, self.dry_run) {
            (_, true) => {
                format!("the dry run for {scope} reports a rule that can not be evaluated")
            }
            (Action::Allow, _) => format!("this rule allows nothing to {scope}"),
            (Action::Audit, _) => format!("this rule records everything for {scope}"),
            (Action::Deny | Action::Custom, _) => {
                format!("this rule denies every request and connection to {scope}")
            }
        };
        let mut finding = Diagnostic::error(code, message).with_effect(effect);
        finding.hint = hint;
        self.findings.push(self.object.mark(finding, path));
    }

    /// Something that works but can hardly be meant; `effect` says what it does.
    pub fn warn(&mut self, path: &str, message: impl Into<String>, effect: &str) {
        self.lint(Code::BadValue, path, message, effect);
    }

    /// The same with a code of its own, see docs/lints.md.
    pub fn lint(&mut self, code: Code, path: &str, message: impl Into<String>, effect: &str) {
        let finding = Diagnostic::warning(code, message).with_effect(effect);
        self.findings.push(self.object.mark(finding, path));
    }

    /// Reads a field and its `not` twin. `read` adds what one value means, or says what is wrong.
    pub fn values<T>(
        &mut self,
        (any_of, any_path): (&Written, String),
        (none_of, none_path): (&Written, String),
        read: impl Fn(&mut Reading<'_>, &str, &str, &mut Vec<T>) -> Result<(), String>,
    ) -> Values<T> {
        // An empty list in place of values would be "absent" to Istio, so that a template that
        // rendered nobody would let everybody in.
        if any_of.as_ref().is_some_and(Vec::is_empty) {
            self.fail(
                Code::MissingField,
                &any_path,
                "an empty list matches nothing",
            );
        }
        let mut list = |written: &Written, path: &str| {
            let mut values = Vec::new();
            for (index, text) in written.iter().flatten().enumerate() {
                let path = format!("{path}[{index}]");
                let result = match text.as_str() {
                    "" => Err("an empty value matches nothing".to_owned()),
                    text => read(self, text, &path, &mut values),
                };
                if let Err(wrong) = result {
                    self.fail(Code::BadValue, &path, wrong);
                }
            }
            values
        };
        Values {
            any_of: list(any_of, &any_path),
            none_of: list(none_of, &none_path),
        }
    }
}

/// Reads one rule. A broken one keeps nothing but the reason.
pub(super) fn read(written: &istio::Rule, path: &str, reading: &mut Reading<'_>) -> PolicyRule {
    let from = sources(written.from.as_deref(), path, reading);
    let to = operations(written.to.as_deref(), path, reading);
    let when = (written.when.iter().flatten().enumerate())
        .filter_map(|(index, when)| {
            policy_conditions::read(when, &format!("{path}.when[{index}]"), reading)
        })
        .collect();
    match reading.broken.take() {
        None => PolicyRule {
            from,
            to,
            when,
            broken: None,
        },
        broken => PolicyRule {
            broken,
            ..PolicyRule::default()
        },
    }
}

fn sources(written: Option<&[istio::From]>, path: &str, reading: &mut Reading<'_>) -> Vec<Source> {
    let path = format!("{path}.from");
    if written.is_some_and(<[_]>::is_empty) {
        reading.fail(
            Code::MissingField,
            &path,
            "an empty list of sources matches nothing",
        );
    }
    let mut sources = Vec::new();
    for (index, from) in written.unwrap_or_default().iter().enumerate() {
        let path = format!("{path}[{index}].source");
        match &from.source {
            Some(source) if *source != istio::Source::default() => {
                sources.push(read_source(source, &path, reading));
            }
            _ => reading.fail(Code::MissingField, &path, "a source must say something"),
        }
    }
    sources
}

/// A field and its `not` twin of a struct, with their paths.
macro_rules! twin {
    ($of:ident, $path:ident, $any:ident $any_name:literal, $none:ident $none_name:literal) => {
        (
            (&$of.$any, format!(concat!("{}.", $any_name), $path)),
            (&$of.$none, format!(concat!("{}.", $none_name), $path)),
        )
    };
}

fn read_source(written: &istio::Source, path: &str, reading: &mut Reading<'_>) -> Source {
    let (any, none) = twin!(written, path, principals "principals", not_principals "notPrincipals");
    let principals = reading.values(any, none, read_value::principal);
    let (any, none) = twin!(written, path, namespaces "namespaces", not_namespaces "notNamespaces");
    let namespaces = reading.values(any, none, read_value::namespace);
    let (any, none) = twin!(
        written, path,
        service_accounts "serviceAccounts",
        not_service_accounts "notServiceAccounts"
    );
    let service_accounts = reading.values(any, none, read_value::service_account);
    let (any, none) = twin!(
        written, path,
        trust_domains "trustDomains",
        not_trust_domains "notTrustDomains"
    );
    let trust_domains = reading.values(any, none, read_value::text);
    let (any, none) = twin!(
        written, path,
        request_principals "requestPrincipals",
        not_request_principals "notRequestPrincipals"
    );
    let request_principals = reading.values(any, none, read_value::request_principal);
    let (any, none) = twin!(written, path, ip_blocks "ipBlocks", not_ip_blocks "notIpBlocks");
    let ip_blocks = reading.values(any, none, read_value::ip_block);
    let (any, none) = twin!(
        written, path,
        remote_ip_blocks "remoteIpBlocks",
        not_remote_ip_blocks "notRemoteIpBlocks"
    );
    let remote_ip_blocks = reading.values(any, none, read_value::ip_block);
    Source {
        principals,
        namespaces,
        service_accounts,
        trust_domains,
        request_principals,
        ip_blocks,
        remote_ip_blocks,
    }
}

fn operations(
    written: Option<&[istio::To]>,
    path: &str,
    reading: &mut Reading<'_>,
) -> Vec<Operation> {
    let path = format!("{path}.to");
    if written.is_some_and(<[_]>::is_empty) {
        reading.fail(
            Code::MissingField,
            &path,
            "an empty list of operations matches nothing",
        );
    }
    let mut operations = Vec::new();
    for (index, to) in written.unwrap_or_default().iter().enumerate() {
        let path = format!("{path}[{index}].operation");
        match &to.operation {
            Some(operation) if *operation != istio::Operation::default() => {
                operations.push(read_operation(operation, &path, reading));
            }
            _ => reading.fail(Code::MissingField, &path, "an operation must say something"),
        }
    }
    operations
}

fn read_operation(written: &istio::Operation, path: &str, reading: &mut Reading<'_>) -> Operation {
    let (any, none) = twin!(written, path, hosts "hosts", not_hosts "notHosts");
    let hosts = reading.values(any, none, read_value::host);
    let (any, none) = twin!(written, path, methods "methods", not_methods "notMethods");
    let methods = reading.values(any, none, read_value::method);
    let (any, none) = twin!(written, path, paths "paths", not_paths "notPaths");
    let paths = reading.values(any, none, read_value::path);
    let (any, none) = twin!(written, path, ports "ports", not_ports "notPorts");
    let ports = reading.values(any, none, read_value::port);
    Operation {
        hosts,
        methods,
        paths,
        ports,
    }
}

/// Whether a policy has fields that only HTTP has, so that ztunnel can not enforce it as written.
pub(super) fn uses_http(spec: &AuthorizationPolicySpec) -> bool {
    spec.rules.iter().flatten().flatten().any(|rule| {
        let from = rule.from.iter().flatten().flat_map(|from| &from.source);
        let to = rule.to.iter().flatten().flat_map(|to| &to.operation);
        let mut keys = rule.when.iter().flatten().map(|when| when.key.as_str());
        from.into_iter()
            .any(|s| s.request_principals.is_some() || s.not_request_principals.is_some())
            || to.into_iter().any(|o| {
                [
                    &o.hosts,
                    &o.not_hosts,
                    &o.methods,
                    &o.not_methods,
                    &o.paths,
                    &o.not_paths,
                ]
                .into_iter()
                .any(Option::is_some)
            })
            || keys.any(|key| key.starts_with("request."))
    })
}
