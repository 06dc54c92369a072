//! Policy and routes of one mesh written for another: Istio's AuthorizationPolicy and VirtualService as
//! CiliumNetworkPolicy and CiliumEnvoyConfig, and back (specs/policies.md 1.7, Y28). What the other side can not
//! say is told, and left out only where that allows nothing more. Nothing is applied.

mod cilium_policies;
mod cilium_routes;
mod istio_policies;
mod istio_routes;
mod paths;
mod proof;

use std::fmt;

use cairn_config_schema::origin::Origin;
use cairn_config_schema::resources::Resources;
use cairn_config_schema::snapshot::Snapshot;
use serde::Serialize;
use serde_json::Value;

pub use proof::{Proof, prove};

/// For whom is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Target {
    /// CiliumNetworkPolicy and CiliumEnvoyConfig, from what is there of Istio's.
    Cilium,
    /// AuthorizationPolicy and VirtualService, from what is there of Cilium's.
    Istio,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Translation {
    /// The objects, ready to be applied.
    pub objects: Vec<Value>,
    /// What these objects say in the other language, and what is not needed any more once they are applied.
    pub replaced: Vec<Origin>,
    /// What they do not say, or say otherwise.
    pub losses: Vec<Loss>,
}

/// One thing that the other side can not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loss {
    /// The object it was found in.
    pub object: Origin,
    /// Where in it.
    pub path: String,
    /// What comes of it.
    pub effect: Effect,
    /// In words.
    pub message: String,
}

/// What comes of a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Nothing was written for the object, for leaving this out would let in more than before, or lead
    /// requests elsewhere.
    NotTranslated,
    /// What was written allows less than before.
    Stricter,
    /// What was written allows more than before.
    Wider,
    /// It differs where no request in use should notice.
    Differs,
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotTranslated => "not translated",
            Self::Stricter => "stricter",
            Self::Wider => "wider",
            Self::Differs => "differs",
        })
    }
}

/// What is translated: objects as written, and as resolved.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// As written.
    pub resources: &'a Resources,
    /// As resolved, for one waypoint.
    pub snapshot: &'a Snapshot,
}

/// Writes all that can be written.
pub fn translate(source: Source<'_>, target: Target) -> Translation {
    let mut translation = Translation::default();
    match target {
        Target::Cilium => {
            istio_policies::translate(source, &mut translation);
            istio_routes::translate(source, &mut translation);
        }
        Target::Istio => {
            cilium_policies::translate(source, &mut translation);
            cilium_routes::translate(source, &mut translation);
        }
    }
    translation.losses.sort_by(|a, b| {
        let key = |loss: &Loss| (loss.effect, loss.object.to_string(), loss.path.clone());
        key(a).cmp(&key(b))
    });
    translation
}

/// What an object loses, noted while it is translated.
struct Notes<'a> {
    object: &'a Origin,
    losses: Vec<Loss>,
}

impl<'a> Notes<'a> {
    fn of(object: &'a Origin) -> Self {
        Self {
            object,
            losses: Vec::new(),
        }
    }

    fn add(&mut self, effect: Effect, path: impl Into<String>, message: impl Into<String>) {
        let loss = Loss {
            object: self.object.clone(),
            path: path.into(),
            effect,
            message: message.into(),
        };
        if !self.losses.contains(&loss) {
            self.losses.push(loss);
        }
    }

    /// Whether leaving something out is not to be had at any price.
    fn forbid(&self) -> bool {
        self.losses
            .iter()
            .any(|l| l.effect == Effect::NotTranslated)
    }
}

impl Translation {
    /// Takes an object, unless what it loses forbids that.
    fn take(&mut self, notes: Notes<'_>, objects: Vec<Value>) {
        if !notes.forbid() && !objects.is_empty() {
            self.objects.extend(objects);
            self.replaced.push(notes.object.clone());
        }
        self.losses.extend(notes.losses);
    }
}
