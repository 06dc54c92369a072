//! Status conditions: one file of objects for each reason of specs/gateway-api.md 1.4 (and of Istio's policies,
//! specs/istio-waypoint.md 1.4), and beside it the statuses, as `cairn check -o json` shows them. After a wanted
//! change: `CAIRN_BLESS=1 cargo test -p cairn-config-schema --test status`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a test fails by panicking

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resolve::{Options, resolve_with_statuses};
use cairn_config_schema::store::{SourceFile, Store};
use serde_json::Value;

/// Reasons that a route, a policy or a Gateway can be given, each in one of the files.
const REASONS: [&str; 31] = [
    "Accepted",
    "AncestorNotBound",
    "AttachmentDenied",
    "BackendNotFound",
    "Conflicted",
    "IncompatibleFilters",
    "Invalid",
    "InvalidCACertificateRef",
    "InvalidKind",
    "InvalidParameters",
    "NoConflicts",
    "NoMatchingParent",
    "NoVirtualIP",
    "NoValidCACertificate",
    "NotAllowedByListeners",
    "PartiallyInvalid",
    "Pending",
    "Programmed",
    "RefNotPermitted",
    "ResolvedRefs",
    "TargetNotFound",
    "UnsupportedProtocol",
    "UnsupportedTrafficType",
    "UnsupportedValue",
    "WaypointAccepted",
    "WaypointIsNotReady",
    // Types, so that none is lost.
    "\"cairn.dev/WaypointAccepted\"",
    "\"Accepted\"",
    "\"ResolvedRefs\"",
    "\"PartiallyInvalid\"",
    "\"cairn.dev/WaypointBound\"",
];

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/status/cases")
}

/// Below every case stands a waypoint for `shop` and some Services.
fn statuses(name: &str, text: &str) -> Value {
    let base = fs::read_to_string(cases().join("base.yaml.part")).unwrap();
    let source = |path: &str, text: &str| SourceFile {
        path: path.into(),
        content: Ok(Cow::Owned(text.as_bytes().to_vec())),
    };
    let update = Store::default().update(&[source("base", &base), source("case", text)]);
    assert!(
        update.diagnostics.is_empty(),
        "{name}: {:#?}",
        update.diagnostics
    );
    let (_, statuses) = resolve_with_statuses(&update.resources, &Options::default());
    let statuses = serde_json::to_value(statuses).unwrap();
    // What the base has itself is in the cases `gateway`, and `services` and `for-workloads`.
    let of_services = ["services", "for-workloads"].contains(&name);
    let Value::Array(all) = statuses else {
        panic!("a list")
    };
    let own = all
        .into_iter()
        .filter(|s| name == "gateway" || s["kind"] != "Gateway")
        .filter(|s| of_services || s["kind"] != "Service");
    Value::Array(own.collect())
}

#[test]
fn every_case_has_the_statuses_beside_it() {
    let bless = std::env::var_os("CAIRN_BLESS").is_some();
    let mut wrong = Vec::new();
    let mut all = String::new();
    for entry in fs::read_dir(cases()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let found = statuses(&name, &fs::read_to_string(&path).unwrap());
        let found = serde_json::to_string_pretty(&found).unwrap() + "\n";
        let beside = path.with_extension("json");
        if bless {
            fs::write(&beside, &found).unwrap();
        } else if fs::read_to_string(&beside).unwrap_or_default() != found {
            wrong.push(format!("{name}: {found}"));
        }
        all += &found;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for reason in REASONS {
        assert!(all.contains(reason), "no case has {reason}");
    }
}

/// A controller without a Gateway of its own resolves for nobody.
#[test]
fn where_no_waypoint_is_no_policy_of_the_gateway_api_is_in_force() {
    let text = fs::read_to_string(cases().join("backend-policies.yaml")).unwrap();
    let source = SourceFile {
        path: "case".into(),
        content: Ok(Cow::Owned(text.into_bytes())),
    };
    let resources = Store::default().update(&[source]).resources;
    let options = Options {
        gateway: Some(ObjectKey::new("", "")),
        ..Options::default()
    };
    let (_, statuses) = resolve_with_statuses(&resources, &options);
    let policies: Vec<_> = statuses
        .iter()
        .filter(|status| status.kind == "XBackendTrafficPolicy")
        .collect();
    assert!(policies.is_empty(), "{policies:?}");
}
