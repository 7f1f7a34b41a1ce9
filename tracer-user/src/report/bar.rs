//! A small bar of a series: one character a column, eight heights.

const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Widest bar in columns.
const MAX_COLUMNS: usize = 24;

/// The series from its lowest (▁) to its highest value (█). A longer one is summed up in columns by mean.
pub fn range_bar(values: &[u64]) -> String {
    let columns = columns(values, |part| part.iter().map(|value| *value as f64).sum::<f64>() / part.len() as f64);
    let low = columns.iter().copied().fold(f64::INFINITY, f64::min);
    bar(&columns, low)
}

/// Amounts from nothing (blank) to the highest; a longer series is summed up in columns.
pub fn amount_bar(amounts: &[u64]) -> String {
    let columns = columns(amounts, |part| part.iter().map(|value| *value as f64).sum());
    let blank = |(value, drawn): (&f64, char)| if *value > 0.0 { drawn } else { ' ' };
    columns.iter().zip(bar(&columns, 0.0).chars()).map(blank).collect()
}

fn columns(values: &[u64], sum: impl Fn(&[u64]) -> f64) -> Vec<f64> {
    let n = values.len().min(MAX_COLUMNS);
    (0..n).map(|at| sum(&values[at * values.len() / n..(at + 1) * values.len() / n])).collect()
}

fn bar(columns: &[f64], low: f64) -> String {
    let high = columns.iter().copied().fold(low, f64::max);
    let height = |value: &f64| {
        let share = if high > low { (value - low) / (high - low) } else { 0.0 };
        HEIGHTS[((share * 8.0) as usize).min(7)]
    };
    columns.iter().map(height).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_is_low_and_the_highest_is_high() {
        assert_eq!(range_bar(&[100, 101, 102, 103, 104, 105, 106, 107]), "▁▂▃▄▅▆▇█");
        assert_eq!(range_bar(&[5, 5, 5]), "▁▁▁");
        assert_eq!(range_bar(&[u64::MAX, 0]), "█▁");
        assert_eq!(range_bar(&[]), "");
    }

    #[test]
    fn a_long_series_keeps_its_form() {
        let bar = range_bar(&(0..1000).collect::<Vec<_>>());
        assert_eq!(bar.chars().count(), 24);
        assert!(bar.starts_with('▁') && bar.ends_with('█'), "{bar}");
    }

    #[test]
    fn no_amount_is_no_bar() {
        assert_eq!(amount_bar(&[0, 1, 8, 0]), " ▂█ ");
        assert_eq!(amount_bar(&[0, 0]), "  ");
    }
}
