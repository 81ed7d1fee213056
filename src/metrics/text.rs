//! Prometheus' text format, 0.0.4.

use std::fmt::{Display, Write as _};

use super::cells::Histogram;
use super::family::{Family, Kind};

/// What a scrape answers.
#[derive(Debug, Default)]
pub(super) struct Text(String);

/// The numbers of one metric.
pub(super) struct Samples<'a> {
    out: &'a mut String,
    family: &'static Family,
}

impl Text {
    /// Begins a metric. Its head is written also if no numbers follow, so that
    /// what there is to see does not depend on what has happened.
    pub(super) fn family(&mut self, family: &'static Family) -> Samples<'_> {
        let Family { name, help, .. } = family;
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        };
        line(
            &mut self.0,
            format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"),
        );
        Samples {
            out: &mut self.0,
            family,
        }
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

impl Samples<'_> {
    /// A number; `values` are those of the labels, in their order.
    pub(super) fn value(&mut self, values: &[&str], value: impl Display) -> &mut Self {
        self.sample("", values, None, value);
        self
    }

    /// A histogram.
    #[expect(
        clippy::cast_precision_loss,
        reason = "bounds are round and small; sums lose what no graph shows"
    )]
    pub(super) fn histogram(&mut self, values: &[&str], histogram: &Histogram) -> &mut Self {
        let scale = histogram.scale();
        let counts = histogram.counts();
        let mut total = 0;
        for (bound, count) in scale.bounds.iter().zip(&counts) {
            total += count;
            let bound = (*bound as f64 / scale.per_unit).to_string();
            self.sample("_bucket", values, Some(&bound), total);
        }
        total += counts.last().copied().unwrap_or_default();
        self.sample("_bucket", values, Some("+Inf"), total);
        let sum = histogram.sum() as f64 / scale.per_unit;
        self.sample("_sum", values, None, sum);
        self.sample("_count", values, None, total);
        self
    }

    fn sample(&mut self, suffix: &str, values: &[&str], le: Option<&str>, value: impl Display) {
        debug_assert_eq!(values.len(), self.family.labels.len());
        self.out.push_str(self.family.name);
        self.out.push_str(suffix);
        let labels = self
            .family
            .labels
            .iter()
            .copied()
            .zip(values.iter().copied());
        let mut before = '{';
        for (name, value) in labels.chain(le.map(|le| ("le", le))) {
            self.out.push(before);
            before = ',';
            self.out.push_str(name);
            self.out.push_str("=\"");
            for c in value.chars() {
                match c {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    c => self.out.push(c),
                }
            }
            self.out.push('"');
        }
        if before == ',' {
            self.out.push('}');
        }
        line(self.out, format_args!(" {value}"));
    }
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes all");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::family::{BATCH_WAIT, GATEWAYS, MESSAGES};
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_all_of_it() {
        let waits = Histogram::new(&BATCH_WAIT);
        waits.record_time(Duration::from_micros(500));
        waits.record_time(Duration::from_millis(15));
        waits.record_time(Duration::from_mins(1));
        let mut text = Text::default();
        text.family(&BATCH_WAIT).histogram(&["ack"], &waits);
        let text = text.finish();
        for line in [
            "# TYPE postrider_batch_wait_seconds histogram",
            "postrider_batch_wait_seconds_bucket{verb=\"ack\",le=\"0.0005\"} 1",
            "postrider_batch_wait_seconds_bucket{verb=\"ack\",le=\"0.01\"} 1",
            "postrider_batch_wait_seconds_bucket{verb=\"ack\",le=\"0.02\"} 2",
            "postrider_batch_wait_seconds_bucket{verb=\"ack\",le=\"30\"} 2",
            "postrider_batch_wait_seconds_bucket{verb=\"ack\",le=\"+Inf\"} 3",
            "postrider_batch_wait_seconds_sum{verb=\"ack\"} 60.0155",
            "postrider_batch_wait_seconds_count{verb=\"ack\"} 3",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
    }

    #[test]
    fn labels_cannot_break_out() {
        let mut text = Text::default();
        text.family(&GATEWAYS).value(&[], 2);
        text.family(&MESSAGES).value(&["a\"b\\c\nd", "ready"], 7);
        let text = text.finish();
        assert!(text.contains("\npostrider_gateways 2\n"), "{text}");
        let line = r#"postrider_queue_messages{queue="a\"b\\c\nd",state="ready"} 7"#;
        assert!(text.lines().any(|l| l == line), "{text}");
    }
}
