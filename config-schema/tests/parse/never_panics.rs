//! Whatever the bytes: an answer, never a panic; and an object is good or broken, never lost.

use cairn_config_schema::store::{SourceFile, Store};
use proptest::prelude::*;

use crate::kubectl::EVERY_KIND;

fn update(bytes: &[u8]) -> cairn_config_schema::store::Update {
    let file = SourceFile {
        path: "f.yaml".into(),
        content: Ok(bytes.to_vec().into()),
    };
    Store::default().update(&[file])
}

/// Bytes that mean something in YAML, to get deeper than random ones do.
fn yaml_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a",
        ":",
        ": ",
        "- ",
        "\n",
        "  ",
        "\t",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&a ",
        "*a",
        "|",
        ">",
        "'",
        "\"",
        "#",
        "---",
        "...",
        "%",
        "!",
        "!!str ",
        "? ",
        "<<: ",
        "~",
        "kind: Pod\n",
        "\\",
        "é",
        "apiVersion: v1\n",
        "metadata: {name: a}\n",
        "items:\n",
        "\r\n",
        "\u{feff}",
        "\0",
        "0x1",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|p| p.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        update(&bytes);
    }

    #[test]
    fn pieces_of_yaml(text in yaml_like()) {
        update(text.as_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// A mutation may break objects; then it is said, and no object is lost in silence.
    #[test]
    fn mutated_objects(
        at in any::<prop::sample::Index>(),
        cut in 0..4usize,
        put in yaml_like(),
    ) {
        let start = (0..=at.index(EVERY_KIND.len())).rev().find(|i| EVERY_KIND.is_char_boundary(*i));
        let start = start.unwrap_or(0);
        let end = (start + cut).min(EVERY_KIND.len());
        let text = format!("{}{put}{}", &EVERY_KIND[..start], &EVERY_KIND[end..]);
        let update = update(text.as_bytes());
        // A ConfigMap with another name is another's, and skipped in silence; so it is not counted.
        let config_maps = update.resources.mesh_config.len();
        let loaded = update.resources.counts().map(|(_, n)| n).iter().sum::<usize>() - config_maps;
        let is_told = update.diagnostics.iter().any(|d| d.path != "data.mesh.defaultConfig");
        prop_assert!(loaded >= 8 || is_told, "{loaded}");
    }
}
