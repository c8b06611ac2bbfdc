//! Answers as people and programs want them.

use std::fmt::Write;

use clap::ValueEnum;
use serde_json::Value;

/// In which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// For people
    Table,
    /// As the API has it
    Json,
    /// The same, in YAML
    Yaml,
    /// Names, a line each
    Name,
}

/// Columns of text, each as wide as it must be.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |n: usize| {
        let cells = rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count());
        cells.chain([head[n].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let padded = padded.collect::<Vec<_>>().join("  ");
        text.push_str(padded.trim_end());
        text.push('\n');
    };
    line(&mut head.iter().copied());
    for row in rows {
        line(&mut row.iter().map(String::as_str));
    }
    text
}

/// JSON in the block style of YAML. Strings are as in JSON, which YAML takes.
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    block(value, 0, &mut text);
    text
}

fn block(value: &Value, indent: usize, text: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let _ = write!(text, "{pad}{name}:");
                nested(value, indent + 2, text);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                block(item, indent + 2, &mut inner);
                let _ = write!(text, "{pad}- {}", inner.trim_start());
            }
        }
        value => {
            let _ = writeln!(text, "{pad}{value}");
        }
    }
}

fn nested(value: &Value, indent: usize, text: &mut String) {
    let is_nested = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    if is_nested {
        text.push('\n');
        block(value, indent, text);
    } else {
        let _ = writeln!(text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [vec!["web".into(), "running".into()], vec!["database".into(), "off".into()]];
        let expected = "NAME      STATE\nweb       running\ndatabase  off\n";
        assert_eq!(table(&["NAME", "STATE"], &rows), expected);
    }

    #[test]
    fn yaml_is_in_blocks() {
        let value = json!({"a": {"b": [1, {"c": "x: y", "d": []}]}, "e": null});
        let expected = "a:\n  b:\n    - 1\n    - c: \"x: y\"\n      d: []\ne: null\n";
        assert_eq!(yaml(&value), expected);
    }
}
