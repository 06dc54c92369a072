//! What a plain (unquoted) YAML scalar means to Kubernetes: YAML 1.2 plus the 1.1 truth values that
//! `kubectl` still reads. Quoted scalars are strings and never come here.

/// The meaning of a plain scalar.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Plain {
    /// `null`, `~` or nothing.
    Null,
    /// `true`, `false`, `yes`, `no`, `on`, `off`.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A whole number beyond `i64::MAX`.
    Big(u64),
    /// Any other number.
    Float(f64),
    /// A number that readers of YAML disagree about: `0755`, `1_000`.
    Ambiguous,
    /// Anything else.
    Text,
}

/// Resolves a plain scalar.
pub(crate) fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Plain::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => {
            return Plain::Bool(true);
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => {
            return Plain::Bool(false);
        }
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => {
            return Plain::Float(f64::INFINITY);
        }
        "-.inf" | "-.Inf" | "-.INF" => return Plain::Float(f64::NEG_INFINITY),
        ".nan" | ".NaN" | ".NAN" => return Plain::Float(f64::NAN),
        _ => {}
    }
    if text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        number(text)
    } else {
        Plain::Text
    }
}

fn number(text: &str) -> Plain {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if let Some(rest) = digits.strip_prefix(prefix) {
            if rest.is_empty() || !rest.chars().all(|c| c.is_digit(radix)) {
                return Plain::Text;
            }
            return i64::from_str_radix(rest, radix).map_or(Plain::Ambiguous, |n| {
                Plain::Int(if text.starts_with('-') { -n } else { n })
            });
        }
    }
    if digits.bytes().all(|c| c.is_ascii_digit()) && !digits.is_empty() {
        if digits.len() > 1 && digits.starts_with('0') {
            return Plain::Ambiguous;
        }
        if let Ok(n) = text.parse() {
            return Plain::Int(n);
        }
        return text.parse().map_or_else(
            |_| Plain::Float(text.parse().unwrap_or(f64::NAN)),
            Plain::Big,
        );
    }
    if digits.bytes().all(|c| c.is_ascii_digit() || c == b'_')
        && digits.starts_with(|c: char| c.is_ascii_digit())
    {
        return Plain::Ambiguous;
    }
    let float = |c: u8| c.is_ascii_digit() || matches!(c, b'.' | b'e' | b'E' | b'+' | b'-');
    if digits.bytes().all(float)
        && let Ok(n) = text.parse()
    {
        return Plain::Float(n);
    }
    Plain::Text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_mean_what_kubernetes_reads() {
        for (text, meaning) in [
            ("", Plain::Null),
            ("~", Plain::Null),
            ("null", Plain::Null),
            ("nul", Plain::Text),
            ("yes", Plain::Bool(true)),
            ("Off", Plain::Bool(false)),
            ("y", Plain::Text),
            ("80", Plain::Int(80)),
            ("-1", Plain::Int(-1)),
            ("+1", Plain::Int(1)),
            ("0", Plain::Int(0)),
            ("0x1F", Plain::Int(31)),
            ("-0x1F", Plain::Int(-31)),
            ("0o17", Plain::Int(15)),
            ("0755", Plain::Ambiguous),
            ("1_000", Plain::Ambiguous),
            ("18446744073709551615", Plain::Big(u64::MAX)),
            ("99999999999999999999", Plain::Float(1e20)),
            ("1.10", Plain::Float(1.1)),
            ("1e3", Plain::Float(1000.0)),
            (".5", Plain::Float(0.5)),
            (".", Plain::Text),
            ("-", Plain::Text),
            ("1.2.3", Plain::Text),
            ("10s", Plain::Text),
            ("2024-01-02", Plain::Text),
            ("12:30", Plain::Text),
            ("0xzz", Plain::Text),
            ("inf", Plain::Text),
            ("-inf", Plain::Text),
            ("-.inf", Plain::Float(f64::NEG_INFINITY)),
        ] {
            assert_eq!(resolve(text), meaning, "{text}");
        }
    }
}
