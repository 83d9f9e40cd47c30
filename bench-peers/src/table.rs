//! The figures as Markdown: one table of everything, and a short one for the README.

use std::fmt::Write;

use bench_peers::number::{ratio, short, whole};
use bench_peers::peers::{self, FLOOR, FMT_JSON, OURS};
use bench_peers::workload::Workload;

use crate::suite::Figure;

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

/// What most readers want to know: ours, what nobody can avoid, the cheapest of the peers, and what most programs have.
pub fn render_short(figures: &[Figure]) -> String {
    let mut table = String::from(
        "| instructions (allocations) on the calling thread | tracing-metlog | `tracing` or `log` alone | the cheapest peer | \
         `fmt().json()` + `tracing-appender` |\n|---|--:|--:|--:|--:|\n",
    );
    for (workload, title) in SHORT {
        let of = |peer| figures.iter().find(|figure| figure.workload == workload && figure.peer == peer);
        let (Some(ours), Some(floor), Some(json)) = (of(OURS), of(FLOOR), of(FMT_JSON)) else { continue };
        let peers = figures.iter().filter(|figure| {
            figure.workload == workload && !figure.peer.starts_with(OURS) && figure.peer != FLOOR
        });
        let cheapest = peers.min_by(|left, right| left.instructions.total_cmp(&right.instructions));
        let cheapest = cheapest.map_or(String::new(), |peer| format!("{}: {}", peer.peer, cost(peer)));
        let _ = writeln!(
            table,
            "| {title} | {} | {} | {cheapest} | {}, {} |",
            cost(ours),
            cost(floor),
            cost(json),
            ratio(json.instructions / ours.instructions)
        );
    }
    table
}

const SHORT: [(Workload, &str); 4] = [
    (Workload::Event, "event with three fields"),
    (Workload::EventInSpans, "the same inside two spans"),
    (Workload::Span, "whole life of a span"),
    (Workload::Log, "formatted `log` record"),
];

fn cost(figure: &Figure) -> String {
    format!("{} ({})", whole(figure.instructions), short(figure.allocations))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_table_names_the_cheapest_peer_that_is_neither_ours_nor_the_floor() {
        let figure = |peer, instructions| Figure {
            workload: Workload::Event,
            peer,
            instructions,
            allocations: 0.0,
            nanoseconds: 1.0,
        };
        let figures = [
            figure(OURS, 700.0),
            figure("tracing-metlog, init()", 710.0),
            figure(FLOOR, 400.0),
            figure("slog", 1200.0),
            figure("spdlog", 1400.0),
            figure(FMT_JSON, 14_000.0),
        ];
        let table = render_short(&figures);
        let row = "| event with three fields | 700 (0) | 400 (0) | slog: 1,200 (0) | 14,000 (0), 20x |\n";
        assert!(table.ends_with(row), "{table}");
    }
}
