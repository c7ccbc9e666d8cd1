//! Values as the configuration writes them.

use std::time::Duration;

/// Writes a duration in the largest unit that divides it.
pub fn duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, each) in [("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        if millis > 0 && millis.is_multiple_of(each) {
            return format!("{}{unit}", millis / each);
        }
    }
    if millis == 0 {
        "0s".to_owned()
    } else {
        format!("{millis}ms")
    }
}
