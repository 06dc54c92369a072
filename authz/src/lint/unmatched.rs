//! Rules of AuthorizationPolicies that can not match what they are meant for: hosts without their
//! port, ports of pods, tokens that nobody reads.

use cairn_config_schema::diagnostics::{Code, Diagnostic, Severity};
use cairn_config_schema::resources::Object;
use cairn_config_schema::resources::istio::{AuthorizationPolicySpec, Operation, Rule, Source};
use cairn_config_schema::snapshot::{AppProtocol, Service};

use super::ground::{Enforced, Ground};

type Written = Object<AuthorizationPolicySpec>;

pub(super) fn lint(ground: &Ground<'_>, findings: &mut Vec<Diagnostic>) {
    for enforced in &ground.enforced {
        let policy = enforced.policy;
        let object = ground
            .resources
            .authorization_policies
            .get(&policy.origin.key);
        let object = object.and_then(|loaded| loaded.object());
        let Some(object) = object.filter(|_| policy.broken.is_none()) else {
            continue;
        };
        let mut lint = Lint {
            object,
            enforced,
            ground,
            denies: object.spec.action.as_deref() == Some("DENY"),
            findings: &mut *findings,
        };
        for (index, rule) in object.spec.rules.iter().flatten().enumerate() {
            if let Some(rule) = rule {
                lint.rule(rule, &format!("spec.rules[{index}]"));
            }
        }
    }
}

struct Lint<'a> {
    object: &'a Written,
    enforced: &'a Enforced<'a>,
    ground: &'a Ground<'a>,
    /// A DENY policy: what it misses passes.
    denies: bool,
    findings: &'a mut Vec<Diagnostic>,
}

impl Lint<'_> {
    fn rule(&mut self, rule: &Rule, path: &str) {
        for (index, to) in rule.to.iter().flatten().enumerate() {
            let path = format!("{path}.to[{index}].operation");
            if let Some(operation) = &to.operation {
                self.hosts(operation, &path);
                self.ports(operation.ports.as_deref(), &format!("{path}.ports"));
            }
        }
        for (index, when) in rule.when.iter().flatten().enumerate() {
            let path = format!("{path}.when[{index}]");
            if when.key == "destination.port" {
                self.ports(when.values.as_deref(), &format!("{path}.values"));
            }
            if when.key.starts_with("request.auth.") {
                self.token(when.values.is_some(), &format!("{path}.key"));
            }
        }
        for (index, from) in rule.from.iter().flatten().enumerate() {
            if let Some(source) = &from.source {
                self.request_principals(source, &format!("{path}.from[{index}].source"));
            }
        }
    }

    /// What it means that a rule never matches.
    fn never(&self) -> &'static str {
        match self.denies {
            true => "the rule denies nothing by it",
            false => "the rule allows nothing by it",
        }
    }

    fn tell(&mut self, finding: Diagnostic, path: &str) {
        self.findings.push(self.object.mark(finding, path));
    }

    /// `hosts` are compared with what the client sends, port and all (specs/istio-waypoint.md 4.8).
    fn hosts(&mut self, operation: &Operation, path: &str) {
        let (hosts, not_hosts) = (&operation.hosts, &operation.not_hosts);
        // What a DENY on a host misses passes; so does what an ALLOW with an exception misses.
        let (field, values) = match self.denies {
            true => ("hosts", hosts),
            false => ("notHosts", not_hosts),
        };
        let path_of = |field: &str, index: usize| format!("{path}.{field}[{index}]");
        let values = values.as_deref().unwrap_or_default();
        for (index, host) in values.iter().enumerate() {
            if has_port_or_star_at_end(host) || covers_any_port(values, host) {
                continue;
            }
            let message = format!("'{host}' does not match '{host}:80', nor any other port");
            let what = match self.denies {
                true => "the rule denies nothing to whoever sends the port",
                false => "whoever sends the port is not excepted",
            };
            let finding = Diagnostic::warning(Code::HostWithoutPort, message)
                .with_effect(what)
                .with_hint(match host.starts_with('*') {
                    true => "write the hosts out, each as HOST and as HOST:*".to_owned(),
                    false => format!("add '{host}:*'"),
                });
            self.tell(finding, &path_of(field, index));
        }
        if !self.denies {
            self.allowed_hosts(hosts.as_deref().unwrap_or_default(), path);
        }
    }

    /// Clients of a port other than 80 send it, so that an ALLOW on the bare host is of no use.
    fn allowed_hosts(&mut self, hosts: &[String], path: &str) {
        let ports: Vec<u16> = (self.enforced.services.iter())
            .flat_map(|service| http_ports(service))
            .collect();
        let Some(odd) = ports.iter().copied().find(|port| *port != 80) else {
            return;
        };
        for (index, host) in hosts.iter().enumerate() {
            let with_port = format!("{host}:{odd}");
            let is_there = hosts.contains(&with_port);
            if has_port_or_star_at_end(host) || covers_any_port(hosts, host) || is_there {
                continue;
            }
            // Of port 80 no client sends the number; of others some rule may say so.
            let severity = match ports.contains(&80) {
                true => Severity::Info,
                false => Severity::Warning,
            };
            let message = format!("'{host}' does not match '{with_port}', which clients send");
            let finding = Diagnostic::new(severity, Code::HostWithoutPort, message)
                .with_effect(format!(
                    "requests to port {odd} are not allowed by this host"
                ))
                .with_hint(format!("add '{host}:*'"));
            self.tell(finding, &format!("{path}.hosts[{index}]"));
        }
    }

    /// At a waypoint a port is one of the Service, never that of its pods.
    fn ports(&mut self, ports: Option<&[String]>, path: &str) {
        let waypoint = self.ground.snapshot.waypoint.as_ref();
        let ports: Vec<&str> = ports
            .unwrap_or_default()
            .iter()
            .map(String::as_str)
            .collect();
        // Of workloads that are served by their own addresses any port may be dialled.
        if ports.is_empty() || waypoint.is_some_and(|w| w.serves_workloads) {
            return;
        }
        let services = &self.enforced.services;
        let mut known: Vec<u16> = services
            .iter()
            .flat_map(|s| s.ports.iter().map(|p| p.number))
            .collect();
        known.sort_unstable();
        known.dedup();
        let is_known = |text: &&str| text.parse().is_ok_and(|port| known.contains(&port));
        if ports.iter().any(is_known) || known.is_empty() {
            return;
        }
        let there: Vec<String> = known.iter().map(u16::to_string).collect();
        let what = match services.as_slice() {
            [only] => format!("Service {} has", only.key),
            _ => "the Services it is for have".to_owned(),
        };
        let message = format!("no request comes to port {}", ports.join(", "));
        let finding = Diagnostic::warning(Code::PortNotServed, message)
            .with_effect(self.never())
            .with_hint(format!(
                "at a waypoint the port is that of the Service, not of its pods; {what} {}",
                there.join(", ")
            ));
        self.tell(finding, path);
    }

    fn request_principals(&mut self, source: &Source, path: &str) {
        if source.request_principals.is_some() {
            self.token(true, &format!("{path}.requestPrincipals"));
        }
        if source.not_request_principals.is_some() {
            self.token(false, &format!("{path}.notRequestPrincipals"));
        }
    }

    /// Without a RequestAuthentication no token is read, and no request has a principal or claim.
    fn token(&mut self, positive: bool, path: &str) {
        let authentications = &self.ground.snapshot.authentications;
        let read = |service: &&Service| {
            let of = authentications.services.get(&service.key);
            of.is_some_and(|list| !list.is_empty())
        };
        if self.enforced.services.iter().any(read) {
            return;
        }
        let message = "no RequestAuthentication is for what this policy is for: no token is read";
        let effect = match (positive, self.denies) {
            (true, _) => self.never(),
            (false, true) => "the rule denies every request, with a token or without",
            (false, false) => "the condition holds for every request",
        };
        let finding = Diagnostic::warning(Code::TokenNotRead, message)
            .with_effect(effect)
            .with_hint("add a RequestAuthentication with the same targetRefs");
        self.tell(finding, path);
    }
}

fn has_port_or_star_at_end(host: &str) -> bool {
    let bare = host.strip_prefix('*').unwrap_or(host);
    let port = bare.rsplit_once(':').map(|(_, port)| port);
    let has_port = port.is_some_and(|p| !p.is_empty() && p.bytes().all(|c| c.is_ascii_digit()));
    bare.is_empty() || bare.ends_with('*') || has_port
}

/// Whether another value is the host with any port.
fn covers_any_port(values: &[String], host: &str) -> bool {
    values.iter().any(|other| {
        let prefix = other.strip_suffix('*');
        prefix.is_some_and(|prefix| {
            let with_colon = format!("{}:", host.to_ascii_lowercase());
            with_colon.starts_with(&prefix.to_ascii_lowercase())
        })
    })
}

fn http_ports(service: &Service) -> impl Iterator<Item = u16> {
    let http = service.ports.iter();
    let http = http.filter(|port| port.protocol != AppProtocol::Tcp);
    http.map(|port| port.number)
}
