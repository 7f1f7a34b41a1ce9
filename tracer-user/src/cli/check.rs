//! Arguments of `check`, and of `run --check`.

use std::{ffi::OsString, path::PathBuf};

use clap::Args;
use tracer_user::{
    analysis::check::{Budgets, Limit},
    offline::{CheckOptions, ExportOutput, GateOptions},
    recording::Reference,
};

use super::{
    args::{output_target, refuse},
    view::parse_size,
};

/// Sites shown of each exceeded budget, unless told otherwise.
pub(super) const CHECK_TOP: usize = 5;

/// What `check` takes.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// Recording, and the snapshot by label, number, start, end or peak [default: end]
    #[arg(value_name = "REC[@SNAPSHOT]", requires = "budget")]
    reference: OsString,
    #[command(flatten, next_help_heading = "Budgets")]
    gate: GateArgs,
    /// Sites shown of each exceeded budget
    #[arg(long, default_value_t = CHECK_TOP, value_name = "N")]
    top: usize,
    /// Never attribute memory to functions or files that match (repeatable), as with malloc's own wrappers
    #[arg(long, value_name = "GLOB")]
    plumbing: Vec<String>,
    /// Attribute memory to the innermost frame, whatever it is
    #[arg(long)]
    raw_leaf: bool,
}

/// Budgets, and where the outcome goes.
#[derive(Debug, Args)]
pub(super) struct GateArgs {
    #[command(flatten)]
    budgets: BudgetArgs,
    /// Leaks that are known: a file of `leak:PATTERN` lines, as LeakSanitizer has them
    #[arg(long, value_name = "FILE", requires = "max_leaked")]
    suppressions: Option<PathBuf>,
    /// What --max-growth compares with: a recording of the same program
    #[arg(long, value_name = "REC[@SNAPSHOT]", requires = "max_growth")]
    baseline: Option<OsString>,
    /// Growth in bytes that a limit in percent always allows
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE", default_value = "64KiB", value_parser = parse_size)]
    growth_floor: u64,
    /// Compare with the baseline even if that is of another executable
    #[arg(long, requires = "baseline")]
    allow_other_program: bool,
    /// Check although events were lost; without this a budget then fails as unproven
    #[arg(long)]
    allow_loss: bool,
    /// Append the outcome to FILE as markdown, for a pull request or a job summary; -: to standard output, in place of the text
    #[arg(long, value_name = "FILE|-")]
    markdown: Option<PathBuf>,
    /// Write the outcome to FILE as JUnit XML, a test case for each budget; -: to standard output, in place of the text
    #[arg(long, value_name = "FILE|-")]
    junit: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(id = "budget", multiple = true)]
#[expect(clippy::struct_field_names, reason = "each is the name of its option")]
struct BudgetArgs {
    /// Most bytes at the peak
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE", value_parser = parse_size)]
    max_peak: Option<u64>,
    /// Most bytes live at the snapshot
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE", value_parser = parse_size)]
    max_current: Option<u64>,
    /// Most bytes live when the process ended
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE", value_parser = parse_size)]
    max_leaked: Option<u64>,
    /// Most allocations
    #[arg(long, allow_hyphen_values = true, value_name = "N", value_parser = parse_number)]
    max_allocations: Option<u64>,
    /// Most that any one site may grow from the first snapshot on
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE|PERCENT", value_parser = parse_limit)]
    max_site_growth: Option<Limit>,
    /// Most that each total and each site may be above the baseline
    #[arg(long, allow_hyphen_values = true, value_name = "SIZE|PERCENT", value_parser = parse_limit, requires = "baseline")]
    max_growth: Option<Limit>,
}

impl CheckArgs {
    /// The validated options.
    pub(super) fn validated(self) -> CheckOptions {
        CheckOptions {
            reference: Reference::parse(&self.reference),
            gate: self.gate.validated(self.top, self.plumbing, self.raw_leaf),
        }
    }
}

impl GateArgs {
    /// Whether any of them is on the command line.
    pub(super) fn is_given(&self) -> bool {
        let BudgetArgs { max_peak, max_current, max_leaked, max_allocations, max_site_growth, max_growth } =
            &self.budgets;
        [max_peak, max_current, max_leaked, max_allocations].iter().any(|limit| limit.is_some())
            || [max_site_growth, max_growth].iter().any(|limit| limit.is_some())
            || [&self.markdown, &self.junit].iter().any(|file| file.is_some())
            || self.allow_loss
    }

    /// The validated options, with those that sessions have of their own.
    pub(super) fn validated(self, top: usize, plumbing: Vec<String>, raw_leaf: bool) -> GateOptions {
        let BudgetArgs { max_peak, max_current, max_leaked, max_allocations, max_site_growth, max_growth } =
            self.budgets;
        let (growth_floor, allow_loss) = (self.growth_floor, self.allow_loss);
        let (markdown, junit) = (self.markdown.map(output_target), self.junit.map(output_target));
        if markdown == Some(ExportOutput::Stdout) && markdown == junit {
            refuse("standard output takes one of --markdown and --junit");
        }
        GateOptions {
            budgets: Budgets {
                max_peak,
                max_current,
                max_leaked,
                max_allocations,
                max_site_growth,
                max_growth,
                growth_floor,
                allow_loss,
            },
            suppressions: self.suppressions,
            baseline: self.baseline.as_deref().map(Reference::parse),
            allow_other_program: self.allow_other_program,
            markdown,
            junit,
            top,
            plumbing,
            raw_leaf,
        }
    }
}

/// `5%`, `64KiB`: a bare number could be either, and is refused.
fn parse_limit(text: &str) -> Result<Limit, String> {
    if let Some(number) = text.strip_suffix('%') {
        return match number.trim().parse::<f64>() {
            Ok(percent) if percent >= 0.0 && percent.is_finite() => Ok(Limit::Share(percent / 100.0)),
            _ => Err(format!("`{text}` is not a percentage")),
        };
    }
    if text.ends_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("`{text}` is neither a percentage nor a size (try {text}% or {text}KiB)"));
    }
    parse_size(text).map(Limit::Bytes)
}

fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("`{text}` is not a number of allocations"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_need_a_sign_or_a_unit() {
        assert_eq!(parse_limit("5%"), Ok(Limit::Share(0.05)));
        assert_eq!(parse_limit("0.5 %"), Ok(Limit::Share(0.005)));
        assert_eq!(parse_limit("64KiB"), Ok(Limit::Bytes(65536)));
        assert_eq!(parse_limit("0B"), Ok(Limit::Bytes(0)));
        for bad in ["5", "0", "%", "-5%", "NaN%", "inf%", "", "much", "5 parsecs"] {
            assert!(parse_limit(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn allocations_are_a_plain_number() {
        assert_eq!(parse_number("1000000"), Ok(1_000_000));
        for bad in ["64KiB", "5%", "-1", "", "1.5"] {
            assert!(parse_number(bad).is_err(), "{bad}");
        }
    }
}
