//! What the user may type, and its validated form.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand, error::ErrorKind};
use tracer_user::{
    offline::{self, ExportOutput, GateOptions},
    options::{JsonTarget, SessionOptions},
    scope::Scope,
    session::control::Request,
};

use super::{
    annotate::AnnotateArgs,
    check::{CHECK_TOP, CheckArgs, GateArgs},
    diff::DiffArgs,
    export::ExportArgs,
    growth::GrowthArgs,
    pages::{CompletionsArgs, ManArgs, Pages},
    report::ReportArgs,
    resymbolize::ResymbolizeArgs,
    scope::ScopeArgs,
    session::{MarkArgs, SessionArgs, SnapshotArgs},
    trace::TraceArgs,
    verdict::VerdictArgs,
};

/// What is asked for, validated.
#[derive(Debug)]
pub enum Action {
    /// Trace the running processes of `options.scopes`; there is one at least.
    Attach {
        /// Which, and how.
        options: SessionOptions,
    },
    /// Trace a program from its first allocation.
    Run {
        /// The program and its arguments; never empty.
        command: Vec<OsString>,
        /// How.
        options: SessionOptions,
        /// What is recorded is held against budgets.
        gate: Option<Box<GateOptions>>,
    },
    /// Show the probe sites.
    Plan(Target),
    /// Show what this host offers.
    Doctor,
    /// Work on a recording.
    Offline(Offline),
    /// Manual pages and completions.
    Pages(Pages),
    /// Ask a running session.
    Ask {
        /// The target's id; `None`: the only session that runs.
        session: Option<u32>,
        /// What for.
        request: Request,
    },
    /// List the running sessions.
    Sessions,
}

/// A command on recordings.
#[derive(Debug)]
pub enum Offline {
    /// Lines of one snapshot.
    Report(offline::RecordingReportOptions),
    /// What changed between two.
    Diff(offline::DiffOptions),
    /// Leak suspects.
    Growth(offline::GrowthOptions),
    /// A source file with the memory of its lines.
    Annotate(offline::AnnotateOptions),
    /// Leak or fragmentation.
    Verdict(offline::VerdictOptions),
    /// Forms of other tools.
    Export(offline::ExportOptions),
    /// The CI gate.
    Check(offline::CheckOptions),
    /// Names, looked up again.
    Resymbolize(offline::ResymbolizeOptions),
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
#[command(max_term_width = 100)]
#[command(
    after_help = "Examples:\n  sudo memtrace-bpf --pid 4711\n  sudo memtrace-bpf --pid 4711 --duration 30s --key traceback\n  \
    sudo memtrace-bpf run --json report.json -- ./server --port 8080\n  \
    sudo memtrace-bpf --pid 4711 --record server.mtb --snapshot-every 1m\n  \
    sudo memtrace-bpf snapshot --label \"after warm-up\"\n  memtrace-bpf diff server.mtb@start server.mtb@\"after warm-up\"\n  \
    sudo memtrace-bpf doctor"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten, next_help_heading = "Processes")]
    scopes: ScopeArgs,

    #[command(flatten)]
    options: TraceArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Trace a running process (the same as --pid)
    Attach {
        /// Process id
        #[arg(value_parser = Scope::pid)]
        pid: Scope,
        #[command(flatten)]
        options: TraceArgs,
    },
    /// Start a program and trace it from its first allocation to its end
    ///
    /// Standard input and output are the program's; the report follows its output. The exit status is the program's
    /// (128 + signal if it was killed; 127 if it is not found, 126 if it cannot be executed). Signals to this process are passed
    /// on to the program, but for SIGUSR1 with --record, which takes a snapshot.
    ///
    /// With --check the outcome follows the report; the exit status is 3 when a budget is exceeded and the program succeeded.
    Run(Box<RunArgs>),
    /// Show the chosen probe sites: function, file offset, instruction, emulated or single-stepped, why
    Plan(PlanArgs),
    /// Show what this host offers for tracing, and what to do where something is missing
    Doctor,
    /// Take a snapshot into the recording of a running session
    Snapshot(SnapshotArgs),
    /// Mark this moment in the recording of a running session
    Mark(MarkArgs),
    /// Take the probes of a running session away until `resume`
    Pause(SessionArgs),
    /// Put the probes of a paused session back
    Resume(SessionArgs),
    /// List the running sessions: target, time, live bytes, snapshots
    Sessions,
    /// Which lines hold the memory at a snapshot of a recording
    Report(ReportArgs),
    /// What changed between two snapshots, of one recording or of two
    Diff(DiffArgs),
    /// Which sites grow steadily: leak suspects of a recording
    Growth(GrowthArgs),
    /// A source file with the memory of each line beside it
    Annotate(AnnotateArgs),
    /// Leak or fragmentation: live bytes against resident memory
    Verdict(VerdictArgs),
    /// Write a recording in the form of another tool
    Export(ExportArgs),
    /// Hold a recording against budgets and a baseline; exit status 3 when one is exceeded
    #[command(override_usage = "memtrace-bpf check [OPTIONS] <BUDGETS> <REC[@SNAPSHOT]>")]
    Check(CheckArgs),
    /// Look the names of a recording up again, with more debug files
    Resymbolize(ResymbolizeArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the manual page, or write those of all commands
    Man(ManArgs),
}

#[derive(Debug, Args)]
struct RunArgs {
    #[command(flatten)]
    options: TraceArgs,
    /// Hold what was recorded against the budgets, as `check` does with a recording
    #[arg(long, requires = "budget", help_heading = "Budgets (with --check)")]
    check: bool,
    #[command(flatten, next_help_heading = "Budgets (with --check)")]
    gate: GateArgs,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
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

/// The description of the command line.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Of a command line that makes no sense, as of most programs.
const USAGE_EXIT_CODE: i32 = 2;

/// Parses the command line; prints help or what is wrong with it, and exits with 0 or 2.
pub fn parse() -> Action {
    let cli = Cli::try_parse().unwrap_or_else(|error| usage(&error));
    match cli.command {
        None => match cli.scopes.validated() {
            scopes if scopes.is_empty() => usage(&Cli::command().error(
                ErrorKind::MissingRequiredArgument,
                "which process? --pid N, --container NAME and others, or `run -- CMD` to start one",
            )),
            scopes => Action::Attach { options: SessionOptions { scopes, ..cli.options.validated() } },
        },
        Some(Command::Attach { pid, options: args }) => {
            Action::Attach { options: SessionOptions { scopes: vec![pid], ..args.validated() } }
        }
        Some(Command::Run(args)) => run(*args),
        Some(Command::Plan(PlanArgs { pid: Some(pid), .. })) => Action::Plan(Target::Pid(pid)),
        Some(Command::Plan(PlanArgs { file, .. })) => {
            Action::Plan(Target::File(file.expect("clap demands one of the two")))
        }
        Some(Command::Doctor) => Action::Doctor,
        Some(Command::Snapshot(args)) => args.action(),
        Some(Command::Mark(args)) => args.action(),
        Some(Command::Pause(args)) => args.action(Request::Pause),
        Some(Command::Resume(args)) => args.action(Request::Resume),
        Some(Command::Sessions) => Action::Sessions,
        Some(Command::Report(args)) => Action::Offline(Offline::Report(args.validated())),
        Some(Command::Diff(args)) => Action::Offline(Offline::Diff(args.validated())),
        Some(Command::Growth(args)) => Action::Offline(Offline::Growth(args.validated())),
        Some(Command::Annotate(args)) => Action::Offline(Offline::Annotate(args.validated())),
        Some(Command::Verdict(args)) => Action::Offline(Offline::Verdict(args.validated())),
        Some(Command::Export(args)) => Action::Offline(Offline::Export(args.validated())),
        Some(Command::Check(args)) => Action::Offline(Offline::Check(args.validated())),
        Some(Command::Completions(args)) => Action::Pages(Pages::Completions(args)),
        Some(Command::Man(args)) => Action::Pages(Pages::Man(args)),
        Some(Command::Resymbolize(args)) => Action::Offline(Offline::Resymbolize(args.validated())),
    }
}

/// Budgets without `--check` would go unheard.
fn run(RunArgs { options, check, gate, command }: RunArgs) -> Action {
    let options = options.validated();
    if !check && gate.is_given() {
        usage(&Cli::command().error(ErrorKind::MissingRequiredArgument, "budgets are held with --check only"));
    }
    let report = &options.report;
    let gate = check.then(|| gate.validated(CHECK_TOP, report.plumbing.clone(), report.raw_leaf)).map(Box::new);
    Action::Run { command, options, gate }
}

/// `-` is standard output.
pub(super) fn json_target(path: PathBuf) -> JsonTarget {
    if path.as_os_str() == "-" { JsonTarget::Stdout } else { JsonTarget::File(path) }
}

/// `-` is standard output.
pub(super) fn output_target(path: PathBuf) -> ExportOutput {
    if path.as_os_str() == "-" { ExportOutput::Stdout } else { ExportOutput::File(path) }
}

/// Refuses arguments that contradict each other.
pub(super) fn refuse(why: &str) -> ! {
    usage(&Cli::command().error(ErrorKind::ArgumentConflict, why))
}

/// Says in one line what is wrong with the command line and ends with 2; help and version are printed as clap has them.
fn usage(error: &clap::Error) -> ! {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        error.exit();
    }
    let text = error.render().to_string().replace("\n\n  tip:", "; tip:");
    let wrong = text.split("\n\nUsage:").next().and_then(|text| text.split("\n\nFor more").next()).unwrap_or_default();
    let wrong = wrong.trim_start_matches("error: ").split_whitespace().collect::<Vec<_>>().join(" ");
    eprintln!("memtrace-bpf: {} (try --help)", tracer_user::report::escaped(&wrong));
    std::process::exit(USAGE_EXIT_CODE);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::view::{parse_duration, parse_size},
        *,
    };

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_and_durations() {
        assert_eq!(parse_size("1.5KiB"), Ok(1536));
        assert_eq!(parse_size("7"), Ok(7));
        assert!(parse_size("99999999999999999999").is_err() && parse_size("17179869184G").is_err());
        assert_eq!(parse_size("17179869183G"), Ok(17_179_869_183 << 30));
        assert!(parse_size("NaN").is_err() && parse_size("inf").is_err());
        assert!(parse_size("7 parsecs").is_err() && parse_size("-1").is_err() && parse_size("").is_err());
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_mins(2)));
        assert!(parse_duration("0").is_err() && parse_duration("soon").is_err() && parse_duration("-3s").is_err());
        assert!(parse_duration("1e30h").is_err());
    }
}
