//! A `List` whose lines are damaged: cut or read as a whole, it says the same, and no line of it is
//! left out in silence.

use std::fmt::Debug;

use cairn_config_schema::diagnostics::Severity;
use cairn_config_schema::origin::ObjectKey;
use cairn_config_schema::resources::Loaded;
use cairn_config_schema::store::Store;
use proptest::collection::vec;
use proptest::sample::select;

use crate::support::feed;

const HEAD: &str = "apiVersion: v1\nkind: List\nitems:\n";

const POLICY: &str = r#"- apiVersion: security.istio.io/v1
  kind: AuthorizationPolicy
  metadata:
    name: deny-admin
    namespace: shop
    annotations:
      note: |
        some text
         more
  spec:
    action: DENY
    rules:
    - to:
      - operation:
          paths: ["/admin*"]
"#;

const NAMESPACE: &str = "- apiVersion: v1\n  kind: Namespace\n  metadata: {name: shop}\n";

/// What a text says: its policies and namespaces with their places, how many parts are of unknown
/// scope, and the errors.
#[derive(Debug, PartialEq)]
struct Said {
    objects: Vec<String>,
    unreadable: usize,
    errors: Vec<String>,
}

fn said(text: &str) -> Said {
    let update = feed(&mut Store::default(), &[("f.yaml", Ok(text))]);
    let resources = &update.resources;
    let policies = resources.authorization_policies.iter();
    let policies = policies.map(|(key, loaded)| object(key, loaded));
    let namespaces = resources.namespaces.iter();
    let namespaces = namespaces.map(|(key, loaded)| object(key, loaded));
    let errors = update.diagnostics.iter();
    let errors = errors.filter(|d| d.severity == Severity::Error);
    let mut errors: Vec<_> = errors
        .map(|d| format!("{:?} {:?} {}", d.location, d.code, d.message))
        .collect();
    errors.sort();
    Said {
        objects: policies.chain(namespaces).collect(),
        unreadable: resources.unreadable.len(),
        errors,
    }
}

fn object<T: Debug>(key: &ObjectKey, loaded: &Loaded<T>) -> String {
    match loaded {
        Loaded::Broken(broken) => format!("{key} {broken:?}"),
        good => {
            let object = good.object().unwrap();
            let (meta, spec) = (&object.meta, &object.spec);
            let at = ["", "spec"].map(|path| object.place.locate(path));
            format!("{key} {meta:?} {spec:?} {at:?}")
        }
    }
}

/// The same list in a form that is never cut.
fn whole(text: &str) -> String {
    text.replacen("\nitems:\n", "\nitems: # not cut\n", 1)
}

/// A line that belongs to no item was once taken for the empty space before the first.
#[test]
fn nothing_before_the_first_item_is_left_out() {
    let indented: String = POLICY.lines().map(|line| format!("  {line}\n")).collect();
    let without_dash = POLICY.replacen("- ", "  ", 1);
    let (flow, garbage) = (
        "  [{kind: AuthorizationPolicy}]\n",
        "  what is this\n  {[\n",
    );
    for lost in [&*indented, &without_dash, flow, garbage] {
        let text = format!("{HEAD}{lost}{NAMESPACE}");
        let found = said(&text);
        let is_there = found.objects.iter().any(|o| o.contains("deny-admin"));
        let is_refused = found.unreadable == 1 && !found.errors.is_empty();
        assert!(is_there || is_refused, "{found:?} {text}");
        assert_eq!(found, said(&whole(&text)), "{text}");
    }
}

/// A lone CR ends a line in YAML.
#[test]
fn what_follows_a_lone_cr_is_not_a_comment() {
    let after_cr = POLICY.replacen("- ", "# x\r- ", 1);
    let found = said(&format!("{HEAD}{after_cr}{NAMESPACE}"));
    assert_eq!(found.objects.len(), 2, "{found:?}");
}

/// Lines and ends of lines as fingers slip, and some of what YAML has to offer.
const LINES: &[&str] = &[
    "# c",
    "",
    "  ",
    "\t",
    "- ",
    "-",
    "  - kind: Namespace",
    "- []",
    "- {}",
    "- null",
    "  \"",
    "\"",
    "'",
    "- &a {kind: Namespace, apiVersion: v1, metadata: {name: z}}",
    "- *a",
    "metadata: {}",
    "metadata:",
    "kind: List",
    "items:",
    "  x: |",
    "  x: >-",
    " y: 1",
    "- apiVersion: v1",
    "}",
    "[",
    "- \"items:",
    "items: []",
    "...",
    "--- ",
    "---",
    "? a",
    ": b",
    "#\r- kind: Namespace",
    "- kind: List\r  apiVersion: v1",
    "\u{2028}- a",
    "\u{85}- a",
    "\u{feff}- a",
    "<<: {a: b}",
    "!!map",
    "- !!map",
    "- - a: b",
    "  <<: *a",
    "  ? |\n  z\n  : w",
    "\"items\":",
    "- |",
    "- >\n  foo",
    " - a",
    "   b: c",
    "metadata: |",
    "metadata: \"",
    "metadata: &a",
    "kind: >",
    "%YAML 1.2",
];
const ENDS: &[&str] = &[" \"", " '", " |", " {", " #", " &a", " *a", "\r", "\u{b}"];

/// Damages one line: where, how, and with what.
fn damage(lines: &mut Vec<String>, (at, how, line, end): (usize, u8, &str, &str)) {
    let at = at % lines.len();
    match how {
        0..6 => lines.insert(at, line.to_owned()),
        6 => drop(lines.remove(at)),
        7 => lines[at].insert_str(0, "  "),
        8 => lines[at] = lines[at].chars().skip(1).collect(),
        _ => lines[at].push_str(end),
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]
    /// However a list is damaged, it says what it says as a whole, with the same places.
    #[test]
    fn a_damaged_list_says_what_the_whole_says(
        items in vec(0..2u8, 1..4),
        tail in select(&["", "metadata: {resourceVersion: \"\"}\n", "metadata:\n  resourceVersion: x\n"][..]),
        damages in vec((0..100usize, 0..10u8, select(LINES), select(ENDS)), 1..4),
    ) {
        let items: String = items
            .iter()
            .enumerate()
            .map(|(n, kind)| match kind {
                0 => POLICY.replace("deny-admin", &format!("p{n}")),
                _ => NAMESPACE.replace("name: shop", &format!("name: n{n}")),
            })
            .collect();
        let mut lines: Vec<String> = format!("{HEAD}{items}{tail}").lines().map(str::to_owned).collect();
        for one in damages {
            damage(&mut lines, one);
        }
        let text = lines.join("\n") + "\n";
        if text.matches("\nitems:\n").count() != 1 {
            return Ok(()); // then `whole` would not say the same
        }
        proptest::prop_assert_eq!(said(&text), said(&whole(&text)), "{}", text);
    }
}
