//! `cairn attach`: a waypoint for a namespace or for single Services. What is applied is
//! [`cairn_kubernetes::attach`]'s to say.

use std::fmt::Write;
use std::time::Duration;

use cairn_config_schema::origin::ObjectKey;
use cairn_kubernetes::attach::{self, Change, Done, Traffic, Wanted};
use cairn_kubernetes::objects::yaml;
use clap::ValueEnum;

use super::output::{self, Format, Outcome};
use super::{access, cluster};

/// Give a namespace, or single Services, a waypoint: a Gateway of class cairn-waypoint, and the label
/// istio.io/use-waypoint. What has another waypoint already is left alone.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cairn attach -n shop --wait\n  cairn attach -n shop --service web --service api\n  \
    cairn attach -n shop --dry-run | kubectl apply --server-side -f -\n\n\
    Exit code: 0 done, 1 refused or failed (what was changed is said), 2 wrong usage."
)]
pub struct Args {
    /// Namespace of the Gateway and of what uses it
    #[arg(short, long, value_name = "NAMESPACE", value_parser = super::run::dns_name)]
    namespace: String,
    /// Only this Service; may be repeated. Without one the whole namespace
    #[arg(long = "service", value_name = "NAME", value_parser = super::run::dns_name)]
    services: Vec<String>,
    /// Name of the Gateway
    #[arg(long, value_name = "NAME", default_value = "waypoint", value_parser = super::run::dns_name)]
    name: String,
    /// Whose addresses it serves [default: as the Gateway says, which is service]
    #[arg(long = "for", value_name = "TRAFFIC")]
    traffic: Option<TrafficArg>,
    /// Set the labels only once the Gateway is programmed
    #[arg(long)]
    wait: bool,
    /// How long to wait
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "wait", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Take over what is labelled with another waypoint, or with none
    #[arg(long)]
    overwrite: bool,
    /// Print what would be applied, and ask no API server
    #[arg(long, conflicts_with_all = ["wait", "overwrite"])]
    dry_run: bool,
    #[command(flatten)]
    access: access::Args,
    /// How to say what was done
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// `--for`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum TrafficArg {
    /// Services
    Service,
    /// Pods
    Workload,
    /// Both
    All,
}

impl From<TrafficArg> for Traffic {
    fn from(arg: TrafficArg) -> Self {
        match arg {
            TrafficArg::Service => Self::Service,
            TrafficArg::Workload => Self::Workload,
            TrafficArg::All => Self::All,
        }
    }
}

/// Runs `cairn attach`.
pub fn attach(args: Args) -> anyhow::Result<Outcome> {
    if args.traffic == Some(TrafficArg::Workload) && !args.services.is_empty() {
        let error = anyhow::anyhow!(
            "--for workload serves no Service: leave out --service, or take --for all"
        );
        return Ok(output::wrong_usage(&error));
    }
    let wanted = Wanted {
        gateway: ObjectKey::new(args.namespace, args.name),
        services: args.services,
        traffic: args.traffic.map(Traffic::from),
        overwrite: args.overwrite,
    };
    if args.dry_run {
        let manifests = attach::manifests(&wanted);
        match args.output {
            Format::Json => output::print_json(&manifests)?,
            Format::Text => output::print(&as_yaml(&manifests)?)?,
        }
        return Ok(Outcome::Fine);
    }
    let wait = args.wait.then(|| Duration::from_secs(args.timeout));
    let done = cluster::ask(args.access, async |client| {
        Ok(attach::attach(&client, &wanted, wait).await?)
    })?;
    match args.output {
        Format::Json => output::print_json(&done)?,
        Format::Text => output::print(&said(&done, &wanted, args.wait)?)?,
    }
    Ok(Outcome::Fine)
}

/// Documents that `kubectl apply --server-side` takes: the labels alone are no whole objects.
fn as_yaml(manifests: &[serde_json::Value]) -> anyhow::Result<String> {
    let documents = yaml(manifests)?;
    Ok(format!("# kubectl apply --server-side -f -\n{documents}"))
}

/// One line for each object.
pub(super) fn lines(text: &mut String, done: &[Done]) -> std::fmt::Result {
    for one in done {
        let what = match one.change {
            Change::Created => "created",
            Change::Changed => "changed",
            Change::Unchanged => "unchanged",
            Change::Deleted => "deleted",
        };
        writeln!(text, "{what:<10}{}", one.object)?;
    }
    Ok(())
}

fn said(done: &[Done], wanted: &Wanted, waited: bool) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    lines(&mut text, done)?;
    let namespace = &wanted.gateway.namespace;
    if waited {
        writeln!(
            text,
            "Connections go through Gateway {} from now on; those that are open go on as they are.",
            wanted.gateway
        )?;
    } else {
        writeln!(
            text,
            "Until Gateway {} is programmed connections go as before, past its policies.",
            wanted.gateway
        )?;
    }
    writeln!(
        text,
        "What is in force: cairn status -n {namespace}. Ways past it: cairn doctor -n {namespace}."
    )?;
    Ok(text)
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

    /// What is printed is what is applied, and reads as one would write it.
    #[test]
    fn a_dry_run_prints_yaml_to_apply() {
        let wanted = Wanted {
            gateway: ObjectKey::new("shop", "waypoint"),
            services: vec!["web".to_owned()],
            traffic: Some(Traffic::All),
            overwrite: false,
        };
        let yaml = as_yaml(&attach::manifests(&wanted)).unwrap();
        let lines = [
            "# kubectl apply --server-side -f -",
            "kind: Gateway",
            "    istio.io/waypoint-for: all",
            "  gatewayClassName: cairn-waypoint",
            "---",
            "kind: Service",
            "    istio.io/use-waypoint: waypoint",
        ];
        for line in lines {
            assert!(yaml.lines().any(|l| l == line), "{line}: {yaml}");
        }
    }

    #[test]
    fn a_waypoint_for_pods_has_no_services() {
        let line = [
            "attach",
            "-n",
            "shop",
            "--service",
            "web",
            "--for",
            "workload",
        ];
        let args = Line::parse_from(line).args;
        assert_eq!(attach(args).unwrap(), Outcome::Usage);
    }

    #[test]
    fn what_was_done_is_said_in_lines() {
        let wanted = Wanted {
            gateway: ObjectKey::new("shop", "waypoint"),
            services: vec![],
            traffic: None,
            overwrite: false,
        };
        let done = [Done {
            object: "Gateway shop/waypoint".to_owned(),
            change: Change::Created,
        }];
        let text = said(&done, &wanted, false).unwrap();
        assert!(
            text.starts_with("created   Gateway shop/waypoint\n"),
            "{text}"
        );
        assert!(text.contains("past its policies"), "{text}");
    }
}
