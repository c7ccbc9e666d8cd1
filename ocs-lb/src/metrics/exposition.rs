//! The Prometheus text format, version 0.0.4: families of samples to text.
//!
//! Our own, because the values exist already: `prometheus-client` writes
//! OpenMetrics, whose counters `promtool check metrics` reads as untyped, and
//! the other libraries want to own each counter in a registry.

use std::fmt::Write as _;

use crate::snapshot::DurationsView;

/// The content type of what [`Exposition::finish`] returns.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Name and value of one label.
pub type Label<'a> = (&'a str, &'a str);

/// A text under construction. Each family is opened once, then filled.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    family: &'static str,
}

impl Exposition {
    /// Opens a family of counters; `name` ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.open(name, "counter", help)
    }

    /// Opens a family of gauges.
    pub fn gauge(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.open(name, "gauge", help)
    }

    /// Opens a family of histograms; see [`Exposition::durations`].
    pub fn histogram(&mut self, name: &'static str, help: &str) -> &mut Self {
        self.open(name, "histogram", help)
    }

    /// Adds a whole number to the open family.
    pub fn count(&mut self, labels: &[Label<'_>], value: u64) {
        self.sample("", labels, value);
    }

    /// Adds a real number to the open family.
    pub fn real(&mut self, labels: &[Label<'_>], value: f64) {
        self.sample("", labels, value);
    }

    /// Adds one histogram of seconds to the open family.
    pub fn durations(&mut self, labels: &[Label<'_>], durations: &DurationsView) {
        let mut with_bound: Vec<Label<'_>> = labels.to_vec();
        with_bound.push(("le", ""));
        let last = with_bound.len() - 1;
        let mut total = 0;
        for (bound, count) in DurationsView::BOUNDS.iter().zip(&durations.counts) {
            total += count;
            let bound = bound.to_string();
            let mut labels = with_bound.clone();
            if let Some(label) = labels.get_mut(last) {
                label.1 = &bound;
            }
            self.sample("_bucket", &labels, total);
        }
        total += durations.above;
        if let Some(label) = with_bound.get_mut(last) {
            label.1 = "+Inf";
        }
        self.sample("_bucket", &with_bound, total);
        self.sample("_sum", labels, durations.sum);
        self.sample("_count", labels, total);
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }

    fn open(&mut self, name: &'static str, kind: &str, help: &str) -> &mut Self {
        self.family = name;
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self
    }

    fn sample(&mut self, suffix: &str, labels: &[Label<'_>], value: impl std::fmt::Display) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        for (index, (name, value)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn label_values_are_escaped() {
        let mut text = Exposition::default();
        text.gauge("x", "one\nline \\ here")
            .count(&[("a", "q\"b\\n\nl"), ("b", "ü")], 7);
        assert_eq!(
            text.finish(),
            "# HELP x one\\nline \\\\ here\n# TYPE x gauge\nx{a=\"q\\\"b\\\\n\\nl\",b=\"ü\"} 7\n"
        );
    }

    #[test]
    fn histograms_accumulate() {
        let mut durations = DurationsView::default();
        for millis in [1, 40, 9000] {
            durations.observe(Duration::from_millis(millis));
        }
        let mut text = Exposition::default();
        text.histogram("d", "D.")
            .durations(&[("c", "x")], &durations);
        let text = text.finish();
        for line in [
            "d_bucket{c=\"x\",le=\"0.0005\"} 0",
            "d_bucket{c=\"x\",le=\"0.001\"} 1",
            "d_bucket{c=\"x\",le=\"0.05\"} 2",
            "d_bucket{c=\"x\",le=\"5\"} 2",
            "d_bucket{c=\"x\",le=\"+Inf\"} 3",
            "d_sum{c=\"x\"} 9.041",
            "d_count{c=\"x\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
    }
}
