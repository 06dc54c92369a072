//! Reads and resolves configuration for commands that look at it once, in the way `cairn run` does.

use std::borrow::Cow;
use std::path::PathBuf;

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resolve::{self, Options};
use cairn_config_schema::resources::Resources;
use cairn_config_schema::snapshot::{Locality, Snapshot};
use cairn_config_schema::status::ObjectStatus;
use cairn_config_schema::store::{SourceFile, Store};

use crate::source::Files;

/// Which configuration, for whom.
#[derive(Debug, clap::Args)]
pub struct Choice {
    /// The Gateway to read it for; not needed when there is only one of a waypoint class
    #[arg(long, value_name = "NS/NAME", env = "CAIRN_GATEWAY", value_parser = super::run::object_key)]
    gateway: Option<ObjectKey>,
    /// Trust domain, in place of that of the ConfigMap `istio`
    #[arg(long, value_name = "DOMAIN", env = "CAIRN_TRUST_DOMAIN")]
    trust_domain: Option<String>,
    /// Domain that the hostnames of Services end in [default: cluster.local]
    #[arg(long, value_name = "DOMAIN", env = "CAIRN_CLUSTER_DOMAIN", value_parser = super::run::dns_name)]
    cluster_domain: Option<String>,
    /// Where this waypoint runs, REGION/ZONE/SUBZONE, for balancing by place; the zone is that of endpoints
    /// on its node when absent
    #[arg(long, value_name = "PLACE", env = "CAIRN_LOCALITY")]
    locality: Option<String>,
    /// The network of this waypoint, whose workloads it reaches by their addresses [default: the default network]
    #[arg(long, value_name = "NAME", env = "CAIRN_NETWORK")]
    network: Option<String>,
}

impl Choice {
    /// How to resolve for it.
    pub fn options(&self) -> Options {
        Options {
            gateway: self.gateway.clone(),
            trust_domain: self.trust_domain.clone(),
            cluster_domain: self.cluster_domain.clone(),
            locality: self.locality.as_deref().map(Locality::parse),
            node: std::env::var("NODE_NAME").ok(),
            is_elsewhere: false,
            strict: false,
            access_log_format: None,
            network: self.network.clone(),
            discovered: None,
            version: 1,
        }
    }
}

/// What the files hold, and what it means.
pub struct Loaded {
    /// Objects.
    pub resources: Resources,
    /// Their meaning; its diagnostics are all there are, those of reading too.
    pub snapshot: Snapshot,
    /// What a controller would write to the objects.
    pub statuses: Vec<ObjectStatus>,
    /// Files that were read, or could not be.
    pub files: usize,
}

impl Loaded {
    /// Adds what the lints find; a waypoint that runs does without.
    pub fn lint(&mut self) {
        let found = cairn_authz::lint::lint(&self.resources, &self.snapshot);
        let diagnostics = &mut self.snapshot.diagnostics;
        diagnostics.extend(found);
        resolve::worst_first(diagnostics);
    }
}

/// Reads the files under these paths as a waypoint would that starts now.
pub fn load(paths: &[PathBuf], choice: &Choice) -> Loaded {
    load_strictly(paths, choice, false)
}

/// The same in strict mode, if that is asked for.
pub fn load_strictly(paths: &[PathBuf], choice: &Choice, strict: bool) -> Loaded {
    let mut files = Files::new(paths.to_vec());
    files.refresh();
    let sources: Vec<SourceFile<'_>> = files
        .sources()
        .iter()
        .map(|file| SourceFile {
            path: file.path.clone(),
            content: match &file.text {
                Ok(text) => Ok(Cow::Borrowed(text.as_bytes())),
                Err(reason) => Err(reason.as_str().into()),
            },
        })
        .collect();
    let update = Store::default().update(&sources);
    let options = Options {
        strict,
        ..choice.options()
    };
    let (mut snapshot, statuses) = resolve::resolve_with_statuses(&update.resources, &options);
    snapshot.diagnostics.extend(update.diagnostics);
    let faults = crate::telemetry::settings::faults(&snapshot);
    snapshot.diagnostics.extend(faults);
    resolve::worst_first(&mut snapshot.diagnostics);
    Loaded {
        resources: update.resources,
        snapshot,
        statuses,
        files: sources.len(),
    }
}
