//! Latencies in a few rows, each of which is wider than the one before by about the same factor.

use hdrhistogram::Histogram;

/// Most rows. Fewer are enough for latencies that are alike.
const ROWS: usize = 14;

/// Longest bar.
const BAR: usize = 40;

/// Upper bounds within a decade, as hundredths of it, from the finest division to the coarsest.
const DIVISIONS: [&[u64]; 5] = [
    &[100, 125, 160, 200, 250, 315, 400, 500, 630, 800],
    &[100, 160, 250, 400, 630],
    &[100, 200, 500],
    &[100, 315],
    &[100],
];

/// A row: how many operations took at most this long, and longer than the row before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bucket {
    pub(super) upper_us: u64,
    pub(super) count: u64,
}

impl Bucket {
    #[expect(clippy::cast_precision_loss, reason = "a bound has three digits")]
    pub(super) fn upper_ms(self) -> f64 {
        self.upper_us as f64 / 1000.0
    }
}

/// All latencies in microseconds, from the shortest to the longest, in the finest division that takes few enough rows.
pub(super) fn buckets(latencies: &Histogram<u64>) -> Vec<Bucket> {
    if latencies.is_empty() {
        return Vec::new();
    }
    let (min, max) = (latencies.min(), latencies.max());
    // The last has nine for all that a histogram can hold.
    let last = DIVISIONS.len() - 1;
    let divided = DIVISIONS.iter().map(|division| bounds(division, min, max)).enumerate();
    let bounds =
        divided.skip_while(|(i, bounds)| bounds.len() > ROWS && *i < last).map(|(_, bounds)| bounds).next();
    let bounds = bounds.unwrap_or_default();
    let mut buckets: Vec<_> = bounds.into_iter().map(|upper_us| Bucket { upper_us, count: 0 }).collect();
    for recorded in latencies.iter_recorded() {
        // What was recorded stands for values that are equal to three digits, and none is above the longest.
        let us = recorded.value_iterated_to().min(max);
        let row = buckets.partition_point(|bucket| bucket.upper_us < us);
        if let Some(bucket) = buckets.get_mut(row) {
            bucket.count += recorded.count_since_last_iteration();
        }
    }
    buckets
}

/// Bounds from the first that is not below `min` to the first that is not below `max`.
fn bounds(division: &[u64], min: u64, max: u64) -> Vec<u64> {
    let decades = std::iter::successors(Some(1_u64), |decade| decade.checked_mul(10));
    // A bound that is no whole microsecond is rounded up, and stands there once.
    let mut all: Vec<u64> = Vec::new();
    for bound in
        decades.flat_map(|decade| division.iter().map(move |part| decade.saturating_mul(*part).div_ceil(100)))
    {
        if bound >= min && all.last() != Some(&bound) {
            all.push(bound);
        }
        if bound >= max {
            break;
        }
    }
    all
}

/// Each row as text: its bound, its count, the percentage of all that took at most as long, and a bar.
pub(super) fn rows(buckets: &[Bucket]) -> Vec<[String; 4]> {
    let total: u64 = buckets.iter().map(|bucket| bucket.count).sum();
    let most = buckets.iter().map(|bucket| bucket.count).max().unwrap_or_default();
    let mut sum = 0;
    let row = |bucket: &Bucket| {
        sum += bucket.count;
        [
            bucket.upper_ms().to_string(),
            bucket.count.to_string(),
            percent(sum, total),
            bar(bucket.count, most),
        ]
    };
    buckets.iter().map(row).collect()
}

/// Rounded down, so that only all of them are 100 %.
fn percent(part: u64, whole: u64) -> String {
    let thousandths = u128::from(part) * 100_000 / u128::from(whole.max(1));
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

/// A bar in eighths of a character. What is there at all is seen.
fn bar(count: u64, most: u64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = u128::from(count) * (BAR as u128) * 8 / u128::from(most.max(1));
    let eighths = usize::try_from(eighths).unwrap_or(BAR * 8).max(usize::from(count > 0));
    format!("{}{}", "█".repeat(eighths / 8), PARTS[eighths % 8])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn histogram(values: impl IntoIterator<Item = (u64, u64)>) -> Histogram<u64> {
        let mut histogram = Histogram::new_with_bounds(1, 60_000_000, 3).unwrap();
        values.into_iter().for_each(|(us, count)| histogram.record_n(us, count).unwrap());
        histogram
    }

    #[test]
    fn rows_show_bounds_counts_shares_and_bars() {
        let histogram = histogram([(330, 5), (480, 500), (700, 900), (1_900, 80), (24_000, 1)]);
        let rows = rows(&buckets(&histogram));
        let text: Vec<String> = rows.iter().map(|row| row.join(" ").trim_end().to_owned()).collect();
        expect![[r"
            0.4 5 0.336 ▏
            0.63 500 33.983 ██████████████████████▏
            1 900 94.549 ████████████████████████████████████████
            1.6 0 94.549
            2.5 80 99.932 ███▌
            4 0 99.932
            6.3 0 99.932
            10 0 99.932
            16 0 99.932
            25 1 100.000 ▏"]]
        .assert_eq(&text.join("\n"));
    }

    #[test]
    fn few_rows_hold_every_latency_whatever_their_range() {
        for (min, max) in [(1, 1), (1, 60_000_000), (90, 110), (1, 9), (999, 1_001), (350, 1_500_000)] {
            let histogram = histogram([(min, 1), (max, 2)]);
            let buckets = buckets(&histogram);
            assert!((1..=ROWS).contains(&buckets.len()), "{min}-{max}: {buckets:?}");
            assert_eq!(buckets.iter().map(|bucket| bucket.count).sum::<u64>(), 3, "{buckets:?}");
            assert!(buckets.windows(2).all(|pair| pair[0].upper_us < pair[1].upper_us), "{buckets:?}");
            let last = buckets.last().unwrap();
            assert!(last.upper_us >= max && last.count > 0, "{buckets:?}");
            assert!(buckets[0].count > 0, "{buckets:?}");
        }
        assert_eq!(buckets(&histogram([])), []);
    }
}
