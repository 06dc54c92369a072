//! Selector expressions of Calico (specs/policies.md 2.5): `app == 'web' && !has(old)`.

use crate::snapshot::LabelExpression;

/// Calico gives it to everything that is in a namespace.
const NAMESPACE_LABEL: &str = "projectcalico.org/namespace";

/// Nesting of one expression.
const DEPTH_MAX: usize = 64;

/// Reads an expression; an empty one is everything. `Err` is the reason in words.
pub(super) fn parse(text: &str) -> Result<LabelExpression, String> {
    let mut parser = Parser {
        rest: text,
        depth: 0,
    };
    if parser.rest.trim().is_empty() {
        return Ok(LabelExpression::everything());
    }
    let expression = parser.either()?;
    match parser.rest.trim_start() {
        "" => Ok(expression),
        rest => Err(format!("'{rest}' is left over")),
    }
}

struct Parser<'t> {
    rest: &'t str,
    depth: usize,
}

impl<'t> Parser<'t> {
    /// Takes a piece of text if it comes next.
    fn take(&mut self, text: &str) -> bool {
        match self.rest.trim_start().strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes words with any space between them, if they come next and end there.
    fn words(&mut self, words: &[&str]) -> bool {
        let before = self.rest;
        let all = words.iter().all(|word| self.take(word));
        let goes_on = self.rest.starts_with(|c: char| c.is_ascii_alphanumeric());
        if !all || goes_on {
            self.rest = before;
        }
        all && !goes_on
    }

    fn either(&mut self) -> Result<LabelExpression, String> {
        let mut all = vec![self.both()?];
        while self.take("||") {
            all.push(self.both()?);
        }
        Ok(one_or(all, LabelExpression::Any))
    }

    fn both(&mut self) -> Result<LabelExpression, String> {
        let mut all = vec![self.operand()?];
        while self.take("&&") {
            all.push(self.operand()?);
        }
        Ok(one_or(all, LabelExpression::All))
    }

    fn operand(&mut self) -> Result<LabelExpression, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("it is nested too deep".to_owned());
        }
        let operand = self.shallow();
        self.depth -= 1;
        operand
    }

    fn shallow(&mut self) -> Result<LabelExpression, String> {
        if self.take("!") {
            return Ok(self.operand()?.negated());
        }
        if self.take("(") {
            let inner = self.either()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.take("all()") {
            return Ok(LabelExpression::everything());
        }
        // What is in no namespace: no pod is; a source that nobody knows may be.
        if self.take("global()") {
            return Ok(LabelExpression::Has(NAMESPACE_LABEL.into()).negated());
        }
        if self.take("has(") {
            let key = self.key()?;
            self.expect(")")?;
            return Ok(LabelExpression::Has(key.into()));
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<LabelExpression, String> {
        let key = self.key()?;
        if self.take("==") {
            return Ok(LabelExpression::equals(key, self.string()?));
        }
        if self.take("!=") {
            return Ok(LabelExpression::equals(key, self.string()?).negated());
        }
        if self.words(&["not", "in"]) {
            let values = self.set()?;
            return Ok(LabelExpression::In(key.into(), values).negated());
        }
        if self.words(&["in"]) {
            return Ok(LabelExpression::In(key.into(), self.set()?));
        }
        if self.words(&["contains"]) {
            return Ok(LabelExpression::Contains(key.into(), self.string()?.into()));
        }
        if self.words(&["starts", "with"]) {
            return Ok(LabelExpression::StartsWith(
                key.into(),
                self.string()?.into(),
            ));
        }
        if self.words(&["ends", "with"]) {
            return Ok(LabelExpression::EndsWith(key.into(), self.string()?.into()));
        }
        Err(format!("an operator is missing after '{key}'"))
    }

    fn key(&mut self) -> Result<&'t str, String> {
        let text = self.rest.trim_start();
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        let end = text.find(|c| !legal(c)).unwrap_or(text.len());
        let (key, rest) = text.split_at(end);
        if key.is_empty() {
            return Err(format!("the name of a label is missing at '{text}'"));
        }
        self.rest = rest;
        Ok(key)
    }

    fn string(&mut self) -> Result<&'t str, String> {
        let text = self.rest.trim_start();
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let quoted = quote.and_then(|quote| text.get(1..)?.split_once(quote));
        let Some((value, rest)) = quoted else {
            return Err(format!("a string in quotes is missing at '{text}'"));
        };
        self.rest = rest;
        Ok(value)
    }

    fn set(&mut self) -> Result<Vec<std::sync::Arc<str>>, String> {
        self.expect("{")?;
        let mut values = Vec::new();
        if self.take("}") {
            return Ok(values);
        }
        loop {
            values.push(self.string()?.into());
            if !self.take(",") {
                break;
            }
        }
        self.expect("}")?;
        Ok(values)
    }

    fn expect(&mut self, text: &str) -> Result<(), String> {
        match self.take(text) {
            true => Ok(()),
            false => Err(format!(
                "'{text}' is missing at '{}'",
                self.rest.trim_start()
            )),
        }
    }
}

fn one_or(
    mut all: Vec<LabelExpression>,
    several: impl Fn(Vec<LabelExpression>) -> LabelExpression,
) -> LabelExpression {
    match (all.len(), all.pop()) {
        (1, Some(one)) => one,
        (_, Some(last)) => {
            all.push(last);
            several(all)
        }
        (_, None) => several(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Label, Truth};

    fn holds(text: &str) -> Truth {
        let labels = |key: &str| match key {
            "app" => Label::Value("web"),
            "projectcalico.org/name" | "projectcalico.org/namespace" => Label::Value("shop"),
            _ => Label::Absent,
        };
        parse(text).unwrap().holds(&labels)
    }

    #[test]
    fn expressions_hold_as_calico_reads_them() {
        for text in [
            "",
            "all()",
            "app == 'web'",
            "app==\"web\"",
            "app != 'api'",
            "gone != 'x'",
            "app in {'api', 'web'}",
            "gone not in {'x'}",
            "has(app) && !has(gone)",
            "has(gone) || app == 'web' && has(app)",
            "!(app == 'api')",
            "app starts with 'w' && app ends with \"b\" && app contains 'e'",
            "projectcalico.org/name == 'shop'",
        ] {
            assert_eq!(holds(text), Truth::Yes, "{text}");
        }
        for text in [
            "app == 'api'",
            "global()",
            "!all()",
            "gone == 'x'",
            "app in {}",
        ] {
            assert_eq!(holds(text), Truth::No, "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in [
            "app",
            "app = 'web'",
            "app == web",
            "has(app",
            "app == 'web' &&",
            "app in {'a'",
            "(app == 'web'",
            "app == 'web' app",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"(".repeat(10_000)).is_err());
        assert!(parse(&"!".repeat(10_000)).is_err());
    }
}
