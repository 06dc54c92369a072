//! The only writer of the configuration in force: sources in, snapshot resolved, runtime compiled,
//! one swap. What is broken is logged once, and what was good stays in force.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use cairn_config_schema::diagnostics::{Diagnostic, Severity};
use cairn_config_schema::discovered::Discovered;
use cairn_config_schema::resolve::{self, Options};
use cairn_config_schema::resources::Resources;
use cairn_config_schema::snapshot::{Mesh, Snapshot};
use cairn_config_schema::store::{self, Store};
use tokio::sync::watch;

use crate::admin::{Acknowledged, NotReady, Readiness, Reload};
use crate::jwks::Jwks;
use crate::memory;
use crate::names::Names;
use crate::runtime::Runtime;
use crate::source::SourceFile;
use crate::telemetry::{self, counters};
use crate::tls::Originations;

/// What the rest of the process reads.
#[derive(Clone)]
pub struct InForce {
    /// Decides requests.
    pub runtime: Arc<ArcSwap<Runtime>>,
    /// Decides handshakes.
    pub mesh: Arc<ArcSwap<Mesh>>,
    /// Told when there is something to serve, and when not.
    pub readiness: Arc<Readiness>,
    /// Keys that verify tokens.
    pub jwks: Arc<Jwks>,
    /// Addresses of endpoints that have names.
    pub names: Arc<Names>,
    /// TLS towards endpoints.
    pub originations: Arc<Originations>,
    /// For `/config_dump`.
    pub last_reload: Arc<ArcSwapOption<Reload>>,
    /// For `/acknowledged`.
    pub acknowledged: Arc<ArcSwapOption<Acknowledged>>,
    /// Version of the snapshot in force, for those who follow it.
    pub version: Arc<watch::Sender<u64>>,
}

impl Default for InForce {
    fn default() -> Self {
        Self {
            runtime: Arc::new(ArcSwap::from_pointee(Runtime::empty())),
            mesh: Arc::default(),
            readiness: Arc::default(),
            jwks: Arc::default(),
            names: Arc::default(),
            originations: Arc::default(),
            last_reload: Arc::default(),
            acknowledged: Arc::default(),
            version: Arc::new(watch::Sender::new(0)),
        }
    }
}

/// Publishes configuration.
pub struct Publisher {
    store: Store,
    options: Options,
    in_force: InForce,
    /// Findings of the last snapshot, so that only news is logged.
    told: HashSet<String>,
}

impl Publisher {
    /// A publisher that has published nothing.
    pub fn new(options: Options, in_force: InForce) -> Self {
        Self {
            store: Store::default(),
            options,
            in_force,
            told: HashSet::new(),
        }
    }

    /// Puts the configuration these files hold in force. `noticed` is when the change was noticed.
    pub fn publish(&mut self, files: &[SourceFile], noticed: Instant) {
        let files: Vec<_> = files.iter().map(as_stored).collect();
        let update = self.store.update(&files);
        self.put_in_force(&update.resources, update.diagnostics, noticed);
    }

    /// Takes files that are new or may differ and paths of those that are gone, all others being as they
    /// were, and puts the whole in force.
    pub fn change(&mut self, files: &[SourceFile], gone: &[Arc<str>], noticed: Instant) {
        let files: Vec<_> = files.iter().map(as_stored).collect();
        let update = self.store.change(&files, gone);
        self.put_in_force(&update.resources, update.diagnostics, noticed);
    }

    /// The same, but puts nothing in force yet: something else is to come first.
    pub fn take(&mut self, files: &[SourceFile], gone: &[Arc<str>]) {
        let files: Vec<_> = files.iter().map(as_stored).collect();
        self.store.change(&files, gone);
    }

    /// Whether labels of callers decide something in what is in force.
    pub fn callers_count(&self) -> bool {
        let runtime = self.in_force.runtime.load();
        runtime.snapshot.asks_for_caller_labels()
    }

    /// What is in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.in_force.runtime.load().snapshot.clone()
    }

    /// Takes what istiod told of workloads; it comes into force with what is published next.
    pub fn discover(&mut self, told: Arc<Discovered>) {
        self.options.discovered = Some(told);
    }

    fn put_in_force(&mut self, resources: &Resources, found: Vec<Diagnostic>, noticed: Instant) {
        self.options.version += 1;
        let mut snapshot = resolve::resolve(resources, &self.options);
        snapshot.diagnostics.extend(found);
        let faults = telemetry::settings::faults(&snapshot);
        snapshot.diagnostics.extend(faults);
        resolve::worst_first(&mut snapshot.diagnostics);
        let previous = self.in_force.runtime.load_full();
        snapshot.share_with(&previous.snapshot);
        let snapshot = Arc::new(snapshot);
        self.in_force.originations.prepare(&snapshot);
        let names = self.in_force.names.hold();
        let runtime = Runtime::compile(snapshot.clone(), Some(&previous), &self.in_force.names);
        // Handshakes first: a peer of a trust domain that is no longer accepted must not get in on
        // the strength of the old one while policy is already the new one's.
        self.in_force.mesh.store(Arc::new(snapshot.mesh.clone()));
        self.in_force.runtime.store(Arc::new(runtime));
        drop(names);
        let acknowledged = Acknowledged::of(resources, &snapshot);
        self.in_force
            .acknowledged
            .store(Some(Arc::new(acknowledged)));
        self.in_force.version.send_replace(snapshot.version);
        self.tell(&snapshot, noticed);
        memory::give_back_when_quiet();
    }

    fn tell(&mut self, snapshot: &Snapshot, noticed: Instant) {
        let took = noticed.elapsed();
        let errors = snapshot.diagnostics.iter();
        let errors = errors.filter(|d| d.severity == Severity::Error).count();
        counters::config_published(snapshot, took);
        let readiness = &self.in_force.readiness;
        readiness.remove(NotReady::NoConfiguration);
        let serves = snapshot
            .waypoint
            .as_ref()
            .is_some_and(|w| w.blocked.is_none());
        readiness.set(NotReady::NoGateway, !serves);
        self.in_force.last_reload.store(Some(Arc::new(Reload {
            at: SystemTime::now(),
            took,
            outcome: match errors {
                0 => Ok(snapshot.version),
                n => Err(format!("{n} errors: see diagnostics; the rest is in force")),
            },
        })));
        let told: HashSet<String> = snapshot.diagnostics.iter().map(log_line).collect();
        for finding in &snapshot.diagnostics {
            let line = log_line(finding);
            if !self.told.contains(&line) {
                log(finding.severity, &line);
            }
        }
        self.told = told;
        tracing::info!(
            snapshot = snapshot.version,
            services = snapshot.served().count(),
            errors,
            took_ms = took.as_millis() as u64,
            "configuration in force"
        );
    }
}

fn as_stored(file: &SourceFile) -> store::SourceFile<'_> {
    store::SourceFile {
        path: file.path.clone(),
        content: match &file.text {
            Ok(text) => Ok(Cow::Borrowed(text.as_bytes())),
            Err(reason) => Err(reason.as_str().into()),
        },
    }
}

fn log(severity: Severity, line: &str) {
    match severity {
        Severity::Error => tracing::error!("{line}"),
        Severity::Warning => tracing::warn!("{line}"),
        Severity::Info => tracing::debug!("{line}"),
    }
}

fn log_line(finding: &Diagnostic) -> String {
    let mut line = String::new();
    if let Some(location) = &finding.location {
        line.push_str(&format!("{location}: "));
    }
    if let Some(object) = &finding.object {
        line.push_str(&format!("{object}: "));
    }
    line.push_str(&finding.message);
    for (label, text) in [("effect", &finding.effect), ("hint", &finding.hint)] {
        if let Some(text) = text {
            line.push_str(&format!("; {label}: {text}"));
        }
    }
    line
}
