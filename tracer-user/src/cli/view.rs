//! The arguments that say what a report shows: key, view, order, filters. Every command that reports has them.

use std::time::Duration;

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser},
};
use tracer_user::options::{Domains, FileFilter, Filters, Key, ReportOptions, Sort, View};

use super::args::refuse;

/// What a report shows.
#[derive(Debug, Args)]
pub(super) struct ViewArgs {
    #[command(flatten)]
    lines: LineArgs,
    /// Order of the lines, largest first [default: size]
    #[arg(long, value_parser = one_of(Sort::ALL, Sort::name))]
    sort: Option<Sort>,
    /// Which totals are shown [default: live]
    #[arg(long, value_parser = one_of(View::ALL, View::name))]
    view: Option<View>,
    #[command(flatten)]
    stacks: StackArgs,
}

/// Which lines there are.
#[derive(Debug, Args)]
pub(super) struct LineArgs {
    /// Lines shown [default: 10]
    #[arg(long, value_name = "N")]
    top: Option<usize>,
    /// What a line stands for; --by is another spelling [default: lineno]
    #[arg(long, visible_alias = "by", value_parser = one_of(Key::ALL, Key::name))]
    key: Option<Key>,
    /// Frames shown of a stack [default: 16]
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Leave out lines smaller than this (bytes, or with K, M, G); in a comparison or growth: whose difference is smaller
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    min_size: Option<u64>,
    /// Leave out lines larger than this, or whose difference is
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_size: Option<u64>,
    /// Leave out lines with fewer blocks than this; in a comparison: whose difference is
    #[arg(long, value_name = "N")]
    min_count: Option<u64>,
}

/// Which memory is counted, and where it is attributed.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(super) struct StackArgs {
    /// Kind of memory: blocks of allocators, anonymous mappings that the program itself makes, or both
    ///
    /// A mapping counts with its whole pages, whether they were touched or not. Not seen are system calls that a program makes past
    /// its C library (Go, assembly) and mappings of the dynamic loader. What an allocator maps for its blocks is not counted twice.
    #[arg(long, default_value = Domains::default().name(), value_parser = one_of(Domains::ALL, Domains::name))]
    domain: Domains,
    /// Count every frame of a stack, not only its site (recursion once); only with --key lineno, filename, function or module
    #[arg(long)]
    cumulative: bool,
    /// Keep only stacks whose site lies in a file that matches, as fnmatch does (repeatable)
    ///
    /// `*` is any text, `/` included. The pattern is compared with the whole path and with its last two components, which reports
    /// show. A frame without source file stands under its module's path.
    #[arg(long, value_name = "GLOB[:LINE]", value_parser = parse_pattern)]
    include: Vec<(String, Option<u32>)>,
    /// Leave out stacks whose site lies in a file that matches (repeatable)
    #[arg(long, value_name = "GLOB[:LINE]", value_parser = parse_pattern)]
    exclude: Vec<(String, Option<u32>)>,
    /// Compare filters with all frames of a stack, not only its site
    #[arg(long)]
    all_frames: bool,
    /// Keep only stacks whose site is a function that matches (repeatable)
    #[arg(long, value_name = "GLOB")]
    function: Vec<String>,
    /// Keep only stacks whose site lies in a module that matches, by path or file name (repeatable)
    #[arg(long, value_name = "GLOB")]
    module: Vec<String>,
    /// Keep only stacks of processes with this pid, or whose command matches (repeatable)
    #[arg(long, value_name = "PID|GLOB")]
    process: Vec<String>,
    /// Leave out system libraries and language runtimes
    #[arg(long)]
    own_code: bool,
    /// Never attribute memory to functions or files that match (repeatable), as with malloc's own wrappers
    #[arg(long, value_name = "GLOB")]
    plumbing: Vec<String>,
    /// Attribute memory to the innermost frame, whatever it is
    #[arg(long)]
    raw_leaf: bool,
}

impl ViewArgs {
    /// The options of the reports. Arguments that contradict each other end the program, as all misuse does.
    pub(super) fn validated(self) -> ReportOptions {
        let (sort, view) = (self.sort.unwrap_or_default(), self.view.unwrap_or_default());
        ReportOptions { sort, view, ..self.lines.validated(self.stacks) }
    }

    /// What was given of those arguments that not every form of a report heeds.
    pub(super) fn given(&self) -> Vec<&'static str> {
        let (lines, stacks) = (&self.lines, &self.stacks);
        let all = [
            ("--top", lines.top.is_some()),
            ("--key", lines.key.is_some()),
            ("--depth", lines.depth.is_some()),
            ("--sort", self.sort.is_some()),
            ("--view", self.view.is_some()),
            ("--min-size", lines.min_size.is_some()),
            ("--max-size", lines.max_size.is_some()),
            ("--min-count", lines.min_count.is_some()),
            ("--cumulative", stacks.cumulative),
            ("--include", !stacks.include.is_empty()),
            ("--exclude", !stacks.exclude.is_empty()),
            ("--function", !stacks.function.is_empty()),
            ("--module", !stacks.module.is_empty()),
            ("--process", !stacks.process.is_empty()),
            ("--own-code", stacks.own_code),
        ];
        all.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect()
    }
}

impl LineArgs {
    /// The options of a report on live memory, the largest line first.
    pub(super) fn validated(self, stacks: StackArgs) -> ReportOptions {
        let key = self.key.unwrap_or_default();
        if stacks.cumulative && !key.is_frame() {
            refuse("--cumulative counts frames: it needs --key lineno, filename, function or module");
        }
        let mut options = stacks.validated();
        options.key = key;
        options.top = self.top.unwrap_or(options.top);
        options.depth = self.depth.unwrap_or(options.depth);
        options.min_size = self.min_size.unwrap_or(options.min_size);
        options.filters.max_size = self.max_size;
        options.filters.min_count = self.min_count.unwrap_or_default();
        options
    }
}

impl StackArgs {
    /// The options of a report on these stacks, with the defaults of all others.
    pub(super) fn validated(self) -> ReportOptions {
        let file_filter = |inclusive| move |(pattern, lineno)| FileFilter { inclusive, pattern, lineno };
        let included = self.include.into_iter().map(file_filter(true));
        ReportOptions {
            domains: self.domain,
            cumulative: self.cumulative,
            filters: Filters {
                files: included.chain(self.exclude.into_iter().map(file_filter(false))).collect(),
                functions: self.function,
                modules: self.module,
                processes: self.process,
                all_frames: self.all_frames,
                own_code: self.own_code,
                ..Filters::default()
            },
            plumbing: self.plumbing,
            raw_leaf: self.raw_leaf,
            ..ReportOptions::default()
        }
    }
}

/// One of these, by its name.
fn one_of<T: Copy + Send + Sync + 'static, const N: usize>(
    all: [T; N],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.map(name))
        .map(move |text| all.into_iter().find(|one| name(*one) == text).expect("it is one of the names"))
}

/// `src/*.c`, `src/cache.c:21`: a glob, and a line after the last colon if that is a number.
fn parse_pattern(text: &str) -> Result<(String, Option<u32>), String> {
    let (pattern, line) = match text.rsplit_once(':') {
        Some((pattern, line)) if !line.is_empty() && line.bytes().all(|byte| byte.is_ascii_digit()) => {
            (pattern, Some(line.parse().map_err(|_| format!("`{line}` is not a line number"))?))
        }
        _ => (text, None),
    };
    if pattern.is_empty() { Err("an empty pattern matches nothing".to_owned()) } else { Ok((pattern.to_owned(), line)) }
}

/// `4096`, `64K`, `1.5MiB`: bytes, powers of 1024.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        unit => return Err(format!("unknown unit `{unit}` (try K, M or G)")),
    };
    match digits.trim().parse::<f64>() {
        Ok(number) if number * factor as f64 >= u64::MAX as f64 => Err(format!("`{text}` is not below 2^64 bytes")),
        Ok(number) if number >= 0.0 => Ok((number * factor as f64) as u64),
        _ => Err(format!("`{text}` is not a size")),
    }
}

/// `30`, `1.5s`, `250ms`, `2m`, `1h`; more than zero.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("unknown unit `{unit}` (try ms, s, m or h)")),
    };
    match digits.trim().parse::<f64>().map(|number| Duration::try_from_secs_f64(number * factor)) {
        Ok(Ok(duration)) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("`{text}` is not a duration")),
    }
}
