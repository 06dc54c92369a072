//! Durations as Istio's objects write them. Those of the Gateway API are narrower.

/// A Go duration (`1h2m3.5s`, `500ms`) in whole milliseconds, rounded down.
pub(crate) fn go_ms(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total_ms = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit_ms = match unit {
            "h" => 3_600_000.0,
            "m" => 60_000.0,
            "s" => 1_000.0,
            "ms" => 1.0,
            "us" | "µs" => 1e-3,
            "ns" => 1e-6,
            _ => return None,
        };
        total_ms += number.parse::<f64>().ok()? * unit_ms;
        rest = tail;
    }
    // Ten years: more is a mistake, and every time built on it stays far from an overflow.
    (!text.is_empty() && total_ms <= 315_360_000_000.0).then_some(total_ms as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, ms) in [
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("1m30s", Some(90_000)),
            ("1h", Some(3_600_000)),
            ("0.5s", Some(500)),
            ("1us", Some(0)),
            ("10", None),
            ("s", None),
            ("", None),
            ("1d", None),
            ("-1s", None),
            ("1.2.3s", None),
            ("999999999999h", None),
        ] {
            assert_eq!(go_ms(text), ms, "{text}");
        }
    }
}
