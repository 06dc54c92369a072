//! The CRD of Cairn's own kind is what the Rust type says (issue 3, item 7).

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::path::Path;

use cairn_config_schema::resources::cairn::TrafficPolicy;
use kube::CustomResourceExt;
use serde_json::Value;

/// Written anew by `CAIRN_WRITE=1 cargo test -p cairn-config-schema --test crd`.
#[test]
fn the_crd_is_made_from_the_type() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds/trafficpolicies.cairn.dev.json");
    let made = serde_json::to_string_pretty(&TrafficPolicy::crd()).unwrap() + "\n";
    if std::env::var_os("CAIRN_WRITE").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "{} is not what the type says", path.display());
}

/// An API server takes no schema with a type left open, with `nullable` beside `$ref`, or with a default that
/// breaks the schema's own rules; what it has to say of a field is its documentation in `kubectl explain`.
#[test]
fn every_field_of_the_schema_has_a_type_and_words() {
    let crd = serde_json::to_value(TrafficPolicy::crd()).unwrap();
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let spec = &schema["properties"]["spec"];
    let mut seen = 0;
    look(spec, "spec", &mut seen);
    assert!(seen > 15, "{seen} fields");
}

fn look(schema: &Value, path: &str, seen: &mut usize) {
    *seen += 1;
    assert!(schema["$ref"].is_null(), "{path} refers");
    assert!(schema["type"].is_string(), "{path} has no type: {schema}");
    assert!(schema["default"].is_null(), "{path} has a default");
    assert!(schema["description"].is_string(), "{path} says nothing");
    if let Some(fields) = schema["properties"].as_object() {
        for (name, field) in fields {
            look(field, &format!("{path}.{name}"), seen);
        }
    }
    if let Some(fields) = schema["items"]["properties"].as_object() {
        for (name, field) in fields {
            look(field, &format!("{path}[].{name}"), seen);
        }
    }
}
