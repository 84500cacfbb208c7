//! Medians, and how they compare.

use super::measure::Cost;
use super::sides::{OURS, RSYNC};

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

    pub(super) fn render(&self) -> String {
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
            let of = |side, get: fn(&Cost) -> f64| {
                median(
                    costs
                        .iter()
                        .filter(|(name, _)| *name == side)
                        .map(|(_, cost)| get(cost))
                        .collect(),
                )
            };
            let gets: [fn(&Cost) -> f64; 3] = [
                |cost| cost.wall,
                |cost| cost.cpu,
                |cost| cost.bytes as f64 / 1e6,
            ];
            for side in [OURS, RSYNC] {
                let ratio = |i: usize| match side {
                    RSYNC => String::new(),
                    _ => format!("{:.1}x", of(OURS, gets[i]) / of(RSYNC, gets[i])),
                };
                let peaks: [fn(&Cost) -> f64; 3] = [
                    |cost| cost.peaks[0] as f64,
                    |cost| cost.peaks[1] as f64,
                    |cost| cost.peaks[2] as f64,
                ];
                let peaks = peaks
                    .map(|get| format!("{:.0}", of(side, get) / 1024.0))
                    .join(" / ");
                text += &format!(
                    "{:<34} {:<9} {:>8.3} {:>6} {:>8.2} {:>6} {:>9.3} {:>6}  {}\n",
                    if side == OURS { case } else { "" },
                    side,
                    of(side, gets[0]),
                    ratio(0),
                    of(side, gets[1]),
                    ratio(1),
                    of(side, gets[2]),
                    ratio(2),
                    peaks
                );
            }
        }
        text
    }
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

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 2.5);
    }

    #[test]
    fn a_case_has_two_lines_and_a_ratio() {
        let mut table = Table::default();
        table.add(
            "a",
            RSYNC,
            Cost {
                wall: 2.0,
                ..Cost::default()
            },
        );
        table.add(
            "a",
            OURS,
            Cost {
                wall: 5.0,
                ..Cost::default()
            },
        );
        let text = table.render();
        assert_eq!(text.lines().count(), 3);
        assert!(text.contains("2.5x"), "{text}");
    }
}
