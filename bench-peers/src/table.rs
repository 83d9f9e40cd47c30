//! The figures as one Markdown table.

use std::fmt::Write;

use crate::peers::{self, OURS};
use crate::suite::Figure;
use crate::workload::Workload;

/// The table: a group for each workload, the cheapest peer of it first, and who cannot do it.
pub fn render(figures: &[Figure]) -> String {
    let mut table = String::from(
        "| workload | peer | instructions | to ours | allocations | median ns | to ours |\n\
         |---|---|--:|--:|--:|--:|--:|\n",
    );
    for workload in Workload::ALL {
        let mut group: Vec<_> = figures.iter().filter(|figure| figure.workload == workload).collect();
        group.sort_by(|left, right| left.instructions.total_cmp(&right.instructions));
        let ours = group.iter().find(|figure| figure.peer == OURS);
        for (row, figure) in group.iter().enumerate() {
            let title = if row == 0 { format!("{} ", workload.name()) } else { String::new() };
            let peer = if figure.peer == OURS { format!("**{OURS}**") } else { figure.peer.to_owned() };
            let to_ours = |own: f64, of: fn(&Figure) -> f64| ours.map_or(f64::NAN, |ours| own / of(ours));
            let _ = writeln!(
                table,
                "| {title}| {peer} | {} | {} | {} | {} | {} |",
                whole(figure.instructions),
                ratio(to_ours(figure.instructions, |ours| ours.instructions)),
                short(figure.allocations),
                short(figure.nanoseconds),
                ratio(to_ours(figure.nanoseconds, |ours| ours.nanoseconds)),
            );
        }
        let cannot: Vec<_> = peers::ALL
            .iter()
            .map(|peer| peer.name)
            .filter(|&name| group.iter().all(|figure| figure.peer != name))
            .collect();
        if !cannot.is_empty() {
            let _ = writeln!(table, "| | {} | - | - | - | - | - |", cannot.join(", "));
        }
    }
    table
}

/// With commas between thousands.
fn whole(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Small numbers with a decimal, large ones without.
fn short(number: f64) -> String {
    if number < 0.05 {
        String::from("0")
    } else if number < 10.0 {
        format!("{number:.1}")
    } else {
        whole(number)
    }
}

fn ratio(number: f64) -> String {
    if number.is_finite() {
        format!("{}x", short(number))
    } else {
        String::from("-")
    }
}
