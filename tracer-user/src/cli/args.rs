//! What the user may type, and its validated form.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, error::ErrorKind};
use tracer_user::options::{DEFAULT_MAX_LIVE_BLOCKS, JsonTarget, Key, Placement, ReportOptions, SessionOptions, Sort};

/// What is asked for, validated.
#[derive(Debug)]
pub enum Action {
    /// Trace a running process.
    Attach {
        /// Its id.
        pid: u32,
        /// How.
        options: SessionOptions,
    },
    /// Trace a program from its first allocation.
    Run {
        /// The program and its arguments; never empty.
        command: Vec<OsString>,
        /// How.
        options: SessionOptions,
    },
    /// Show the probe sites.
    Plan(Target),
    /// Show what this host offers.
    Doctor,
}

/// What `plan` looks at.
#[derive(Debug)]
pub enum Target {
    /// A running process: every module that defines an allocator.
    Pid(u32),
    /// One ELF file.
    File(PathBuf),
}

/// Which source lines hold the memory of a running process, on the heap, exactly, with nothing preloaded or restarted.
#[derive(Debug, Parser)]
#[command(name = "memtrace-bpf", version, args_conflicts_with_subcommands = true, arg_required_else_help = true)]
#[command(
    after_help = "Examples:\n  sudo memtrace-bpf --pid 4711\n  sudo memtrace-bpf --pid 4711 --duration 30s --key traceback\n  \
    sudo memtrace-bpf run --json report.json -- ./server --port 8080\n  sudo memtrace-bpf doctor"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    /// Trace the running process with this id
    #[arg(long, short = 'p', value_name = "PID")]
    pid: Option<u32>,

    #[command(flatten)]
    options: TraceArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trace a running process (the same as --pid)
    Attach {
        /// Process id
        pid: u32,
        #[command(flatten)]
        options: TraceArgs,
    },
    /// Start a program and trace it from its first allocation to its end
    ///
    /// Standard input and output are the program's; the report follows its output. The exit status is the program's
    /// (128 + signal if it was killed; 127 if it is not found, 126 if it cannot be executed).
    Run {
        #[command(flatten)]
        options: TraceArgs,
        /// The program and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Show the chosen probe sites: function, file offset, instruction, emulated or single-stepped, why
    Plan(PlanArgs),
    /// Show what this host offers for tracing, and what to do where something is missing
    Doctor,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct PlanArgs {
    /// Every module of a running process that defines an allocator
    #[arg(long, short = 'p', value_name = "PID")]
    pid: Option<u32>,
    /// One executable or library
    #[arg(long, short = 'f', value_name = "ELF")]
    file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyArg {
    Lineno,
    Filename,
    Function,
    Module,
    Traceback,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SortArg {
    Size,
    Count,
    Peak,
    Allocated,
}

#[derive(Debug, Args)]
struct TraceArgs {
    /// Lines shown
    #[arg(long, default_value_t = 10, value_name = "N")]
    top: usize,
    /// What a line stands for
    #[arg(long, value_enum, default_value_t = KeyArg::Lineno)]
    key: KeyArg,
    /// Frames shown of a stack
    #[arg(long, default_value_t = 16, value_name = "N")]
    depth: usize,
    /// Order of the lines, largest first
    #[arg(long, value_enum, default_value_t = SortArg::Size)]
    sort: SortArg,
    /// Leave out lines smaller than this (bytes, or with K, M, G)
    #[arg(long, default_value = "0", value_name = "SIZE", value_parser = parse_size)]
    min_size: u64,
    /// Write the report as JSON to FILE at the end, or to standard output in place of the text (-)
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Stop tracing after this time (seconds, or with ms, s, m, h)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Time between refreshed reports [default: 2s on a terminal, else none]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    interval: Option<Duration>,
    /// Capacity of the table of live blocks; about 96 bytes of kernel memory each
    #[arg(long, default_value_t = DEFAULT_MAX_LIVE_BLOCKS, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 28))]
    max_live_blocks: u32,
    /// Never attribute memory to functions or files that match (repeatable), as with malloc's own wrappers
    #[arg(long, value_name = "GLOB")]
    plumbing: Vec<String>,
    /// Attribute memory to the innermost frame, whatever it is
    #[arg(long)]
    raw_leaf: bool,
    /// Say what is decided (-v), and what the BPF side sees (-vv)
    #[arg(long, short, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Only the report and errors
    #[arg(long, short, conflicts_with = "verbose")]
    quiet: bool,
}

/// Of a command line that makes no sense, as of most programs.
const USAGE_EXIT_CODE: i32 = 2;

/// Parses the command line; prints help or what is wrong with it, and exits with 0 or 2.
pub fn parse() -> Action {
    let cli = Cli::try_parse().unwrap_or_else(|error| usage(&error));
    match cli.command {
        None => match cli.pid {
            Some(pid) => Action::Attach { pid, options: options(cli.options) },
            None => usage(
                &Cli::command()
                    .error(ErrorKind::MissingRequiredArgument, "which process? --pid N, or `run -- CMD` to start one"),
            ),
        },
        Some(Command::Attach { pid, options: args }) => Action::Attach { pid, options: options(args) },
        Some(Command::Run { options: args, command }) => Action::Run { command, options: options(args) },
        Some(Command::Plan(PlanArgs { pid: Some(pid), .. })) => Action::Plan(Target::Pid(pid)),
        Some(Command::Plan(PlanArgs { file, .. })) => {
            Action::Plan(Target::File(file.expect("clap demands one of the two")))
        }
        Some(Command::Doctor) => Action::Doctor,
    }
}

fn options(args: TraceArgs) -> SessionOptions {
    SessionOptions {
        duration: args.duration,
        interval: args.interval,
        max_live_blocks: args.max_live_blocks,
        report: ReportOptions {
            top: args.top,
            key: match args.key {
                KeyArg::Lineno => Key::Lineno,
                KeyArg::Filename => Key::Filename,
                KeyArg::Function => Key::Function,
                KeyArg::Module => Key::Module,
                KeyArg::Traceback => Key::Traceback,
            },
            sort: match args.sort {
                SortArg::Size => Sort::Size,
                SortArg::Count => Sort::Count,
                SortArg::Peak => Sort::Peak,
                SortArg::Allocated => Sort::Allocated,
            },
            depth: args.depth,
            min_size: args.min_size,
            plumbing: args.plumbing,
            raw_leaf: args.raw_leaf,
        },
        json: args.json.map(|path| if path.as_os_str() == "-" { JsonTarget::Stdout } else { JsonTarget::File(path) }),
        quiet: args.quiet,
        verbose: args.verbose,
        placement: Placement::default(),
    }
}

/// Says in one line what is wrong with the command line and ends with 2; help and version are printed as clap has them.
fn usage(error: &clap::Error) -> ! {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit();
    }
    let text = error.render().to_string();
    let wrong = text.split("\n\nUsage:").next().and_then(|text| text.split("\n\nFor more").next()).unwrap_or_default();
    let wrong = wrong.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    eprintln!("memtrace-bpf: {} (try --help)", tracer_user::report::escaped(&wrong));
    std::process::exit(USAGE_EXIT_CODE);
}

/// `4096`, `64K`, `1.5MiB`: bytes, powers of 1024.
fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        unit => return Err(format!("unknown unit `{unit}` (try K, M or G)")),
    };
    match digits.trim().parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok((number * factor as f64) as u64),
        _ => Err(format!("`{text}` is not a size")),
    }
}

/// `30`, `1.5s`, `250ms`, `2m`, `1h`; more than zero.
fn parse_duration(text: &str) -> Result<Duration, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(parse_size("1.5KiB"), Ok(1536));
        assert_eq!(parse_size("7"), Ok(7));
        assert!(parse_size("7 parsecs").is_err() && parse_size("-1").is_err() && parse_size("").is_err());
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        assert!(parse_duration("0").is_err() && parse_duration("soon").is_err() && parse_duration("-3s").is_err());
        assert!(parse_duration("1e30h").is_err());
    }
}
