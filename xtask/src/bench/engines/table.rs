//! Tables of figures, in Markdown.

use std::collections::BTreeMap;

use basket::Timing;

use super::BOOT;

/// What one machine showed.
pub struct Column {
    /// The machine.
    pub name: &'static str,
    /// By row.
    pub rows: BTreeMap<String, Timing>,
}

/// Rows with a common aim for the engine `full`.
struct Area {
    name: &'static str,
    rows: &'static [&'static str],
    /// How many times faster than TCG.
    against_tcg: f64,
    /// How many times as long as natively, at most.
    against_native: Option<f64>,
}

const fn area(
    name: &'static str,
    rows: &'static [&'static str],
    against_tcg: f64,
    against_native: f64,
) -> Area {
    Area { name, rows, against_tcg, against_native: Some(against_native) }
}

const AREAS: &[Area] = &[
    Area { name: "boot to user space", rows: &[BOOT], against_tcg: 4.0, against_native: None },
    area(
        "integers",
        &["intmix", "sha256", "call", "bytecode", "qsort", "malloc", "hash", "strings"],
        4.0,
        2.0,
    ),
    area(
        "CPython",
        &[
            "python_fib",
            "python_dict",
            "python_float",
            "python_sort",
            "python_objects",
            "python_strings",
        ],
        7.0,
        3.0,
    ),
    area("scalar float, x87", &["nbody", "x87"], 20.0, 1.3),
    area(
        "SSE and AVX, copies, streams",
        &["sse2", "avx2", "memcpy", "rep_movsb", "rep_stosq", "triad"],
        15.0,
        1.6,
    ),
    area("pointer chase in L1", &["chase_16k"], 1.5, 2.1),
    area("pointer chase in L2", &["chase_1m"], 6.0, 1.4),
    area("pointer chase in memory", &["chase_32m"], 1.5, 1.2),
    area("system call", &["getppid"], 4.0, 1.3),
    area("page fault", &["page_fault"], 5.0, 1.3),
    area("map, touch, unmap", &["map_touch_unmap"], 15.0, 2.0),
    area("pipe round trip", &["pipe"], 10.0, 3.0),
    area("fork", &["fork"], 8.0, 2.2),
    area("fork and exec", &["fork_exec"], 3.0, 1.3),
    area("files in memory", &["files"], 6.0, 2.2),
];

/// The order of rows: boot, then those of the areas, then the others.
fn order(columns: &[Column]) -> Vec<&str> {
    let mut names: Vec<&str> = AREAS.iter().flat_map(|area| area.rows).copied().collect();
    for name in columns.iter().flat_map(|column| column.rows.keys()) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.retain(|name| columns.iter().any(|column| column.rows.contains_key(*name)));
    names
}

/// Prints figures for each row, then geometric means for each area.
pub fn print(columns: &[Column]) {
    println!("Time an operation: smallest, and median in brackets.\n");
    println!("| row |{}", columns.iter().map(|c| format!(" {} |", c.name)).collect::<String>());
    println!("| --- |{}", " ---: |".repeat(columns.len()));
    for row in order(columns) {
        let cells = columns.iter().map(|column| match column.rows.get(row) {
            Some(time) => format!(" {} ({}) |", show(time.smallest_ns), show(time.median_ns)),
            None => " |".to_owned(),
        });
        println!("| {row} |{}", cells.collect::<String>());
    }
    let find = |name: &str| columns.iter().find(|column| column.name == name);
    let (native, tcg) = (find("native"), find("TCG"));
    let others: Vec<&Column> =
        columns.iter().filter(|c| !["native", "TCG"].contains(&c.name)).collect();
    println!(
        "\nGeometric means of smallest times: how many times as long as natively, and how many"
    );
    println!("times faster than TCG. The goals are those of `full`.\n");
    let heads = |column: &&Column| format!(" {0} : native | TCG : {0} |", column.name);
    println!(
        "| area | TCG : native |{} goal : native | goal, TCG : |",
        others.iter().map(heads).collect::<String>()
    );
    println!("| --- | ---: |{} ---: | ---: |", " ---: | ---: |".repeat(others.len()));
    for area in AREAS {
        let ratio = |a: Option<&Column>, b: Option<&Column>| {
            let ratio = a.zip(b).and_then(|(a, b)| mean_ratio(a, b, area.rows));
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}"))
        };
        let cells = others.iter().map(|column| {
            format!(" {} | {} |", ratio(Some(column), native), ratio(tcg, Some(column)))
        });
        println!(
            "| {} | {} |{} {} | {} |",
            area.name,
            ratio(tcg, native),
            cells.collect::<String>(),
            area.against_native.map_or_else(String::new, |goal| goal.to_string()),
            area.against_tcg
        );
    }
}

/// The geometric mean of `a`'s times in `b`'s, of the rows that both have.
fn mean_ratio(a: &Column, b: &Column, rows: &[&str]) -> Option<f64> {
    let ratio = |row: &&str| Some(a.rows.get(*row)?.smallest_ns / b.rows.get(*row)?.smallest_ns);
    let logs: Vec<f64> = rows.iter().filter_map(ratio).map(f64::ln).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

/// Three digits and a unit.
fn show(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 1e3 => (ns, "ns"),
        ns if ns < 1e6 => (ns / 1e3, "µs"),
        ns if ns < 1e9 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &'static str, times: &[(&str, f64)]) -> Column {
        let timing = |ns: f64| Timing { smallest_ns: ns, median_ns: ns };
        let rows = times.iter().map(|(row, ns)| ((*row).to_owned(), timing(*ns))).collect();
        Column { name, rows }
    }

    #[test]
    fn means_are_geometric_and_of_rows_that_both_have() {
        let a = column("a", &[("x", 2.0), ("y", 32.0), ("z", 5.0)]);
        let b = column("b", &[("x", 1.0), ("y", 4.0)]);
        let mean = mean_ratio(&a, &b, &["x", "y", "z", "w"]).unwrap();
        assert!((mean - 4.0).abs() < 1e-9);
        assert_eq!(mean_ratio(&a, &b, &["z"]), None);
    }

    #[test]
    fn times_have_three_digits() {
        assert_eq!(show(1.234), "1.23 ns");
        assert_eq!(show(45_600.0), "45.6 µs");
        assert_eq!(show(2.5e9), "2.50 s");
        assert_eq!(show(456_000_000.0), "456 ms");
    }
}
