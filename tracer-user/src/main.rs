//! `memtrace-bpf`: which source lines hold the memory of a running process.

mod cli;

use std::{
    ffi::OsString,
    fs,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use cli::{Action, Offline, Target};
use tracer_user::{
    offline::{self, Gate, GateOptions},
    options::{JsonTarget, RecordOptions, SessionOptions},
    plan,
    session::{self, Ended, SpawnError, Unusable},
    target::{Process, host},
};

/// Time between refreshed reports on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match cli::parse() {
        Action::Offline(command) => offline(&command),
        action => match distinct_files(&action) {
            Ok(()) => live(action),
            Err(error) => refused(&error),
        },
    }
}

/// Commands on recordings: whatever is wrong with their input is one line and exit status 2.
fn offline(command: &Offline) -> ExitCode {
    let outcome = match command {
        Offline::Report(options) => offline::report(options),
        Offline::Diff(options) => offline::diff(options),
        Offline::Growth(options) => offline::growth(options),
        Offline::Annotate(options) => offline::annotate(options),
        Offline::Verdict(options) => offline::verdict(options),
        Offline::Export(options) => offline::export(options),
        Offline::Check(options) => offline::check(options),
        Offline::Resymbolize(options) => offline::resymbolize(options),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => refused(&error),
    }
}

/// One line: what failed, and its causes.
fn complain(error: &anyhow::Error) {
    eprintln!("memtrace-bpf: {}", tracer_user::report::escaped(&format!("{error:#}")));
}

fn live(action: Action) -> ExitCode {
    match act(action) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            if error.is::<Unusable>() {
                return ExitCode::from(2);
            }
            ExitCode::from(error.downcast_ref::<SpawnError>().map_or(1, SpawnError::exit_code))
        }
    }
}

/// Holds that a session writes nothing over what it reads, before it begins.
fn distinct_files(action: &Action) -> anyhow::Result<()> {
    let (options, gate) = match action {
        Action::Attach { options } => (options, None),
        Action::Run { options, gate, .. } => (options, gate.as_deref()),
        _ => return Ok(()),
    };
    let mut written = Vec::new();
    written.extend(options.record.as_ref().map(|record| ("--record", &*record.path)));
    if let Some(JsonTarget::File(path)) = &options.json {
        written.push(("--json", path));
    }
    written.extend(gate.iter().flat_map(|gate| gate.written()));
    offline::check_distinct(&gate.map(GateOptions::read).unwrap_or_default(), &written)
}

fn act(action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Attach { mut options } => {
            set_up(&options);
            if options.interval.is_none() && io::stdout().is_terminal() && io::stderr().is_terminal() {
                options.interval = Some(TERMINAL_INTERVAL);
            }
            runtime()?.block_on(session::attach(options)).map(|ended| exit(&ended))
        }
        Action::Run { command, options, gate: Some(gate) } => {
            set_up(&options);
            checked_run(&command, options, *gate)
        }
        Action::Run { command, options, gate: None } => {
            set_up(&options);
            runtime()?.block_on(session::run(&command, options)).map(|ended| exit(&ended))
        }
        Action::Plan(Target::Pid(pid)) => print(&session::plan_of(&Process::open(pid)?)?),
        Action::Plan(Target::File(path)) => {
            let name = path.display();
            let elf = fs::read(&path).with_context(|| format!("failed to read `{name}`"))?;
            let plan = plan::plan(&elf).with_context(|| format!("failed to plan probes for `{name}`"))?;
            print(&plan.render(&path.to_string_lossy()))
        }
        Action::Pages(pages) => pages.write(cli::command()).map(|()| ExitCode::SUCCESS),
        Action::Ask { session, request } => print(&format!("{}\n", session::control::ask(session, &request)?)),
        Action::Sessions => sessions(),
        Action::Offline(_) => unreachable!("dispatched in main"),
        Action::Doctor => {
            let checks = host::checks(&host::HostFacts::read());
            print(&host::render(&checks))?;
            Ok(if host::is_usable(&checks) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

/// One line a session; what is wrong with one is no reason to hide the others.
fn sessions() -> anyhow::Result<ExitCode> {
    let sessions = session::control::sessions();
    if sessions.is_empty() {
        return print(&format!("{}\n", session::control::none_running()));
    }
    let mut text = String::new();
    for (pid, status) in sessions {
        let line = match status {
            Ok(status) => status.to_string(),
            Err(error) => format!("pid {pid}: {error:#}"),
        };
        text.push_str(&tracer_user::report::escaped(&line));
        text.push('\n');
    }
    print(&text)
}

/// Traces a program and holds what was recorded against budgets. A program that fails keeps its own status.
fn checked_run(command: &[OsString], mut options: SessionOptions, gate: GateOptions) -> anyhow::Result<ExitCode> {
    let gate = match Gate::prepare(gate) {
        Ok(gate) => gate,
        Err(error) => return Ok(refused(&error)),
    };
    // Without --record the recording lives as long as the check.
    let scratch = match options.record {
        Some(_) => None,
        None => Some(tempfile::Builder::new().suffix(".mtb").tempfile().context("failed to make a temporary file")?),
    };
    if let Some(scratch) = &scratch {
        options.record = Some(RecordOptions {
            path: scratch.path().to_owned(),
            is_kept: false,
            sample_every: Duration::from_secs(1),
            snapshot_every: None,
            snapshot_on_growth: None,
        });
    }
    let json_has_stdout = options.json == Some(JsonTarget::Stdout);
    let Ended { code, recording } = runtime()?.block_on(session::run(command, options))?;
    let checked = recording.context("failed to check: nothing was recorded").and_then(|path| {
        if json_has_stdout {
            gate.check_file(&path, &mut io::stderr())
        } else {
            gate.check_file(&path, &mut io::stdout())
        }
    });
    Ok(match checked {
        _ if code != 0 => {
            if let Err(error) = checked {
                complain(&error);
            }
            ExitCode::from(code)
        }
        Ok(verdict) => ExitCode::from(verdict),
        Err(error) => refused(&error),
    })
}

/// Input that makes no sense.
fn refused(error: &anyhow::Error) -> ExitCode {
    complain(error);
    ExitCode::from(2)
}

fn set_up(options: &SessionOptions) {
    let level = match options.verbose {
        0 => log::LevelFilter::Error,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    // aya tells of each relocation at its debug level.
    env_logger::Builder::new()
        .filter_level(level)
        .filter_module("aya", level.min(log::LevelFilter::Warn))
        .filter_module("aya_obj", level.min(log::LevelFilter::Warn))
        .format_timestamp_millis()
        .format_target(false)
        .init();
    raise_open_files();
}

/// Every module of the target and every probe is an open file: the soft limit is raised to the hard one.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    {
        log::debug!("failed to raise the limit of open files: {error}");
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    // One thread: ptrace's requests must come from the thread that started the child.
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("failed to start the event loop")
}

/// Where a gate would look at the recording before the exit status is chosen.
fn exit(ended: &Ended) -> ExitCode {
    ExitCode::from(ended.code)
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    io::stdout().write_all(text.as_bytes()).context("failed to write to standard output")?;
    Ok(ExitCode::SUCCESS)
}
