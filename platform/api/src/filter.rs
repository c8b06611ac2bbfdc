//! The language of `filter`: `status.phase=running and (spec.cpus>2 or name~web)`.
//!
//! ```text
//! or    = and { "or" and }
//! and   = term { "and" term }
//! term  = "(" or ")" | "not" term | field op value
//! op    = "=" | "!=" | "<" | ">" | "~" (has in it)
//! value = a word, or anything in double quotes
//! ```
//!
//! A field is where something is in the object's JSON, its parts joined by dots. A field that is not there equals
//! nothing and has nothing in it.

use std::cmp::Ordering;

use serde_json::Value;

/// A longer one is no question of a person.
const LEN_MAX: usize = 1000;
/// Parentheses in parentheses: each takes a part of the stack.
const DEPTH_MAX: usize = 16;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Filter {
    And(Vec<Filter>),
    Or(Vec<Filter>),
    Not(Box<Filter>),
    Is { field: String, op: Op, value: String },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Equal,
    Differs,
    Less,
    More,
    Has,
}

/// What stands at a field.
pub(crate) fn at<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    field.split('.').try_fold(object, |object, part| object.get(part))
}

/// The order of two values: numbers as such, all else as text.
pub(crate) fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a.and_then(Value::as_f64), b.and_then(Value::as_f64)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.map(text).cmp(&b.map(text)),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

impl Filter {
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > LEN_MAX {
            return Err(format!("a filter has at most {LEN_MAX} bytes"));
        }
        let mut tokens = Tokens { rest: text, depth: 0 };
        let filter = tokens.or()?;
        match tokens.rest.trim_start() {
            "" => Ok(filter),
            rest => Err(format!("'{rest}' is too much: join with and, or")),
        }
    }

    pub fn matches(&self, object: &Value) -> bool {
        match self {
            Self::And(all) => all.iter().all(|filter| filter.matches(object)),
            Self::Or(any) => any.iter().any(|filter| filter.matches(object)),
            Self::Not(filter) => !filter.matches(object),
            Self::Is { field, op, value } => {
                let found = at(object, field);
                let number = value.parse::<f64>().ok().map(Value::from);
                let wanted = number.unwrap_or_else(|| Value::from(value.as_str()));
                match op {
                    Op::Equal => found.is_some_and(|found| text(found) == *value),
                    Op::Differs => found.is_none_or(|found| text(found) != *value),
                    Op::Less => found.is_some() && compare(found, Some(&wanted)).is_lt(),
                    Op::More => found.is_some() && compare(found, Some(&wanted)).is_gt(),
                    Op::Has => found.is_some_and(|found| text(found).contains(value)),
                }
            }
        }
    }
}

struct Tokens<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Tokens<'a> {
    fn or(&mut self) -> Result<Filter, String> {
        let mut any = vec![self.and()?];
        while self.word("or") {
            any.push(self.and()?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Filter::Or(any) })
    }

    fn and(&mut self) -> Result<Filter, String> {
        let mut all = vec![self.term()?];
        while self.word("and") {
            all.push(self.term()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Filter::And(all) })
    }

    fn term(&mut self) -> Result<Filter, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(format!("more than {DEPTH_MAX} parentheses and nots in each other"));
        }
        let filter = if self.sign("(") {
            let filter = self.or()?;
            if !self.sign(")") {
                return Err("a ')' is missing".to_owned());
            }
            filter
        } else if self.word("not") {
            Filter::Not(Box::new(self.term()?))
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn comparison(&mut self) -> Result<Filter, String> {
        let is_field = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let field = self.take(is_field);
        if field.is_empty() {
            return Err(format!("'{}' is no field, as in status.phase=running", self.rest));
        }
        let ops = [
            ("!=", Op::Differs),
            ("=", Op::Equal),
            ("<", Op::Less),
            (">", Op::More),
            ("~", Op::Has),
        ];
        let op = ops.iter().find(|(sign, _)| self.sign(sign)).map(|(_, op)| *op);
        let op = op.ok_or_else(|| format!("after {field} comes =, !=, <, > or ~"))?;
        let value = if self.sign("\"") {
            let (value, rest) = self.rest.split_once('"').ok_or("a '\"' is missing")?;
            self.rest = rest;
            value
        } else {
            self.take(|c| !c.is_whitespace() && !"()\"".contains(c))
        };
        Ok(Filter::Is { field: field.to_owned(), op, value: value.to_owned() })
    }

    fn take(&mut self, is_part: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest.trim_start();
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (taken, rest) = rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn sign(&mut self, sign: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn word(&mut self, word: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(word);
        let rest = rest.filter(|rest| rest.starts_with(|c: char| c.is_whitespace() || c == '('));
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(filter: &str) -> bool {
        let object = json!({"name": "web 1", "spec": {"cpus": 10}, "status": {"phase": "running"}});
        Filter::parse(filter).unwrap().matches(&object)
    }

    #[test]
    fn comparisons_are_of_numbers_and_of_text() {
        for good in [
            "status.phase=running",
            "status.phase != stopped",
            "spec.cpus>9",
            "spec.cpus<11 and name~web",
            "name=\"web 1\"",
            "spec.missing!=1",
            "not spec.missing=1",
        ] {
            assert!(matches(good), "{good}");
        }
        for bad in ["spec.cpus>10", "name=web", "spec.missing<1", "spec.missing~a", "not name~web"]
        {
            assert!(!matches(bad), "{bad}");
        }
    }

    #[test]
    fn and_binds_closer_than_or() {
        assert!(matches("name=x and name=y or spec.cpus=10"));
        assert!(!matches("name=x and (name=y or spec.cpus=10)"));
        assert!(matches("spec.cpus=10 or name=x and name=y"));
    }

    #[test]
    fn what_is_wrong_is_said_and_never_panics() {
        let deep = "(".repeat(400);
        for bad in ["", "name", "name=1 2", "(name=1", "name=\"", "=1", "and", "ü=1", &deep] {
            assert!(Filter::parse(bad).is_err(), "{bad}");
        }
        assert!(Filter::parse(&"x".repeat(LEN_MAX + 1)).is_err());
    }
}
