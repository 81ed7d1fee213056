//! The result: a table for people, JSON for programs, a picture.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;
use svg::Document;
use svg::node::element::{Line as Stroke, Rectangle, Text};

use crate::load::Rate;
use crate::machine::Cpu;

/// Everything that a run measured.
#[derive(Serialize)]
pub(crate) struct Report {
    pub(crate) command: String,
    pub(crate) date: String,
    pub(crate) machine: String,
    pub(crate) postgres: String,
    pub(crate) lines: Vec<Line>,
}

/// A line of the table.
#[derive(Serialize)]
pub(crate) struct Line {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_ms: Option<f64>,
    /// Cores that were busy: the load generator, the server, Postgres.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cores: Option<Cpu>,
    pub(crate) targets: Vec<Target>,
    /// Requests that the gateway refused, and that were sent again.
    pub(crate) refused: u64,
    /// How many times that of Postrider's line, for one of a peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) postrider: Option<f64>,
}

/// What a value has to reach, and did.
#[derive(Serialize)]
pub(crate) struct Target {
    pub(crate) against: &'static str,
    pub(crate) reached: f64,
    pub(crate) wanted: f64,
    pub(crate) at_most: bool,
}

impl Target {
    pub(crate) fn at_least(against: &'static str, reached: f64, wanted: f64) -> Self {
        Self {
            against,
            reached,
            wanted,
            at_most: false,
        }
    }

    pub(crate) fn at_most(against: &'static str, reached: f64, wanted: f64) -> Self {
        Self {
            against,
            reached,
            wanted,
            at_most: true,
        }
    }

    fn is_met(&self) -> bool {
        if self.at_most {
            self.reached <= self.wanted
        } else {
            self.reached >= self.wanted
        }
    }

    fn text(&self) -> String {
        format!(
            "{:.2}{}{} ({} {}{})",
            self.reached,
            if self.against.is_empty() { "" } else { " of " },
            self.against,
            if self.at_most { "≤" } else { "≥" },
            self.wanted,
            if self.is_met() { "" } else { ": missed" }
        )
    }
}

impl Line {
    pub(crate) fn rate(what: &str, rate: &Rate) -> Self {
        Self {
            p50_ms: Some(rate.p50.as_secs_f64() * 1000.0),
            p99_ms: Some(rate.p99.as_secs_f64() * 1000.0),
            cores: Some(rate.cpu),
            ..Self::number(what, rate.per_second, "/s")
        }
    }

    pub(crate) fn number(what: &str, value: f64, unit: &'static str) -> Self {
        Self {
            what: what.to_owned(),
            value,
            unit,
            p50_ms: None,
            p99_ms: None,
            cores: None,
            targets: Vec::new(),
            refused: 0,
            postrider: None,
        }
    }

    pub(crate) fn with_cores(mut self, cpu: Cpu) -> Self {
        self.cores = Some(cpu);
        self
    }

    pub(crate) fn with(mut self, target: Target) -> Self {
        self.targets.push(target);
        self
    }

    /// For the terminal, as soon as it is there.
    pub(crate) fn row(&self) -> String {
        let mut targets: Vec<String> = self.targets.iter().map(Target::text).collect();
        if let Some(ratio) = self.postrider {
            targets.push(format!("Postrider: {ratio:.2} of it"));
        }
        if self.refused > 0 {
            targets.push(format!("{} requests refused and sent again", self.refused));
        }
        let milliseconds =
            |value: Option<f64>| value.map_or(String::new(), |ms| format!("{ms:.2}"));
        let cores = self.cores.map_or(String::new(), |cpu| {
            format!(
                "{:.2} + {:.2} + {:.2}",
                cpu.generator, cpu.server, cpu.postgres
            )
        });
        format!(
            "| {} | {}{} | {} | {} | {} | {} |",
            self.what,
            readable(self.value),
            self.unit,
            milliseconds(self.p50_ms),
            milliseconds(self.p99_ms),
            cores,
            targets.join(", ")
        )
    }
}

/// Thousands grouped; small numbers with decimals.
fn readable(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Above the table.
pub(crate) const HEAD: &str = "| what | result | p50 ms | p99 ms | busy cores: load + server + Postgres | ratio (target) |\n| --- | ---: | ---: | ---: | --- | --- |";

impl Report {
    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "`{}`, {}, on {}; {}.\n\n{HEAD}\n",
            self.command, self.date, self.machine, self.postgres
        );
        for line in &self.lines {
            let _ = writeln!(text, "{}", line.row());
        }
        text
    }

    pub(crate) fn missed(&self) -> usize {
        self.lines
            .iter()
            .flat_map(|line| &line.targets)
            .filter(|target| !target.is_met())
            .count()
    }

    /// Writes `bench.json`, `bench.svg` and `bench.md` into a folder.
    pub(crate) fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder)?;
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| path.display().to_string())
        };
        write("bench.json", serde_json::to_string_pretty(self)? + "\n")?;
        write("bench.md", self.table())?;
        write("bench.svg", self.picture().to_string() + "\n")
    }

    /// The rates as bars.
    fn picture(&self) -> Document {
        const WIDTH: f64 = 960.0;
        const LEFT: f64 = 480.0;
        const ROW: f64 = 26.0;
        let rates: Vec<&Line> = self.lines.iter().filter(|line| line.unit == "/s").collect();
        let most = rates.iter().map(|line| line.value).fold(1.0, f64::max);
        let scale = |value: f64| value / most * (WIDTH - LEFT - 90.0);
        let height = ROW * crate::load::as_f64(rates.len() as u64) + 40.0;
        let text = |x: f64, y: f64, anchor: &str, content: String| {
            Text::new(content)
                .set("x", x)
                .set("y", y)
                .set("text-anchor", anchor)
                .set("fill", "#333")
        };
        let mut picture = Document::new()
            .set("viewBox", (0, 0, WIDTH, height))
            .set("font-family", "sans-serif")
            .set("font-size", 13)
            .add(
                Rectangle::new()
                    .set("width", WIDTH)
                    .set("height", height)
                    .set("fill", "#fff"),
            )
            .add(text(LEFT, 20.0, "start", "messages a second".to_owned()));
        let mut y = 32.0;
        for line in rates {
            let is_ours = line.cores.is_some_and(|cpu| cpu.postgres > 0.0);
            picture = picture
                .add(text(LEFT - 8.0, y + 15.0, "end", line.what.clone()))
                .add(
                    Rectangle::new()
                        .set("x", LEFT)
                        .set("y", y + 2.0)
                        .set("width", scale(line.value))
                        .set("height", ROW - 8.0)
                        .set("fill", if is_ours { "#2a6f97" } else { "#b8b8b8" }),
                )
                .add(text(
                    LEFT + scale(line.value) + 6.0,
                    y + 15.0,
                    "start",
                    readable(line.value),
                ));
            y += ROW;
        }
        picture.add(
            Stroke::new()
                .set("x1", LEFT)
                .set("x2", LEFT)
                .set("y1", 28)
                .set("y2", y)
                .set("stroke", "#333"),
        )
    }
}
