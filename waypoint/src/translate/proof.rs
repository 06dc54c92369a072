//! Whether a translation means what it should: the objects it replaces are taken out of the configuration and the
//! new ones put in, and both are asked the matrix of requests of `cairn diff`.

use std::sync::Arc;

use cairn_config_schema::diagnostics::Severity;
use cairn_config_schema::origin::{Kind, Origin};
use cairn_config_schema::resolve::{self, Options};
use cairn_config_schema::resources::Resources;
use cairn_config_schema::store::{SourceFile, Store};
use serde::Serialize;

use super::Translation;
use crate::diff::{self, Case, Compared, Judged, Matrix, Side};

/// What became of the requests.
#[derive(Debug, Default, Serialize)]
pub struct Proof {
    /// Requests that were asked before and after.
    pub compared: usize,
    /// Of these, those that were allowed and are denied.
    pub denied_now: usize,
    /// Those that were denied and are allowed.
    pub allowed_now: usize,
    /// Those that are allowed and go elsewhere, or are answered otherwise.
    pub elsewhere: usize,
    /// The first that differ.
    pub examples: Vec<(Case, Compared)>,
    /// Errors that reading the new objects brings.
    pub errors: Vec<String>,
}

/// Examples that are kept.
const EXAMPLES_MAX: usize = 5;

/// Asks both.
///
/// # Errors
/// When a request of the matrix can not be understood.
pub fn prove(
    resources: &Resources,
    options: &Options,
    translation: &Translation,
    requests_max: usize,
) -> anyhow::Result<Proof> {
    let before = Side::new(resolve::resolve(resources, options));
    let mut proof = Proof::default();
    let after = with(resources, translation, &mut proof)?;
    let after = resolve::resolve(&after, options);
    let known: Vec<&String> = before
        .snapshot()
        .diagnostics
        .iter()
        .map(|d| &d.message)
        .collect();
    let new = after
        .diagnostics
        .iter()
        .filter(|d| d.severity == Severity::Error && !known.contains(&&d.message));
    proof.errors.extend(new.map(|d| d.message.clone()));
    let after = Side::new(after);
    let matrix = Matrix::new(before.snapshot(), after.snapshot(), requests_max);
    for case in matrix.cases() {
        let compared = diff::compare(&before, &after, &case)?;
        proof.add(case, compared);
    }
    Ok(proof)
}

impl Proof {
    fn add(&mut self, case: Case, compared: Compared) {
        self.compared += 1;
        let (old, new) = (compared.old.may_pass(), compared.new.may_pass());
        match (old, new) {
            (true, false) => self.denied_now += 1,
            (false, true) => self.allowed_now += 1,
            // The route has another name in any case.
            (true, true) if leads(&compared.old) != leads(&compared.new) => self.elsewhere += 1,
            _ => return,
        }
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push((case, compared));
        }
    }

    /// Whether every request is judged as before.
    pub fn holds(&self) -> bool {
        self.denied_now + self.allowed_now + self.elsewhere == 0 && self.errors.is_empty()
    }
}

fn leads(judged: &Judged) -> (&[String], Option<u16>) {
    (&judged.backends, judged.status)
}

/// The configuration after the move.
fn with(
    resources: &Resources,
    translation: &Translation,
    proof: &mut Proof,
) -> anyhow::Result<Resources> {
    let mut after = resources.clone();
    for Origin { kind, key } in &translation.replaced {
        match kind {
            Kind::AuthorizationPolicy => drop(after.authorization_policies.remove(key)),
            Kind::VirtualService => drop(after.virtual_services.remove(key)),
            Kind::CiliumNetworkPolicy => drop(after.cilium_policies.remove(key)),
            Kind::CiliumEnvoyConfig => drop(after.envoy_configs.remove(key)),
            Kind::CiliumClusterwideEnvoyConfig => drop(after.envoy_clusterwide_configs.remove(key)),
            _ => {}
        }
    }
    let mut files = Vec::new();
    for (index, object) in translation.objects.iter().enumerate() {
        let text = serde_json::to_vec(object)?;
        files.push(SourceFile {
            path: Arc::from(format!("translated object {index}")),
            content: Ok(text.into()),
        });
    }
    let new = Store::default().update(&files);
    proof.errors.extend(new.diagnostics.iter().filter_map(|d| {
        let bad = d.severity == Severity::Error;
        bad.then(|| d.message.clone())
    }));
    after
        .authorization_policies
        .extend(new.resources.authorization_policies);
    after
        .virtual_services
        .extend(new.resources.virtual_services);
    after.cilium_policies.extend(new.resources.cilium_policies);
    after.envoy_configs.extend(new.resources.envoy_configs);
    Ok(after)
}
