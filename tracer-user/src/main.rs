//! `memtrace-bpf`: which source lines hold the memory of a running process.

mod cli;

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use cli::{Action, Offline, Target};
use tracer_user::{
    offline,
    options::SessionOptions,
    plan,
    session::{self, Ended, SpawnError},
    target::{Process, host},
};

/// Time between refreshed reports on a terminal.
const TERMINAL_INTERVAL: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match cli::parse() {
        Action::Offline(command) => offline(&command),
        action => live(action),
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
        Err(error) => {
            complain(&error);
            ExitCode::from(2)
        }
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
            ExitCode::from(error.downcast_ref::<SpawnError>().map_or(1, SpawnError::exit_code))
        }
    }
}

fn act(action: Action) -> anyhow::Result<ExitCode> {
    match action {
        Action::Attach { pid, mut options } => {
            set_up(&options);
            if options.interval.is_none() && io::stdout().is_terminal() && io::stderr().is_terminal() {
                options.interval = Some(TERMINAL_INTERVAL);
            }
            runtime()?.block_on(session::attach(pid, options)).map(exit)
        }
        Action::Run { command, options } => {
            set_up(&options);
            runtime()?.block_on(session::run(&command, options)).map(exit)
        }
        Action::Plan(Target::Pid(pid)) => print(&session::plan_of(&Process::open(pid)?)?),
        Action::Plan(Target::File(path)) => {
            let name = path.display();
            let elf = fs::read(&path).with_context(|| format!("failed to read `{name}`"))?;
            let plan = plan::plan(&elf).with_context(|| format!("failed to plan probes for `{name}`"))?;
            print(&plan.render(&path.to_string_lossy()))
        }
        Action::Pages(pages) => pages.write(cli::command()).map(|()| ExitCode::SUCCESS),
        Action::Offline(_) => unreachable!("dispatched in main"),
        Action::Doctor => {
            let checks = host::checks(&host::HostFacts::read());
            print(&host::render(&checks))?;
            Ok(if host::is_usable(&checks) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
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

fn exit(Ended(code): Ended) -> ExitCode {
    ExitCode::from(code)
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    io::stdout().write_all(text.as_bytes()).context("failed to write to standard output")?;
    Ok(ExitCode::SUCCESS)
}
