//! `cairn check`: everything that is wrong with a configuration, where, what it means and what to do;
//! then what would be served. Finds nothing by itself: parsing, resolving and lints do.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use cairn_config_schema::diagnostics::{Diagnostic, Severity};
use cairn_config_schema::origin::{Kind, Origin};
use cairn_config_schema::snapshot::{AppProtocol, Policy, Service, Snapshot};
use cairn_config_schema::status::ObjectStatus;
use serde::Serialize;

use super::configuration::{self, Choice, Loaded};
use super::output::{self, Format, Outcome, Paint, count};

const EXAMPLE: &str = "\
Examples:
  cairn check ./mesh
  kubectl get gateways,httproutes,services,namespaces,pods,endpointslices,authorizationpolicies -A -o yaml > all.yaml
  cairn check all.yaml --gateway shop/waypoint

Exit code: 0 no errors, 1 errors (with --strict also warnings), 2 wrong usage.";

/// Arguments of `cairn check`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Files and folders of Kubernetes YAML or JSON
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    /// Warnings are as bad as errors; and as with `cairn run --strict`
    #[arg(long)]
    strict: bool,
    /// Leave out what is only worth knowing
    #[arg(long)]
    quiet: bool,
    /// How to answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Runs `cairn check`.
pub fn check(args: &Args) -> anyhow::Result<Outcome> {
    let mut loaded = configuration::load_strictly(&args.paths, &args.choice, args.strict);
    loaded.lint();
    let report = Report::of(&loaded, args.quiet);
    match args.output {
        Format::Json => output::print_json(&report)?,
        Format::Text => output::print(&report.text(Paint::for_stdout())?)?,
    }
    Ok(report.outcome(args.strict))
}

/// What `-o json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    diagnostics: Vec<&'a Diagnostic>,
    files: usize,
    objects: BTreeMap<Kind, usize>,
    waypoint: Option<Served<'a>>,
    /// What a controller would write to the objects.
    statuses: &'a [ObjectStatus],
    errors: usize,
    warnings: usize,
}

/// What the waypoint would serve.
#[derive(Debug, Serialize)]
struct Served<'a> {
    gateway: String,
    /// Why everything is refused, if it is.
    blocked: Option<&'a str>,
    /// Policies of the Gateway and its class.
    policies: Vec<&'a Origin>,
    services: Vec<ServedService<'a>>,
}

#[derive(Debug, Serialize)]
struct ServedService<'a> {
    service: String,
    hostname: &'a str,
    ports: Vec<ServedPort<'a>>,
    /// Every policy that applies, those of the Gateway among them.
    policies: Vec<&'a Origin>,
}

#[derive(Debug, Serialize)]
struct ServedPort<'a> {
    port: u16,
    protocol: AppProtocol,
    routes: Vec<&'a Origin>,
}

impl<'a> Report<'a> {
    fn of(loaded: &'a Loaded, quiet: bool) -> Self {
        let findings = &loaded.snapshot.diagnostics;
        let number = |severity| findings.iter().filter(|d| d.severity == severity).count();
        Self {
            errors: number(Severity::Error),
            warnings: number(Severity::Warning),
            diagnostics: findings
                .iter()
                .filter(|d| !quiet || d.severity > Severity::Info)
                .collect(),
            files: loaded.files,
            objects: loaded
                .resources
                .counts()
                .into_iter()
                .filter(|(_, n)| *n > 0)
                .collect(),
            waypoint: served(&loaded.snapshot),
            statuses: &loaded.statuses,
        }
    }

    fn outcome(&self, strict: bool) -> Outcome {
        if self.errors > 0 || (strict && self.warnings > 0) {
            Outcome::No
        } else {
            Outcome::Fine
        }
    }

    fn text(&self, paint: Paint) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        for finding in &self.diagnostics {
            write_finding(&mut text, finding, paint)?;
        }
        if !self.diagnostics.is_empty() {
            text.push('\n');
        }
        let objects: Vec<String> = self
            .objects
            .iter()
            .map(|(kind, n)| objects_of(*kind, *n))
            .collect();
        let objects = if objects.is_empty() {
            "no objects".to_owned()
        } else {
            objects.join(", ")
        };
        writeln!(
            text,
            "read     {}: {objects}",
            count(self.files, "file", "files")
        )?;
        match &self.waypoint {
            None => writeln!(
                text,
                "serves   {}",
                paint.bad("nothing: there is no Gateway to serve")
            )?,
            Some(waypoint) => write_served(&mut text, waypoint, paint)?,
        }
        let mut found = format!(
            "{}, {}",
            count(self.errors, "error", "errors"),
            count(self.warnings, "warning", "warnings")
        );
        if self.errors > 0 {
            found = paint.bad(found);
        } else if self.warnings > 0 {
            found = paint.odd(found);
        } else {
            found = paint.good(found);
        }
        writeln!(text, "found    {found}")?;
        Ok(text)
    }
}

fn served(snapshot: &Snapshot) -> Option<Served<'_>> {
    let waypoint = snapshot.waypoint.as_ref()?;
    Some(Served {
        gateway: waypoint.origin.key.to_string(),
        blocked: waypoint.blocked.as_deref(),
        policies: waypoint.policies.iter().map(|p| &p.origin).collect(),
        services: snapshot.served().map(|s| served_service(s)).collect(),
    })
}

fn served_service(service: &Service) -> ServedService<'_> {
    ServedService {
        service: service.key.to_string(),
        hostname: &service.hostname,
        ports: service
            .ports
            .iter()
            .map(|port| ServedPort {
                port: port.number,
                protocol: port.protocol,
                routes: (port.routes.iter().map(|r| &r.origin))
                    .chain(port.stream_routes.iter().map(|r| &r.origin))
                    .collect(),
            })
            .collect(),
        policies: service
            .policies
            .iter()
            .map(|p: &std::sync::Arc<Policy>| &p.origin)
            .collect(),
    }
}

/// `file:line:column: severity[code]: message`, then what it is about, what it means, what to do.
pub(super) fn write_finding(
    text: &mut String,
    finding: &Diagnostic,
    paint: Paint,
) -> std::fmt::Result {
    if let Some(location) = &finding.location {
        write!(text, "{}: ", paint.strong(location))?;
    }
    let code = serde_json::to_value(finding.code).unwrap_or_default();
    let code = code.as_str().unwrap_or_default();
    let severity = match finding.severity {
        Severity::Error => paint.bad(format_args!("error[{code}]")),
        Severity::Warning => paint.odd(format_args!("warning[{code}]")),
        Severity::Info => paint.faint(format_args!("info[{code}]")),
    };
    writeln!(text, "{severity}: {}", finding.message)?;
    if let Some(object) = &finding.object {
        let at = if finding.path.is_empty() { "" } else { " " };
        writeln!(text, "    object: {object}{at}{}", finding.path)?;
    }
    if let Some(effect) = &finding.effect {
        writeln!(text, "    effect: {effect}")?;
    }
    if let Some(hint) = &finding.hint {
        writeln!(text, "    hint:   {hint}")?;
    }
    Ok(())
}

fn write_served(text: &mut String, waypoint: &Served<'_>, paint: Paint) -> std::fmt::Result {
    let services = count(waypoint.services.len(), "service", "services");
    writeln!(text, "serves   {services} as Gateway {}", waypoint.gateway)?;
    if let Some(reason) = waypoint.blocked {
        writeln!(
            text,
            "         {}",
            paint.bad(format_args!("but refuses everything: {reason}"))
        )?;
    }
    let width = waypoint
        .services
        .iter()
        .map(|s| s.service.len())
        .max()
        .unwrap_or(0);
    for service in &waypoint.services {
        let ports: Vec<String> = service.ports.iter().map(port_words).collect();
        let policies = count(service.policies.len(), "policy", "policies");
        writeln!(
            text,
            "         {:width$}  {}; {policies}",
            service.service,
            ports.join(", ")
        )?;
    }
    Ok(())
}

/// `1 GatewayClass`, `2 AuthorizationPolicies`.
fn objects_of(kind: Kind, number: usize) -> String {
    let one = kind.as_str();
    let many = match one.strip_suffix("cy") {
        Some(stem) => format!("{stem}cies"),
        None if one.ends_with("Entry") => format!("{}ies", one.trim_end_matches('y')),
        None if one.ends_with('s') => format!("{one}es"),
        None => format!("{one}s"),
    };
    count(number, one, &many)
}

/// `80 http (2 routes)`.
fn port_words(port: &ServedPort<'_>) -> String {
    let protocol = match port.protocol {
        AppProtocol::Http => "http",
        AppProtocol::Http2 => "http2",
        AppProtocol::Grpc => "grpc",
        AppProtocol::Tcp => "tcp",
        AppProtocol::Sniff => "undeclared",
    };
    let routes = match port.routes.len() {
        0 => String::new(),
        n => format!(" ({})", count(n, "route", "routes")),
    };
    format!("{} {protocol}{routes}", port.port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// Text and outcome of `cairn check` on one file, `mesh.yaml`.
    fn check_file(yaml: &str, flags: &[&str]) -> (String, Outcome) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("mesh.yaml");
        std::fs::write(&file, yaml).unwrap();
        let file = file.to_str().unwrap();
        let args = Line::parse_from(["check", file].iter().chain(flags)).args;
        let loaded = configuration::load(&args.paths, &args.choice);
        let report = Report::of(&loaded, args.quiet);
        let text = report.text(Paint::none()).unwrap();
        let below = format!("{}/", dir.path().display());
        (text.replace(&below, ""), report.outcome(args.strict))
    }

    const GOOD: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec:
  gatewayClassName: istio-waypoint
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/use-waypoint: waypoint}}
spec:
  clusterIP: 10.96.1.1
  ports: [{name: http, port: 80}]
";

    #[test]
    fn good_configuration_says_what_is_served() {
        let (text, outcome) = check_file(GOOD, &["--strict"]);
        assert_eq!(
            text,
            "read     1 file: 1 Gateway, 1 Service\n\
             serves   1 service as Gateway shop/waypoint\n         \
             shop/web  80 http; 0 policies\n\
             found    0 errors, 0 warnings\n"
        );
        assert_eq!(outcome, Outcome::Fine);
    }

    #[test]
    fn error_has_its_place_its_object_and_what_to_do() {
        let (text, outcome) = check_file(&GOOD.replace("clusterIP", "clusterIp"), &[]);
        let place = "mesh.yaml:12:3: error[unknown-field]: ";
        assert!(text.contains(place), "{text}");
        assert!(
            text.contains("\n    object: Service/shop/web spec.clusterIp\n"),
            "{text}"
        );
        assert!(text.contains("clusterIP"), "{text}");
        assert_eq!(outcome, Outcome::No);
    }

    #[test]
    fn policy_that_nothing_enforces_is_a_warning_and_with_strict_a_failure() {
        let policy = "---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, namespace: shop}
spec:
  rules: [{to: [{operation: {methods: [GET]}}]}]
";
        let yaml = format!("{GOOD}{policy}");
        let (text, outcome) = check_file(&yaml, &[]);
        assert!(text.contains("warning[not-for-waypoint]: "), "{text}");
        assert_eq!(outcome, Outcome::Fine);
        assert_eq!(check_file(&yaml, &["--strict"]).1, Outcome::No);
    }

    #[test]
    fn file_that_is_not_there_is_an_error() {
        let args = Line::parse_from(["check", "/nonexistent/mesh.yaml"]).args;
        let loaded = configuration::load(&args.paths, &args.choice);
        assert_eq!(Report::of(&loaded, false).outcome(false), Outcome::No);
    }
}
