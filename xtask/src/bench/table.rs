//! Medians, and how they compare.

use super::measure::{Cost, Idle};
use super::sides::{OURS, RSYNC, SYNCTHING};

/// A figure of a [`Cost`].
type Figure = fn(&Cost) -> f64;

const WALL: Figure = |cost| cost.wall;
const CPU: Figure = |cost| cost.cpu;
const WIRE: Figure = |cost| (cost.links[0] + cost.links[1]) as f64 / 1e6;
const PEAKS: [Figure; 3] = [
    |cost| cost.peaks[0] as f64 / 1024.0,
    |cost| cost.peaks[1] as f64 / 1024.0,
    |cost| cost.peaks[2] as f64 / 1024.0,
];

/// Costs by case, in the order in which they came.
#[derive(Default)]
pub(super) struct Table(Vec<(String, Vec<(&'static str, Cost)>)>);

impl Table {
    pub(super) fn add(&mut self, case: &str, side: &'static str, cost: Cost) {
        match self.0.iter_mut().find(|(name, _)| name == case) {
            Some((_, costs)) => costs.push((side, cost)),
            None => self.0.push((case.to_owned(), vec![(side, cost)])),
        }
    }

    /// Empty if there was nothing to be seen.
    pub(super) fn render(&self) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let mut text = format!(
            "{:<34} {:<9} {:>8} {:>6} {:>8} {:>6} {:>9} {:>6}  {}\n",
            "case",
            "",
            "wall s",
            "ratio",
            "cpu s",
            "ratio",
            "MB wire",
            "ratio",
            "peak MiB A/server/B"
        );
        for (case, costs) in &self.0 {
            let mut case = case.as_str();
            for side in [OURS, RSYNC, SYNCTHING] {
                if costs.iter().any(|(name, _)| *name == side) {
                    text += &line(case, side, costs);
                    case = "";
                }
            }
        }
        text
    }
}

fn line(case: &str, side: &str, costs: &[(&'static str, Cost)]) -> String {
    let of = |side, figure: Figure| {
        let costs = costs.iter().filter(|(name, _)| *name == side);
        median(costs.map(|(_, cost)| figure(cost)).collect())
    };
    let ratio = |figure| {
        let ratio = of(side, figure) / of(RSYNC, figure);
        match side {
            RSYNC => String::new(),
            _ if ratio.is_nan() => String::new(),
            _ => format!("{ratio:.1}x"),
        }
    };
    let peaks = PEAKS.map(|figure| format!("{:.0}", of(side, figure)));
    format!(
        "{case:<34} {side:<9} {:>8.3} {:>6} {:>8.2} {:>6} {:>9.3} {:>6}  {}\n",
        of(side, WALL),
        ratio(WALL),
        of(side, CPU),
        ratio(CPU),
        of(side, WIRE),
        ratio(WIRE),
        peaks.join(" / ")
    )
}

/// One change at many places: what each cost, by the kind of change.
#[derive(Default)]
pub(super) struct Places(pub(super) Vec<(&'static str, Vec<Cost>)>);

impl Places {
    /// Median and worst of each figure. `new` bytes of each change belong on each link anyway.
    pub(super) fn render(&self, new: u64) -> String {
        if self.0.is_empty() {
            return String::new();
        }
        let figures: [(&str, Figure); 2] = [("wall s", WALL), ("cpu s", CPU)];
        let beyond =
            |cost: &Cost, link: usize| cost.links[link].saturating_sub(new) as f64 / 1024.0;
        let mut text = format!(
            "{:<34} {:>19} {:>19}",
            "median / worst", "A-server KiB", "server-B KiB"
        );
        for (head, _) in figures {
            text += &format!(" {head:>15}");
        }
        text.push('\n');
        for (kind, costs) in &self.0 {
            text += &format!("{kind:<34}");
            for link in [0, 1] {
                let (middle, worst) = spread(costs.iter().map(|cost| beyond(cost, link)).collect());
                text += &format!(" {:>19}", format!("{middle:.1} / {worst:.1}"));
            }
            for (_, figure) in figures {
                let (middle, worst) = spread(costs.iter().map(figure).collect());
                text += &format!(" {:>15}", format!("{middle:.2} / {worst:.2}"));
            }
            text.push('\n');
        }
        text
    }
}

/// What rest costs, a line for each process.
pub(super) fn render_idle(case: &str, idle: &Idle) -> String {
    let mut text = format!(
        "{case:<34} {:>15} {:>16}\n",
        "cpu s a minute", "largest RSS MiB"
    );
    for (role, name) in ["A", "server", "B"].into_iter().enumerate() {
        text += &format!(
            "{name:<34} {:>15.3} {:>16.1}\n",
            idle.cpu[role],
            idle.resident[role] as f64 / 1024.0
        );
    }
    text
}

fn spread(values: Vec<f64>) -> (f64, f64) {
    let worst = values.iter().copied().fold(f64::NAN, f64::max);
    (median(values), worst)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(wall: f64) -> Cost {
        Cost {
            wall,
            ..Cost::default()
        }
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
    }

    #[test]
    fn a_case_has_a_line_for_each_that_was_there_and_ratios_to_rsync() {
        let mut table = Table::default();
        assert_eq!(table.render(), "");
        table.add("a", RSYNC, took(2.0));
        table.add("a", OURS, took(5.0));
        assert_eq!(table.render().lines().count(), 3);
        table.add("a", SYNCTHING, took(8.0));
        let text = table.render();
        assert_eq!(text.lines().count(), 4);
        assert!(text.contains("2.5x") && text.contains("4.0x"), "{text}");
    }

    #[test]
    fn alone_there_is_no_ratio() {
        let mut table = Table::default();
        table.add("a", OURS, took(5.0));
        let text = table.render();
        assert_eq!(text.lines().count(), 2);
        assert!(!text.contains("0x") && !text.contains("NaN"), "{text}");
    }

    #[test]
    fn places_show_median_and_worst_beyond_what_is_new() {
        let cost = |up, down| Cost {
            links: [up, down],
            ..Cost::default()
        };
        let costs = vec![cost(1025, 2049), cost(3073, 2049), cost(2049, 4097)];
        let text = Places(vec![("changed", costs)]).render(1);
        assert!(text.contains("2.0 / 3.0"), "{text}");
        assert!(text.contains("2.0 / 4.0"), "{text}");
    }
}
