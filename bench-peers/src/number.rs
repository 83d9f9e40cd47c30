//! Numbers as people read them, and the middle of many.

/// With commas between thousands.
pub fn whole(number: f64) -> String {
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
pub fn short(number: f64) -> String {
    if number < 0.05 {
        String::from("0")
    } else if number < 10.0 {
        format!("{number:.1}")
    } else {
        whole(number)
    }
}

/// How many times as much, or `-` where there is nothing to compare with.
pub fn ratio(number: f64) -> String {
    if number.is_finite() {
        format!("{}x", short(number))
    } else {
        String::from("-")
    }
}

/// The middle of some figures; not a number if there are none.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}

/// For each column, the middle of it over all rows.
pub fn medians<const N: usize>(rows: &[[f64; N]]) -> [f64; N] {
    std::array::from_fn(|column| median(rows.iter().map(|row| row[column])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated_and_small_numbers_keep_a_decimal() {
        assert_eq!(["999", "1,000", "1,234,567"], [whole(999.0), whole(1000.0), whole(1_234_567.0)]);
        assert_eq!(["0", "0.1", "9.9", "10"], [short(0.04), short(0.06), short(9.94), short(10.4)]);
        assert_eq!(["2.0x", "-"], [ratio(2.0), ratio(f64::NAN)]);
    }

    #[test]
    fn one_figure_far_out_does_not_move_the_median() {
        assert_eq!([2.0, 20.0], medians(&[[1.0, 20.0], [2.0, 1e9], [1e9, 10.0]]));
        assert!(median([]).is_nan());
    }
}
