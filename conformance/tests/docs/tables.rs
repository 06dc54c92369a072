//! Rows of tables: what is answered, and how much there may be of what.

use cairn_filters::outcome::Outcome;
use cairn_waypoint::listener::accept;
use cairn_waypoint::listener::admit::Refusal;

use crate::{assert_has, between, text};

#[test]
fn every_outcome_and_refusal_has_its_row() {
    let page = text("docs/operations.md");
    let has_row = |cells: &[String]| {
        page.lines()
            .any(|line| line.starts_with('|') && cells.iter().all(|c| line.contains(c)))
    };
    for outcome in Outcome::ALL {
        let row = outcome.row();
        let flag = if row.flag.is_empty() {
            "`-`".to_owned()
        } else {
            format!("`{}`", row.flag)
        };
        let status = format!("| {} |", row.status.as_u16());
        let grpc = format!("| {} |", row.grpc_status);
        let cells = [
            status,
            grpc,
            flag,
            format!("`{}`", row.details),
            // Cilium's ends with a line break, which no table has.
            row.body.trim_end().to_owned(),
        ];
        assert!(has_row(&cells), "no row for {outcome:?}: {cells:?}");
    }
    for refusal in Refusal::ALL {
        let cells = [
            format!("`{}`", refusal.as_str()),
            refusal.status().as_u16().to_string(),
        ];
        assert!(has_row(&cells), "no row for {refusal:?}");
    }
    assert_has("docs/operations.md", &accept::FAILURES.map(str::to_owned));
}

#[test]
fn every_limit_has_its_value() {
    let page = text("docs/operations.md");
    for file in [
        "waypoint/src/limits.rs",
        "waypoint/src/limits/observation.rs",
        "config-schema/src/limits.rs",
        "kubernetes/src/limits.rs",
    ] {
        for constant in between(&text(file), "pub const ", ";") {
            let (name, value) = constant.split_once(": ").unwrap();
            let value = value
                .split_once(" = ")
                .unwrap()
                .1
                .trim_end_matches(" as u32");
            // Defined by another one.
            if value
                .chars()
                .next()
                .is_some_and(|c| c.is_ascii_uppercase() && !value.contains('('))
            {
                assert!(page.contains(&format!("`{name}`")), "no limit {name}");
                continue;
            }
            let expected = shown(value);
            let found = page
                .lines()
                .find(|line| line.contains(&format!("`{name}`")));
            let row = found.unwrap_or_else(|| panic!("docs/operations.md has no limit {name}"));
            let says = row
                .split('|')
                .any(|cell| cell.trim().split(" (").next() == Some(&expected));
            assert!(says, "{name} is {expected}, docs/operations.md says: {row}");
        }
    }
}

/// `64 * 1024` as `65,536`; `Duration::from_secs(10)` as `10 s`.
fn shown(value: &str) -> String {
    let unit = match value {
        v if v.starts_with("Duration::from_secs") => " s",
        v if v.starts_with("Duration::from_millis") => " ms",
        _ => "",
    };
    let number = value
        .rsplit('(')
        .next()
        .unwrap()
        .trim_end_matches(')')
        .replace('_', "");
    let product: u64 = number
        .split('*')
        .map(|n| n.trim().parse::<u64>().unwrap())
        .product();
    let digits = product.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + unit
}
