//! Arguments of a live session, whatever it traces.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use tracer_user::{
    options::{BasisPoints, DEFAULT_MAX_LIVE_BLOCKS, Key, Placement, RecordOptions, SessionOptions},
    plan::AllocatorSpec,
};

use super::{
    args::json_target,
    scope::JoiningArgs,
    view::{ViewArgs, parse_duration, parse_size},
};

/// What tracing takes.
#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    #[command(flatten, next_help_heading = "Report")]
    view: ViewArgs,
    /// Write the report as JSON to FILE at the end, or to standard output in place of the text (-)
    #[arg(long, value_name = "FILE|-", help_heading = "Report")]
    json: Option<PathBuf>,
    /// Time between refreshed reports [default: 2s on a terminal, else none]
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Report")]
    interval: Option<Duration>,

    /// Record to FILE (.mtb): snapshots at start and end, at SIGUSR1 to this process, at key s, by `snapshot`, and as below
    #[arg(long, value_name = "FILE", help_heading = "Recording")]
    record: Option<PathBuf>,
    /// Record a snapshot every TIME
    #[arg(long, value_name = "TIME", value_parser = parse_duration, requires = "record", help_heading = "Recording")]
    snapshot_every: Option<Duration>,
    /// Record a snapshot when live bytes have grown by this much since the last one
    #[arg(long, value_name = "N%", value_parser = parse_percent, requires = "record", help_heading = "Recording")]
    snapshot_on_growth: Option<BasisPoints>,
    /// Time between two samples of totals and resident memory
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "1s", help_heading = "Recording")]
    sample_every: Duration,

    /// Stop tracing after this time (seconds, or with ms, s, m, h)
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Session")]
    duration: Option<Duration>,
    /// Attach the probes only after this time; `memtrace-bpf resume` attaches them sooner
    #[arg(long, value_name = "TIME", value_parser = parse_duration, help_heading = "Session")]
    start_after: Option<Duration>,
    #[command(flatten, next_help_heading = "Session")]
    joining: JoiningArgs,
    /// Trace a pool or an allocator of the program's own (repeatable; arguments count from 0):
    /// alloc=MODULE:SYMBOL(size=argN[*argM],ret=ptr|out=argK) free=MODULE:SYMBOL(ptr=argN)
    #[arg(long = "allocator", value_name = "SPEC", help_heading = "Session")]
    allocators: Vec<AllocatorSpec>,
    /// Keep stacks of different threads apart (--key thread does so too)
    #[arg(long, help_heading = "Session")]
    by_thread: bool,
    /// Capacity of the table of live blocks; about 96 bytes of kernel memory each
    #[arg(long, default_value_t = DEFAULT_MAX_LIVE_BLOCKS, value_name = "N", help_heading = "Session",
        value_parser = clap::value_parser!(u32).range(1..=1 << 28))]
    max_live_blocks: u32,
    /// Buffer for calls that change mappings, with --domain mmap or all; 88 bytes a call
    #[arg(long, default_value = "4M", value_name = "SIZE", value_parser = parse_buffer, help_heading = "Session")]
    mmap_buffer: u32,
    /// Say what is decided (-v), and what the BPF side sees (-vv)
    #[arg(long, short, action = clap::ArgAction::Count, help_heading = "Session")]
    verbose: u8,
    /// Only the report and errors
    #[arg(long, short, conflicts_with = "verbose", help_heading = "Session")]
    quiet: bool,
}

impl TraceArgs {
    /// The options of the session.
    pub(super) fn validated(self) -> SessionOptions {
        let report = self.view.validated();
        SessionOptions {
            scopes: Vec::new(),
            follow_children: self.joining.follow_children(),
            from_first_allocation: self.joining.from_first_allocation,
            duration: self.duration,
            interval: self.interval,
            max_live_blocks: self.max_live_blocks,
            by_thread: self.by_thread || report.key == Key::Thread,
            mmap_buffer_bytes: self.mmap_buffer,
            report,
            json: self.json.map(json_target),
            allocators: self.allocators,
            start_after: self.start_after,
            record: self.record.map(|path| RecordOptions {
                path,
                is_kept: true,
                sample_every: self.sample_every,
                snapshot_every: self.snapshot_every,
                snapshot_on_growth: self.snapshot_on_growth,
            }),
            quiet: self.quiet,
            verbose: self.verbose,
            placement: Placement::default(),
        }
    }
}

/// A size that the kernel takes for a ring buffer: rounded up to a power of two.
fn parse_buffer(text: &str) -> Result<u32, String> {
    const SMALLEST: u64 = 4096;
    const LARGEST: u64 = 1 << 30;
    let bytes = parse_size(text)?.checked_next_power_of_two().unwrap_or(u64::MAX);
    match u32::try_from(bytes) {
        Ok(size) if (SMALLEST..=LARGEST).contains(&bytes) => Ok(size),
        _ => Err(format!("`{text}` is not between 4K and 1G")),
    }
}

/// `10%`, `2.5%`: a share with its sign, at least a hundredth of a percent.
fn parse_percent(text: &str) -> Result<BasisPoints, String> {
    /// A million percent.
    const MAX_BASIS_POINTS: f64 = 1e8;
    let Some(digits) = text.strip_suffix('%') else {
        return Err(format!("a percent without a sign: `{text}` (try `{text}%`)"));
    };
    match digits.trim().parse::<f64>().map(|percent| (percent * 100.0).round()) {
        Ok(points) if (1.0..=MAX_BASIS_POINTS).contains(&points) => Ok(BasisPoints(points as u32)),
        _ => Err(format!("`{text}` is not a percentage above 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_a_power_of_two() {
        assert_eq!(parse_buffer("4M"), Ok(tracer_user::options::DEFAULT_MMAP_BUFFER_BYTES));
        assert_eq!(parse_buffer("5000"), Ok(8192));
        assert!(parse_buffer("1").is_err() && parse_buffer("2G").is_err() && parse_buffer("1e30").is_err());
    }

    #[test]
    fn a_percent_needs_its_sign() {
        assert_eq!(parse_percent("10%"), Ok(BasisPoints(1000)));
        assert_eq!(parse_percent("2.5 %"), Ok(BasisPoints(250)));
        assert!(parse_percent("10").is_err_and(|why| why.contains("`10%`")));
        for wrong in ["", "%", "-1%", "0%", "0.001%", "ten%", "inf%", "NaN%", "1e9%"] {
            assert!(parse_percent(wrong).is_err(), "{wrong}");
        }
    }
}
