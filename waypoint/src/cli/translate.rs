//! `cairn translate`: policy and routes of one mesh as objects of another, with a report of every part, and a
//! comparison of both by the engine. Applies nothing.

mod compared;

use std::path::PathBuf;

use cairn_authz::waypoint;
use cairn_config_schema::diagnostics::{Code, Diagnostic, Severity};
use cairn_config_schema::translate::{self, Outcome as Became, Part, Source, Target, Translation};
use serde::Serialize;
use serde_json::Value;

use self::compared::Compared;
use super::configuration::{self, Choice, Loaded};
use super::output::{self, Format, Outcome, count};
use crate::limits::DIFF_REQUESTS_MAX;

const EXAMPLE: &str = "\
Examples:
  cairn translate --to cilium -f ./mesh > cilium.yaml
  kubectl get gateways,gatewayclasses,namespaces,services,endpointslices,pods,workloadentries,serviceentries,httproutes,grpcroutes,tlsroutes,tcproutes,virtualservices,destinationrules,telemetries,authorizationpolicies,requestauthentications,peerauthentications,ciliumnetworkpolicies,ciliumclusterwidenetworkpolicies,ciliumenvoyconfigs,ciliumclusterwideenvoyconfigs,networkpolicies -A -o yaml > mesh.yaml
  cairn translate --to istio -f mesh.yaml > istio.yaml

Leave out the kinds that the cluster does not know, and no others: what is there is looked at, so that nothing is written that would allow more beside it.

Objects go to stdout, as YAML; what becomes of each part to stderr. With -o json both go to stdout.

Exit code: 0 every part was written and means the same; 1 something was lost; 2 bad input or wrong usage.";

/// Arguments of `cairn translate`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Whose objects to write
    #[arg(long, value_name = "MESH")]
    to: Mesh,
    /// Files and folders of Kubernetes YAML or JSON: policies and routes, and the Gateway, Namespaces, Services,
    /// EndpointSlices and Pods they are about
    #[arg(short, long, required = true, num_args = 1.., value_name = "PATH")]
    file: Vec<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    /// Write also what allows more than the original
    #[arg(long)]
    allow_wider: bool,
    /// Requests that are compared, at most
    #[arg(long, value_name = "N", default_value_t = DIFF_REQUESTS_MAX as u64, value_parser = clap::value_parser!(u64).range(1..))]
    requests: u64,
    /// How to answer
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// `--to`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Mesh {
    /// AuthorizationPolicy and VirtualService, from Cilium's objects
    Istio,
    /// CiliumNetworkPolicy and CiliumEnvoyConfig, from Istio's objects
    Cilium,
    /// HTTPRoute, from VirtualServices and CiliumEnvoyConfigs
    Gateway,
}

impl From<Mesh> for Target {
    fn from(mesh: Mesh) -> Self {
        match mesh {
            Mesh::Istio => Self::Istio,
            Mesh::Cilium => Self::Cilium,
            Mesh::Gateway => Self::Gateway,
        }
    }
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Report<'a> {
    objects: &'a [Value],
    parts: &'a [Part],
    /// What the objects take the place of, and what may be removed with them.
    replaced: Vec<String>,
    notes: &'a [String],
    compared: &'a Compared,
    /// The engine judged requests otherwise, so that nothing is written.
    refuted: bool,
}

/// Runs `cairn translate`.
///
/// # Errors
/// When a request of the comparison can not be understood, or stdout not be written.
pub fn translate(args: &Args) -> anyhow::Result<Outcome> {
    let loaded = configuration::load(&args.file, &args.choice);
    let bad = bad_input(&loaded);
    if loaded.snapshot.waypoint.is_none() || !bad.is_empty() {
        eprintln!("cairn: the input can not be translated; `cairn check` says more");
        for diagnostic in bad {
            let at = diagnostic.location.as_ref().map(|at| format!("{at}: "));
            eprintln!("cairn: {}{}", at.unwrap_or_default(), diagnostic.message);
        }
        return Ok(Outcome::Usage);
    }
    let options = args.choice.options();
    let waypoint = waypoint::identity(&loaded.snapshot);
    let source = Source {
        resources: &loaded.resources,
        snapshot: &loaded.snapshot,
        options: &options,
        waypoint: waypoint.as_ref(),
    };
    let mut translation = translate::translate(source, args.to.into(), args.allow_wider);
    let requests_max = usize::try_from(args.requests).unwrap_or(usize::MAX);
    let compared = compared::compare(&loaded, &options, &translation, requests_max)?;
    // What is written was thought to be sound; where the engine says otherwise nothing is.
    let refuted = compared.refutes(translation.is_wider());
    if refuted {
        translation.refute();
    }
    match args.output {
        Format::Json => output::print_json(&Report {
            objects: &translation.objects,
            parts: &translation.parts,
            replaced: translation
                .replaced
                .iter()
                .map(ToString::to_string)
                .collect(),
            notes: &translation.notes,
            compared: &compared,
            refuted,
        })?,
        Format::Text => {
            output::print(&yaml(&translation.objects)?)?;
            eprint!("{}", told(&translation, &compared, refuted));
        }
    }
    Ok(match translation.is_whole() && !compared.differs() {
        true => Outcome::Fine,
        false => Outcome::No,
    })
}

/// What keeps the input from being understood as a whole.
fn bad_input(loaded: &Loaded) -> Vec<&Diagnostic> {
    let codes = [
        Code::SyntaxError,
        Code::Unreadable,
        Code::DuplicateObject,
        Code::NoGateway,
    ];
    let all = loaded.snapshot.diagnostics.iter();
    all.filter(|d| d.severity == Severity::Error && codes.contains(&d.code))
        .collect()
}

fn yaml(objects: &[Value]) -> anyhow::Result<String> {
    let documents: Result<Vec<String>, _> = objects.iter().map(serde_saphyr::to_string).collect();
    Ok(documents?.join("---\n"))
}

/// What people read beside the objects.
fn told(translation: &Translation, compared: &Compared, refuted: bool) -> String {
    let mut text = String::new();
    for part in &translation.parts {
        let at = part
            .location
            .as_ref()
            .map(|at| format!("{}:{}: ", at.file, at.line));
        let path = match part.path.is_empty() {
            true => String::new(),
            false => format!(" {}", part.path),
        };
        let (at, outcome) = (at.unwrap_or_default(), part.outcome.as_str());
        text.push_str(&format!(
            "{at}{outcome}: {}{path}: {}\n",
            part.object, part.why
        ));
    }
    for note in translation.notes.iter().filter(|_| !refuted) {
        text.push_str(&format!("note: {note}\n"));
    }
    if refuted {
        text.push_str("nothing is written: the engine judges requests otherwise, which is an error of cairn; please report it\n");
    }
    text.push_str(&compared.text());
    let lost = translation
        .parts
        .iter()
        .filter(|part| part.outcome != Became::Replaced);
    text.push_str(&format!(
        "{} written for {}; {} lost\n",
        count(translation.objects.len(), "object", "objects"),
        count(translation.replaced.len(), "object", "objects"),
        count(lost.count(), "part", "parts"),
    ));
    text
}
