//! Holds docs/fields.md to the code: every field of every kind that is read has a row with what becomes of
//! it and what shows it (issue 3, item 8). `CAIRN_WRITE=1` writes the page; otherwise it must be as it is.
//! A field that no golden case shows has its row in golden/fields.yaml, or the test fails.

// A panic here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod evidence;
mod kinds;
mod page;
mod trace;
mod written;

use cairn_config_schema::origin::Kind;
use cairn_config_schema::resources::Resources;
use cairn_conformance::workspace;

#[test]
fn every_kind_has_a_table() {
    let tables = kinds::tables();
    for (kind, _) in Resources::default().counts() {
        let bare = match kind {
            Kind::CaBundle => "ConfigMap",
            kind => kind.bare(),
        };
        let has = |table: &kinds::Table| {
            let of_kubernetes = table.group == "networking.k8s.io";
            table.kinds.contains(&bare) && of_kubernetes == (kind == Kind::KubeNetworkPolicy)
        };
        assert!(tables.iter().any(has), "{kind} has no table");
    }
}

#[test]
fn every_field_has_a_row_and_every_row_holds() {
    let tables = kinds::tables();
    let evidence = evidence::Evidence::gather(&tables);
    let written = written::Written::read(&tables, &evidence);
    let missing = page::without_row(&tables, &evidence, &written);
    assert!(
        missing.is_empty(),
        "{} fields without a case that shows them and without a row in golden/fields.yaml:\n{}",
        missing.len(),
        missing.join("\n")
    );
    let page = page::page(&tables, &evidence, &written);
    let place = workspace::root().join("docs/fields.md");
    if std::env::var_os("CAIRN_WRITE").is_some() {
        std::fs::write(place, page).unwrap();
    } else {
        let there = std::fs::read_to_string(place).unwrap_or_default();
        assert!(
            there == page,
            "docs/fields.md is not as the code has it: make fields"
        );
    }
}
