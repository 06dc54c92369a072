//! `cairn translate`: policy and routes of Istio as objects of Cilium, or the other way round, with all that is lost
//! on the way, and a comparison of both by the engine. Applies nothing.

use std::path::PathBuf;

use cairn_config_schema::diagnostics::Severity;
use serde::Serialize;
use serde_json::Value;

use super::configuration::{self, Choice, Loaded};
use super::output::{self, Format, Outcome, Paint, count};
use crate::limits::DIFF_REQUESTS_MAX;
use crate::translate::{self, Effect, Loss, Proof, Source, Target, Translation};

const EXAMPLE: &str = "\
Examples:
  cairn translate --to cilium ./mesh > cilium.yaml
  kubectl get gateways,services,endpointslices,pods,ciliumnetworkpolicies -n shop -o yaml | cairn translate --to istio /dev/stdin

Objects go to stdout, as YAML; what is lost, and how requests fare under both, to stderr.

Exit code: 0 everything was translated and each request of the comparison is judged as before; 1 not so; 2 wrong usage.";

/// Arguments of `cairn translate`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Files and folders of Kubernetes YAML or JSON: policies and routes, and the Gateway, Services,
    /// EndpointSlices and Pods they are about
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Whose objects to write
    #[arg(long, value_name = "MESH")]
    to: Target,
    #[command(flatten)]
    choice: Choice,
    /// Requests of the comparison, at most
    #[arg(long, value_name = "N", default_value_t = DIFF_REQUESTS_MAX)]
    requests: usize,
    /// How to answer; with json, all of it on stdout
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Report<'a> {
    objects: &'a [Value],
    /// What the objects take the place of.
    replaced: Vec<String>,
    losses: &'a [Loss],
    comparison: &'a Proof,
}

/// Runs `cairn translate`.
///
/// # Errors
/// When a request of the comparison can not be understood, or stdout not be written.
pub fn translate(args: &Args) -> anyhow::Result<Outcome> {
    let loaded = configuration::load(&args.paths, &args.choice);
    let broken = errors(&loaded);
    let source = Source {
        resources: &loaded.resources,
        snapshot: &loaded.snapshot,
    };
    let translation = translate::translate(source, args.to);
    let options = args.choice.options();
    let proof = translate::prove(&loaded.resources, &options, &translation, args.requests)?;
    match args.output {
        Format::Json => output::print_json(&Report {
            objects: &translation.objects,
            replaced: translation
                .replaced
                .iter()
                .map(ToString::to_string)
                .collect(),
            losses: &translation.losses,
            comparison: &proof,
        })?,
        Format::Text => {
            output::print(&yaml(&translation.objects)?)?;
            eprint!("{}", told(&translation, &proof, broken));
        }
    }
    let whole = translation
        .losses
        .iter()
        .all(|loss| loss.effect == Effect::Differs);
    Ok(match whole && proof.holds() && broken == 0 {
        true => Outcome::Fine,
        false => Outcome::No,
    })
}

fn errors(loaded: &Loaded) -> usize {
    let findings = loaded.snapshot.diagnostics.iter();
    findings.filter(|d| d.severity == Severity::Error).count()
}

fn yaml(objects: &[Value]) -> anyhow::Result<String> {
    let documents: Result<Vec<String>, _> = objects.iter().map(serde_saphyr::to_string).collect();
    Ok(documents?.join("---\n"))
}

/// What people read beside the objects.
fn told(translation: &Translation, proof: &Proof, broken: usize) -> String {
    let paint = Paint::for_stderr();
    let mut text = String::new();
    if broken > 0 {
        let errors = count(broken, "error", "errors");
        let line = format!("the input has {errors}: see `cairn check`, and mend them first");
        text.push_str(&format!("{}\n", paint.bad(line)));
    }
    for loss in &translation.losses {
        let effect = loss.effect.to_string();
        let effect = match loss.effect {
            Effect::Wider => paint.bad(effect),
            Effect::NotTranslated | Effect::Stricter => paint.odd(effect),
            Effect::Differs => paint.faint(effect),
        };
        text.push_str(&format!(
            "{effect}: {} {}: {}\n",
            loss.object, loss.path, loss.message
        ));
    }
    for error in &proof.errors {
        text.push_str(&format!("{}: {error}\n", paint.bad("error")));
    }
    for (case, compared) in &proof.examples {
        text.push_str(&format!(
            "{}: {} {} from {}: {} before, {} after ({})\n",
            paint.odd("not as before"),
            case.method,
            case.path,
            case.from,
            compared.old.verdict,
            compared.new.verdict,
            compared.new.reason,
        ));
    }
    text.push_str(&format!(
        "{} written for {}; of {} compared {} denied that were not, {} allowed that were not, {} led elsewhere\n",
        count(translation.objects.len(), "object", "objects"),
        count(translation.replaced.len(), "object", "objects"),
        count(proof.compared, "request", "requests"),
        proof.denied_now,
        proof.allowed_now,
        proof.elsewhere,
    ));
    text
}
