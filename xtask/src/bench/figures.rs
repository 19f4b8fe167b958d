//! Figures that benchmark programs print, collected over rounds and compared between the legs.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::gpu::Leg;

/// The ratio that is wanted of a figure.
pub type Targets = fn(&str) -> Option<f64>;

/// One line of a program's output: a value, or why there is none.
#[derive(Clone, Debug, Deserialize)]
struct Line {
    name: String,
    value: Option<f64>,
    #[serde(default)]
    unit: String,
    #[serde(default)]
    better: String,
    error: Option<String>,
}

/// A figure on both legs.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Figure {
    pub item: String,
    pub name: String,
    pub unit: String,
    /// `lower` or `higher`.
    pub better: String,
    /// One value for each round that gave one, in order.
    pub native: Vec<f64>,
    pub shim: Vec<f64>,
    pub native_error: Option<String>,
    pub shim_error: Option<String>,
}

/// Shim to native: of the medians, and the extremes over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Figure {
    fn values(&mut self, leg: Leg) -> &mut Vec<f64> {
        match leg {
            Leg::Native => &mut self.native,
            Leg::Shim => &mut self.shim,
        }
    }

    pub fn median(&self, leg: Leg) -> Option<f64> {
        median(match leg {
            Leg::Native => &self.native,
            Leg::Shim => &self.shim,
        })
    }

    pub fn error(&self, leg: Leg) -> Option<&str> {
        match leg {
            Leg::Native => self.native_error.as_deref(),
            Leg::Shim => self.shim_error.as_deref(),
        }
    }

    /// Each round's shim value belongs to the same round's native value: both met the same state of the machine.
    pub fn ratio(&self) -> Option<Ratio> {
        let median = self.median(Leg::Shim)? / self.median(Leg::Native)?;
        let rounds = self.shim.iter().zip(&self.native).map(|(shim, native)| shim / native);
        let min = rounds.clone().fold(f64::INFINITY, f64::min);
        let max = rounds.fold(f64::NEG_INFINITY, f64::max);
        median.is_finite().then_some(Ratio { median, min, max })
    }

    /// The ratio that is wanted, as text, and whether it is reached.
    pub fn target(&self, targets: Targets) -> Option<(String, Option<bool>)> {
        let target = targets(&self.name)?;
        let lower = self.better == "lower";
        let text = format!("{} {target}", if lower { "<=" } else { ">=" });
        let met =
            self.ratio().map(|ratio| if lower { ratio.median <= target } else { ratio.median >= target });
        Some((text, met))
    }
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[count / 2]),
        count => Some((sorted[count / 2 - 1] + sorted[count / 2]) / 2.0),
    }
}

/// All figures, in the order in which they first came.
#[derive(Default)]
pub struct Figures {
    pub all: Vec<Figure>,
}

impl Figures {
    fn entry(&mut self, item: &str, name: &str) -> &mut Figure {
        let found = self.all.iter().position(|figure| figure.item == item && figure.name == name);
        let index = found.unwrap_or_else(|| {
            self.all.push(Figure { item: item.to_owned(), name: name.to_owned(), ..Figure::default() });
            self.all.len() - 1
        });
        &mut self.all[index]
    }

    pub fn add(&mut self, item: &str, leg: Leg, name: &str, value: f64, unit: &str, better: &str) {
        let figure = self.entry(item, name);
        unit.clone_into(&mut figure.unit);
        better.clone_into(&mut figure.better);
        figure.values(leg).push(value);
    }

    pub fn fail(&mut self, item: &str, leg: Leg, name: &str, error: String) {
        let figure = self.entry(item, name);
        match leg {
            Leg::Native => figure.native_error = Some(error),
            Leg::Shim => figure.shim_error = Some(error),
        }
    }

    /// Takes the figures of a program's output. Lines that are no JSON objects are other output.
    ///
    /// # Errors
    /// A line looks like a figure and is none.
    pub fn add_output(&mut self, item: &str, leg: Leg, output: &str) -> Result<()> {
        for text in output.lines().filter(|line| line.starts_with('{')) {
            let line: Line = serde_json::from_str(text).with_context(|| format!("{item} printed {text}"))?;
            match (line.value, line.error) {
                (Some(value), _) => self.add(item, leg, &line.name, value, &line.unit, &line.better),
                (None, error) => {
                    self.fail(item, leg, &line.name, error.unwrap_or_else(|| "no value".to_owned()))
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::items;

    #[test]
    fn figures_of_two_legs_meet() -> Result<()> {
        let mut figures = Figures::default();
        for (leg, value) in [(Leg::Native, 2.0), (Leg::Shim, 3.0), (Leg::Native, 4.0), (Leg::Shim, 2.0)] {
            let line = format!(
                "noise\n{{\"name\": \"launch + sync\", \"value\": {value}, \"unit\": \"us\", \"better\": \"lower\"}}\n"
            );
            figures.add_output("launch", leg, &line)?;
        }
        figures.add_output("launch", Leg::Shim, "{\"name\": \"x\", \"error\": \"cuGraphLaunch: 801\"}")?;
        assert_eq!(figures.all.len(), 2);
        let ratio = figures.all[0].ratio().context("no ratio")?;
        assert_eq!(ratio, Ratio { median: 2.5 / 3.0, min: 0.5, max: 1.5 });
        assert_eq!(figures.all[0].target(items::target), Some(("<= 1.3".to_owned(), Some(true))));
        assert_eq!(figures.all[1].error(Leg::Shim), Some("cuGraphLaunch: 801"));
        assert!(figures.add_output("launch", Leg::Shim, "{\"name\": 3}").is_err());
        Ok(())
    }
}
