//! `cairn status`: waypoints, what their replicas have in force, who uses them, what is not enforced and why.

use std::fmt::Write;

use cairn_kubernetes::cluster as api;
use cairn_kubernetes::status::{self, Report, WaypointStatus};

use super::check::write_finding;
use super::output::{self, Format, Outcome, Paint, count};
use super::{access, cluster};

/// Show the cluster's waypoints: replicas and the versions they have in force, the services that use
/// them, and which policies are not enforced and why, with what `cairn check` says of the objects.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn status -n shop\n  cairn status -A -o json\n\n\
    Exit code: 0 all is enforced, 1 something is not, or could not be read, 2 wrong usage."
)]
pub struct Args {
    #[command(flatten)]
    area: cluster::Area,
    /// Leave out warnings about objects
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    access: access::Args,
    #[command(flatten)]
    istio: access::Istio,
    /// How to answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Runs `cairn status`.
pub fn status(args: Args) -> anyhow::Result<Outcome> {
    let namespace = args.area.namespace();
    let mut report = cluster::ask(args.access, async |client| {
        let read = api::read(&client, &args.istio.istio_namespace).await?;
        let pods = |read: &api::Cluster| {
            let mut gateways = read.waypoints();
            gateways.retain(|key| namespace.is_none_or(|n| *key.namespace == *n));
            status::ready_pods(read, &gateways)
        };
        let (read, said) = status::settled((&client, &client), read, pods).await?;
        Ok(status::report(&read, namespace, &said))
    })?;
    if args.quiet {
        report
            .findings
            .retain(|f| f.severity == cairn_config_schema::diagnostics::Severity::Error);
    }
    match args.output {
        Format::Json => output::print_json(&report)?,
        Format::Text => output::print(&text(&report, Paint::for_stdout())?)?,
    }
    Ok(match report.has_gaps() {
        true => Outcome::No,
        false => Outcome::Fine,
    })
}

fn text(report: &Report, paint: Paint) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    if report.waypoints.is_empty() {
        writeln!(text, "no waypoint of Cairn here; `cairn attach` makes one")?;
    }
    for waypoint in &report.waypoints {
        write_waypoint(&mut text, waypoint, paint)?;
    }
    for service in &report.not_attached {
        let line = format!("Service {} is not served: {}", service.service, service.why);
        writeln!(text, "{}", paint.bad(line))?;
    }
    for policy in &report.not_enforced {
        let mut line = format!("{} {}", policy.policy, policy.why);
        if !policy.services.is_empty() {
            write!(line, " (for {})", policy.services.join(", "))?;
        }
        writeln!(text, "{}", paint.bad(line))?;
    }
    for object in &report.not_programmed {
        let line = format!(
            "{} is not in force everywhere: {}",
            object.object, object.why
        );
        writeln!(text, "{}", paint.bad(line))?;
    }
    if !report.findings.is_empty() {
        text.push('\n');
    }
    for finding in &report.findings {
        write_finding(&mut text, finding, paint)?;
    }
    cluster::write_unread(&mut text, &report.unread, paint)?;
    let gaps = report.not_enforced.len() + report.not_attached.len();
    let found = match (report.has_gaps(), gaps) {
        (false, _) => paint.good("every policy is enforced as it is written"),
        (true, 0) => paint.bad("not everything is in force, see above"),
        (true, _) => paint.bad(format_args!(
            "{}, {}",
            count(
                report.not_enforced.len(),
                "policy is not enforced",
                "policies are not enforced"
            ),
            count(
                report.not_attached.len(),
                "service is not served as it asks",
                "services are not served as they ask"
            ),
        )),
    };
    writeln!(text, "found    {found}")?;
    Ok(text)
}

fn write_waypoint(text: &mut String, waypoint: &WaypointStatus, paint: Paint) -> std::fmt::Result {
    let state = match (&waypoint.why_not, &waypoint.refuses_everything) {
        (_, Some(reason)) => paint.bad(format_args!("refuses everything: {reason}")),
        (Some(reason), None) => paint.bad(format_args!("not programmed: {reason}")),
        (None, None) => paint.good("programmed"),
    };
    writeln!(
        text,
        "{}  {}  {state}",
        paint.strong(&waypoint.gateway),
        waypoint.class
    )?;
    if !waypoint.addresses.is_empty() {
        writeln!(text, "  address   {}", waypoint.addresses.join(", "))?;
    }
    let wanted = waypoint
        .replicas_wanted
        .map_or_else(|| "?".to_owned(), |n| n.to_string());
    writeln!(
        text,
        "  replicas  {} ready of {wanted}",
        waypoint.replicas_ready
    )?;
    for replica in &waypoint.replicas {
        let ready = if replica.ready { "ready" } else { "not ready" };
        write!(text, "    {}  {ready}", replica.pod)?;
        if let Some(snapshot) = replica.snapshot {
            write!(text, ", snapshot {snapshot}")?;
        }
        if let Some(silent) = &replica.silent {
            write!(text, ", {}", paint.odd(silent))?;
        }
        match replica.behind.as_slice() {
            [] => writeln!(text)?,
            behind => writeln!(
                text,
                ", {}",
                paint.odd(format_args!("behind: {}", behind.join(", ")))
            )?,
        }
    }
    match waypoint.services.as_slice() {
        [] => writeln!(text, "  serves    no service"),
        services => writeln!(text, "  serves    {}", services.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cairn_kubernetes::status::{NotEnforced, Replica};

    #[test]
    fn it_reads_from_the_waypoint_down_to_what_is_wrong() {
        let report = Report {
            waypoints: vec![WaypointStatus {
                gateway: "shop/waypoint".into(),
                class: "cairn-waypoint".into(),
                addresses: vec!["10.96.1.9".into()],
                programmed: true,
                why_not: None,
                refuses_everything: None,
                replicas_ready: 1,
                replicas_wanted: Some(2),
                replicas: vec![Replica {
                    pod: "waypoint-1".into(),
                    ready: true,
                    snapshot: Some(7),
                    behind: vec!["HTTPRoute/shop/web: generation 1 of 2".into()],
                    silent: None,
                }],
                services: vec!["shop/web".into()],
            }],
            not_enforced: vec![NotEnforced {
                policy: "AuthorizationPolicy/shop/readers".into(),
                why: "targets something that does not exist",
                services: Vec::new(),
            }],
            ..Report::default()
        };
        assert_eq!(
            text(&report, Paint::none()).unwrap(),
            "shop/waypoint  cairn-waypoint  programmed
  address   10.96.1.9
  replicas  1 ready of 2
    waypoint-1  ready, snapshot 7, behind: HTTPRoute/shop/web: generation 1 of 2
  serves    shop/web
AuthorizationPolicy/shop/readers targets something that does not exist
found    1 policy is not enforced, 0 services are not served as they ask
"
        );
    }

    #[test]
    fn nothing_at_all_says_how_to_begin() {
        let text = text(&Report::default(), Paint::none()).unwrap();
        assert!(text.contains("`cairn attach` makes one"), "{text}");
    }
}
