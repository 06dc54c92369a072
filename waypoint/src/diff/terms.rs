//! The values that the rules for one service port name, and those beside their boundaries: what a
//! matrix of requests is made of. Reads rules, and combines nothing.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cairn_config_schema::snapshot::{
    CalicoPath, CiliumHttpRule, ClusterKey, Condition, Criteria, HttpRules, NetworkPolicy,
    Operation, PathMatch, PathPattern, Peer, Peers, Policy, ServicePort, Snapshot, Source,
    StringMatch, TemplateSegment, TextMatch, Values,
};
use ipnet::IpNet;

/// A word that no rule is likely to name: what is beside everything.
pub(super) const NOBODY: &str = "cairn-diff";

/// Characters that make more of a regular expression than a text.
const SPECIAL: &[char] = &[
    '.', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|', '^', '$', '\\',
];

/// Values to ask with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// `trust domain/ns/NAMESPACE/sa/ACCOUNT`.
    pub principals: BTreeSet<String>,
    /// Addresses of clients.
    pub addresses: BTreeSet<IpAddr>,
    /// Hosts.
    pub hosts: BTreeSet<String>,
    /// Methods.
    pub methods: BTreeSet<String>,
    /// Paths, some with a query.
    pub paths: BTreeSet<String>,
    /// Headers with a value.
    pub headers: BTreeSet<(String, String)>,
}

impl Terms {
    /// Adds what applies to a port of a service under one configuration.
    pub fn add_port(&mut self, snapshot: &Snapshot, key: &ClusterKey, port: &ServicePort) {
        let trust_domain = &*snapshot.mesh.trust_domain;
        let policies = snapshot.services.get(&key.service).map(|s| &s.policies);
        for policy in policies.into_iter().flatten() {
            self.add_policy(policy, trust_domain);
        }
        let matches = port.routes.iter().flat_map(|route| &route.rules);
        for matched in matches.flat_map(|rule| &rule.matches) {
            self.add_path(&matched.path);
            let method = matched.method.as_ref();
            self.methods.extend(method.map(|m| m.as_str().to_owned()));
            for header in &matched.headers {
                let value = text_value(&header.value);
                self.add_header(header.name.as_str(), &value);
            }
            for query in &matched.query {
                let value = text_value(&query.value);
                self.paths.insert(format!("/?{}={value}", query.name));
            }
        }
        for policy in snapshot.network.about(key) {
            self.add_network(policy, trust_domain);
        }
    }

    fn add_policy(&mut self, policy: &Policy, trust_domain: &str) {
        for rule in &policy.rules {
            for source in &rule.from {
                self.add_source(source, trust_domain);
            }
            for operation in &rule.to {
                self.add_operation(operation);
            }
            for condition in &rule.when {
                self.add_condition(condition, trust_domain);
            }
        }
    }

    fn add_source(&mut self, source: &Source, trust_domain: &str) {
        let Source {
            principals,
            namespaces,
            service_accounts,
            trust_domains,
            ip_blocks,
            ..
        } = source;
        self.add_principals(principals);
        self.add_namespaces(namespaces, trust_domain);
        self.add_accounts(service_accounts, trust_domain);
        self.add_trust_domains(trust_domains);
        self.add_blocks(ip_blocks);
    }

    fn add_operation(&mut self, operation: &Operation) {
        for host in of(&operation.hosts) {
            self.hosts.extend(text(host));
            // A host without its port is another host (specs/istio-waypoint.md 4.8).
            if let StringMatch::Exact(host) = host
                && !host.contains(':')
            {
                self.hosts.insert(format!("{host}:80"));
            }
        }
        self.methods.extend(of(&operation.methods).flat_map(text));
        for path in of(&operation.paths) {
            match path {
                PathPattern::Text(path) => self.add_text_path(path),
                PathPattern::Template(template) => {
                    let segments = template.segments();
                    self.paths.insert(filled(segments, "x", "x/y"));
                    self.paths.insert(filled(segments, "x", ""));
                    self.paths.insert(filled(segments, "x/y", "x"));
                }
            }
        }
    }

    fn add_condition(&mut self, condition: &Condition, trust_domain: &str) {
        match condition {
            Condition::RequestHeader { name, values } => {
                for value in of(values).flat_map(text) {
                    self.add_header(name.as_str(), &value);
                }
            }
            Condition::SourceIp(blocks) => self.add_blocks(blocks),
            Condition::SourceNamespace(values) => self.add_namespaces(values, trust_domain),
            Condition::SourcePrincipal(values) => self.add_principals(values),
            Condition::SourceServiceAccount(values) => self.add_accounts(values, trust_domain),
            Condition::SourceTrustDomain(values) => self.add_trust_domains(values),
            // The destination is what is asked for; the rest comes with a token, or a proxy before.
            Condition::DestinationIp(_)
            | Condition::DestinationPort(_)
            | Condition::RemoteIp(_)
            | Condition::RequestPrincipal(_)
            | Condition::Audience(_)
            | Condition::Presenter(_)
            | Condition::Claim { .. } => {}
        }
    }

    fn add_principals(&mut self, values: &Values<StringMatch>) {
        for value in of(values) {
            let principal = match value {
                StringMatch::Exact(principal) => principal.to_string(),
                StringMatch::Suffix(end) => match end.rsplit_once("/sa/") {
                    Some((before, account)) => {
                        let namespace = before.rsplit_once("/ns/").map(|(_, ns)| ns);
                        let namespace = namespace.or(before.strip_prefix("ns/"));
                        let namespace = namespace.filter(|ns| !ns.is_empty());
                        let namespace = namespace.unwrap_or(NOBODY);
                        format!("cluster.local/ns/{namespace}/sa/{account}")
                    }
                    None => continue,
                },
                StringMatch::Prefix(start) => match start.split_once("/ns/") {
                    Some((domain, rest)) => {
                        let namespace = rest.split('/').next().filter(|ns| !ns.is_empty());
                        let namespace = namespace.unwrap_or(NOBODY);
                        format!("{domain}/ns/{namespace}/sa/{NOBODY}")
                    }
                    None => continue,
                },
                StringMatch::Any | StringMatch::Glob(_) => continue,
            };
            self.principals.insert(principal);
        }
    }

    fn add_namespaces(&mut self, values: &Values<StringMatch>, trust_domain: &str) {
        let plain = of(values).map(|value| value.to_string().replace('*', "x"));
        let principals = plain.map(|ns| format!("{trust_domain}/ns/{ns}/sa/{NOBODY}"));
        self.principals.extend(principals);
    }

    fn add_accounts(&mut self, values: &Values<StringMatch>, trust_domain: &str) {
        for value in of(values) {
            if let StringMatch::Exact(both) = value
                && let Some((namespace, account)) = both.split_once('/')
            {
                let principal = format!("{trust_domain}/ns/{namespace}/sa/{account}");
                self.principals.insert(principal);
            }
        }
    }

    fn add_trust_domains(&mut self, values: &Values<StringMatch>) {
        for value in of(values) {
            if let StringMatch::Exact(domain) = value {
                let principal = format!("{domain}/ns/{NOBODY}/sa/{NOBODY}");
                self.principals.insert(principal);
            }
        }
    }

    fn add_blocks(&mut self, values: &Values<IpNet>) {
        self.addresses.extend(of(values).map(IpNet::network));
    }

    fn add_header(&mut self, name: &str, value: &str) {
        for value in [value, NOBODY] {
            self.headers.insert((name.to_owned(), value.to_owned()));
        }
    }

    fn add_path(&mut self, path: &PathMatch) {
        match path {
            PathMatch::Exact(path) => self.add_boundary(path),
            PathMatch::Prefix(path) => {
                self.add_boundary(path);
                self.paths.insert(format!("{path}/x"));
            }
            PathMatch::Begins { text, .. } => self.add_beginning(text),
            PathMatch::Regex(pattern) => self.add_expression(pattern.source()),
        }
    }

    fn add_text_path(&mut self, path: &StringMatch) {
        match path {
            StringMatch::Exact(path) => self.add_boundary(path),
            StringMatch::Prefix(path) => self.add_beginning(path),
            StringMatch::Suffix(end) => {
                self.add_plain_path(&format!("/x{end}"));
                self.add_plain_path(&format!("/x{end}x"));
            }
            StringMatch::Any | StringMatch::Glob(_) => {}
        }
    }

    /// What begins with this text, and the text one character less, which is outside.
    fn add_beginning(&mut self, text: &str) {
        self.add_boundary(text);
        let mut shorter = text.to_owned();
        shorter.pop();
        self.add_plain_path(&shorter);
    }

    /// The path, and what is one character or one segment beside it.
    fn add_boundary(&mut self, path: &str) {
        for beside in ["", "x", "/", "/x"] {
            self.add_plain_path(&format!("{path}{beside}"));
        }
    }

    fn add_plain_path(&mut self, path: &str) {
        let rooted = match path.starts_with('/') {
            true => path.to_owned(),
            false => format!("/{path}"),
        };
        self.paths.insert(rooted);
    }

    /// The text that an expression begins with; what follows is guessed by putting words there.
    fn add_expression(&mut self, source: &str) {
        let source = source.trim_start_matches('^');
        let literal = source.split(SPECIAL).next().unwrap_or_default();
        self.add_boundary(literal);
        let words = source.replace("[^/]+", "x").replace("[0-9]+", "1");
        let words = words
            .replace(".*", "x")
            .replace(".+", "x")
            .replace("\\", "");
        self.add_plain_path(words.trim_end_matches('$'));
    }

    fn add_network(&mut self, policy: &NetworkPolicy, trust_domain: &str) {
        for rule in &policy.rules {
            match &rule.peers {
                Peers::Anybody => {}
                Peers::AnyOf(peers) => {
                    for peer in peers {
                        if let Peer::Cidr { block, .. } = peer {
                            self.addresses.insert(block.network());
                        }
                    }
                }
                Peers::Criteria(criteria) => self.add_criteria(criteria, trust_domain),
            }
            match &rule.http {
                HttpRules::NotAsked => {}
                HttpRules::Cilium(rules) => rules.iter().for_each(|rule| self.add_cilium(rule)),
                HttpRules::Calico(http) => {
                    self.methods
                        .extend(http.methods.iter().map(ToString::to_string));
                    for path in &http.paths {
                        let (CalicoPath::Exact(path) | CalicoPath::Prefix(path)) = path;
                        self.add_boundary(path);
                    }
                }
            }
        }
    }

    fn add_criteria(&mut self, criteria: &Criteria, trust_domain: &str) {
        let nets = criteria.nets.iter().flatten().chain(&criteria.not_nets);
        let nets = nets
            .chain(&criteria.sets.nets)
            .chain(&criteria.not_sets.nets);
        self.addresses.extend(nets.map(IpNet::network));
        for account in criteria.service_accounts.iter().flatten() {
            let principal = format!("{trust_domain}/ns/{NOBODY}/sa/{account}");
            self.principals.insert(principal);
        }
    }

    fn add_cilium(&mut self, rule: &CiliumHttpRule) {
        if let Some(method) = &rule.method {
            let words = method.source().split('|').map(|w| w.trim_matches(SPECIAL));
            let words = words.filter(|word| !word.is_empty());
            self.methods.extend(words.map(str::to_owned));
        }
        if let Some(path) = &rule.path {
            self.add_expression(path.source());
        }
        if let Some(host) = &rule.host {
            self.hosts.insert(host.source().replace('\\', ""));
        }
        for (name, value) in &rule.headers {
            let value = value.as_ref().and_then(|v| v.to_str().ok());
            self.add_header(name.as_str(), value.unwrap_or(NOBODY));
        }
        for expected in &rule.header_matches {
            let value = expected.value.as_ref().and_then(|v| v.to_str().ok());
            self.add_header(expected.name.as_str(), value.unwrap_or(NOBODY));
        }
    }
}

/// Values of a field and of its `not` twin.
fn of<T>(values: &Values<T>) -> impl Iterator<Item = &T> {
    values.any_of.iter().chain(&values.none_of)
}

/// A text that matches.
fn text(value: &StringMatch) -> Option<String> {
    Some(match value {
        StringMatch::Any => return None,
        StringMatch::Exact(text) => text.to_string(),
        StringMatch::Prefix(text) => format!("{text}x"),
        StringMatch::Suffix(text) => format!("x{text}"),
        StringMatch::Glob(text) => text.replace('*', "x"),
    })
}

fn text_value(value: &TextMatch) -> String {
    match value {
        TextMatch::Exact(text) => text.to_string(),
        TextMatch::Prefix(text) => format!("{text}x"),
        TextMatch::Present => NOBODY.to_owned(),
        TextMatch::Regex(pattern) => pattern.source().replace(SPECIAL, ""),
    }
}

/// A template with something in place of its operators.
fn filled(segments: &[TemplateSegment], one: &str, rest: &str) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        path.push_str(match segment {
            TemplateSegment::Literal(literal) => literal,
            TemplateSegment::One => one,
            TemplateSegment::Rest => rest,
        });
    }
    path
}
