//! One clause in words, for access log and `explain`. Decides nothing: the outcome comes in.

use std::fmt::{self, Display, Write};

use cairn_config_schema::identity::Identity;
use cairn_config_schema::snapshot::PathPattern;
use http::header::HOST;

use crate::clause::{Clause, Part, Test};
use crate::facts::Facts;
use crate::token::Token;

/// Values of a list that are written out; the rest is counted. A reason is one line of a log.
const VALUES_MAX: usize = 5;

/// Characters of one value that are written out; a path may be 60 KiB long.
const VALUE_CHARS_MAX: usize = 120;

/// What a clause came to: `method POST is not one of GET, HEAD`.
pub(crate) fn outcome(clause: &Clause, facts: &Facts<'_>) -> String {
    let mut words = String::new();
    // Writing to a String can not fail.
    let _ = write_outcome(&mut words, clause, facts);
    words
}

fn write_outcome(out: &mut String, clause: &Clause, facts: &Facts<'_>) -> fmt::Result {
    write_subject(out, &clause.test, facts)?;
    let found = clause.test.matches(facts);
    out.write_str(if found { " is " } else { " is not " })?;
    write_values(out, &clause.test)?;
    if clause.negated {
        write!(out, " ({})", field(clause))?;
    }
    Ok(())
}

/// The field and what was sent. The value of a header is never written: it may be a credential.
fn write_subject(out: &mut String, test: &Test, facts: &Facts<'_>) -> fmt::Result {
    let peer = facts.peer;
    let http = facts.http.as_ref();
    let token = http.and_then(|h| h.token);
    match test {
        Test::Principal(_) => named(out, "principal", peer.map(Identity::principal)),
        Test::Namespace(_) => named(out, "namespace", peer.and_then(Identity::namespace)),
        Test::TrustDomain(_) => named(out, "trust domain", peer.map(Identity::trust_domain)),
        Test::ServiceAccount(_) => {
            let both = peer.and_then(|p| Some((p.namespace()?, p.service_account()?)));
            let account = both.map(|(namespace, name)| format!("{namespace}/{name}"));
            named(out, "service account", account.as_deref())
        }
        Test::SourceIp(_) => write!(out, "source address {}", facts.source_ip.to_canonical()),
        Test::RemoteIp(_) => write!(out, "remote address {}", facts.remote_ip.to_canonical()),
        Test::DestinationIp(_) => {
            let address = facts.destination_ip.to_canonical();
            write!(out, "destination address {address}")
        }
        Test::DestinationPort(_) => write!(out, "port {}", facts.destination_port),
        Test::Host(_) => named(out, "host", http.map(|h| h.host)),
        Test::Method(_) => named(out, "method", http.map(|h| h.method)),
        Test::Path(_) => named(out, "path", http.map(|h| h.path)),
        Test::Header(name, _) => {
            let sent = http.is_some_and(|h| *name == HOST || h.headers.contains_key(name));
            let absent = if sent { "" } else { " (absent)" };
            write!(out, "header {name}{absent}")
        }
        Test::RequestPrincipal(_) => {
            let principal = token.and_then(Token::principal);
            named(out, "request principal", principal.as_deref())
        }
        Test::Audience(_) => {
            let audiences: Vec<&str> = token.into_iter().flat_map(Token::audiences).collect();
            let audiences = audiences.join(", ");
            named(out, "audience", Some(&*audiences).filter(|a| !a.is_empty()))
        }
        Test::Presenter(_) => named(out, "presenter", token.and_then(Token::presenter)),
        // As with headers: what it is may be nobody's business.
        Test::Claim(path, _) => {
            let sent = token.is_some_and(|t| t.claim(path).next().is_some());
            let absent = if sent { "" } else { " (absent)" };
            write!(out, "claim {}{absent}", path.join("."))
        }
    }
}

fn named(out: &mut String, field: &str, value: Option<&str>) -> fmt::Result {
    match value {
        Some(value) => {
            write!(out, "{field} ")?;
            write_shown(out, value)
        }
        None => write!(out, "{field} (none)"),
    }
}

/// A value from outside: bounded, and no control character reaches a terminal.
fn write_shown(out: &mut String, value: &str) -> fmt::Result {
    for (index, c) in value.chars().enumerate() {
        if index == VALUE_CHARS_MAX {
            return out.write_str("...");
        }
        if c.is_control() {
            write!(out, "{}", c.escape_default())?;
        } else {
            out.write_char(c)?;
        }
    }
    Ok(())
}

fn write_values(out: &mut String, test: &Test) -> fmt::Result {
    match test {
        Test::Principal(values)
        | Test::Namespace(values)
        | Test::ServiceAccount(values)
        | Test::TrustDomain(values)
        | Test::Host(values)
        | Test::Method(values)
        | Test::Audience(values)
        | Test::Presenter(values)
        | Test::Claim(_, values)
        | Test::Header(_, values) => write_list(out, values),
        Test::RequestPrincipal(values) => write_list(out, values),
        Test::Path(values) => {
            let text = |pattern: &PathPattern| match pattern {
                PathPattern::Text(text) => text.to_string(),
                PathPattern::Template(template) => template.to_string(),
            };
            write_list(out, &values.iter().map(text).collect::<Vec<_>>())
        }
        Test::SourceIp(blocks) | Test::RemoteIp(blocks) | Test::DestinationIp(blocks) => {
            let address = |block: &ipnet::IpNet| {
                if block.prefix_len() == block.max_prefix_len() {
                    block.addr().to_string()
                } else {
                    format!("in {block}")
                }
            };
            write_list(out, &blocks.iter().map(address).collect::<Vec<_>>())
        }
        Test::DestinationPort(ports) => write_list(out, ports),
    }
}

fn write_list<T: Display>(out: &mut String, values: &[T]) -> fmt::Result {
    if values.len() > 1 {
        out.write_str("one of ")?;
    }
    for (index, value) in values.iter().take(VALUES_MAX).enumerate() {
        out.write_str(if index == 0 { "" } else { ", " })?;
        write_shown(out, &value.to_string())?;
    }
    match values.len().checked_sub(VALUES_MAX) {
        None | Some(0) => Ok(()),
        Some(more) => write!(out, " and {more} more"),
    }
}

/// The path of a clause inside its rule, as in the user's YAML: `from[0].source.notPrincipals`.
pub(crate) fn path(clause: &Clause) -> String {
    let field = field(clause);
    match clause.part {
        Part::From(item) => format!("from[{item}].source.{field}"),
        Part::To(item) => format!("to[{item}].operation.{field}"),
        Part::When(item) => format!("when[{item}].{field}"),
    }
}

/// The name of the field in the user's YAML.
fn field(clause: &Clause) -> &'static str {
    if let Part::When(_) = clause.part {
        return if clause.negated {
            "notValues"
        } else {
            "values"
        };
    }
    let (plain, not) = match clause.test {
        Test::Principal(_) => ("principals", "notPrincipals"),
        Test::Namespace(_) => ("namespaces", "notNamespaces"),
        Test::ServiceAccount(_) => ("serviceAccounts", "notServiceAccounts"),
        Test::TrustDomain(_) => ("trustDomains", "notTrustDomains"),
        Test::SourceIp(_) => ("ipBlocks", "notIpBlocks"),
        Test::RemoteIp(_) => ("remoteIpBlocks", "notRemoteIpBlocks"),
        Test::DestinationPort(_) => ("ports", "notPorts"),
        Test::Host(_) => ("hosts", "notHosts"),
        Test::Method(_) => ("methods", "notMethods"),
        Test::Path(_) => ("paths", "notPaths"),
        Test::RequestPrincipal(_) => ("requestPrincipals", "notRequestPrincipals"),
        // Only `when` has these.
        Test::DestinationIp(_)
        | Test::Header(..)
        | Test::Audience(_)
        | Test::Presenter(_)
        | Test::Claim(..) => ("values", "notValues"),
    };
    if clause.negated { not } else { plain }
}
