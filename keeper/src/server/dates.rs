//! Points in time as ZooKeeper writes them, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// As `2026-11-21 06:12 UTC`.
pub(super) fn minute(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    format!("{} {} UTC", &text[..10], &text[11..16])
}

/// As `Sat Nov 21 06:12:20 UTC 2026`.
pub(super) fn second(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    let days = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    let weekday = WEEKDAYS[usize::try_from(days % 7).unwrap_or_default()];
    let month = text[5..7].parse().ok().and_then(|month: usize| MONTHS.get(month.wrapping_sub(1)));
    format!(
        "{weekday} {} {} {} UTC {}",
        month.copied().unwrap_or_default(),
        &text[8..10],
        &text[11..19],
        &text[..4]
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_look_like_zookeepers() {
        let time = UNIX_EPOCH + Duration::from_secs(1_795_241_540);
        assert_eq!(minute(time), "2026-11-21 06:12 UTC");
        assert_eq!(second(time), "Sat Nov 21 06:12:20 UTC 2026");
    }
}
