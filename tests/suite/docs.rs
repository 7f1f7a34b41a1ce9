//! Every example of the documentation is run, and does what is shown.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
};

use anyhow::{Context as _, Result, bail, ensure};
use memtrace_tests::{
    Program, clean, copy_program,
    docs::{Block, Content, SETUP, Shell, Step, blocks, compare},
    process::Target,
    root, tracer,
};
use tempfile::TempDir;
use yaml_rust2::{Yaml, YamlLoader};

/// The process that examples trace is called so; a service that listens at `service.sock` takes its place.
const EXAMPLE_PID: &str = "4711";

/// Files that examples use without having made them, and what makes them.
const PREPARED: &[(&str, Prepare)] = &[
    ("demo_leak", Prepare::Program("demo_leak")),
    ("demo_leak.c", Prepare::Source("demo_leak")),
    ("leaky_service", Prepare::Program("leaky_service")),
    ("server", Prepare::Program("demo_leak")),
    ("build/tests", Prepare::Program("demo_leak")),
    ("leaks.supp", Prepare::Text("# known\nleak:cache_add\nleak:^registry_init$\nleak:libfontconfig.so\n")),
    ("memory.mtb", Prepare::Recording("demo_leak")),
    ("Makefile", Prepare::Text("tests:\n\ttrue\n")),
];

/// How a file is made.
#[derive(Clone, Copy)]
enum Prepare {
    /// By the compiler, from `tests/programs/c`.
    Program(&'static str),
    /// The source of such a program.
    Source(&'static str),
    /// As it stands here.
    Text(&'static str),
    /// By tracing a program from start to end.
    Recording(&'static str),
}

/// The documents with examples.
fn documents() -> Result<Vec<PathBuf>> {
    let mut documents = vec![root().join("README.md")];
    for entry in fs::read_dir(root().join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
    documents.sort();
    Ok(documents)
}

/// Where the examples of one document are run, one after the other.
struct Workshop {
    shell: Shell,
    service: Option<Target>,
    dir: TempDir,
}

impl Workshop {
    fn open() -> Result<Self> {
        let dir = TempDir::new()?;
        let bin = dir.path().join(".bin");
        fs::create_dir(&bin)?;
        symlink(tracer()?, bin.join("memtrace-bpf"))?;
        // The tests are root already.
        let sudo = bin.join("sudo");
        fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n")?;
        fs::set_permissions(&sudo, fs::Permissions::from_mode(0o755))?;
        let summary: OsString = dir.path().join("summary.md").into();
        let shell = Shell::start(dir.path(), &bin, &[("GITHUB_STEP_SUMMARY", summary)])?;
        Ok(Self { shell, service: None, dir })
    }

    /// Makes what a command uses and is not there yet.
    fn prepare(&self, command: &str) -> Result<()> {
        let words: Vec<&str> = command.split_whitespace().collect();
        for (at, word) in words.iter().enumerate() {
            let name = word.trim_start_matches("./").split('@').next().unwrap_or_default();
            let written = at > 0 && ["--record", "-o", "--output"].contains(&words[at - 1]);
            if let Some((_, prepare)) = PREPARED.iter().find(|(known, _)| *known == name)
                && !written
            {
                self.make(name, *prepare)?;
            }
        }
        Ok(())
    }

    fn make(&self, name: &str, prepare: Prepare) -> Result<()> {
        let path = self.dir.path().join(name);
        if path.exists() {
            return Ok(());
        }
        fs::create_dir_all(path.parent().context("a file lies in a folder")?)?;
        match prepare {
            Prepare::Program(source) => {
                copy_program(&Program::c(source).build()?, &path)?;
            }
            Prepare::Source(name) => {
                fs::copy(Program::c(name).source(), &path)?;
            }
            Prepare::Text(text) => fs::write(&path, text)?,
            Prepare::Recording(source) => {
                let mut record = clean(tracer()?);
                record.args(["run", "--quiet", "--record"]).arg(&path).arg("--").arg(Program::c(source).build()?);
                let output = record.output()?;
                ensure!(output.status.success(), "no recording: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
        Ok(())
    }

    /// The command with the example's process replaced by one that runs.
    fn with_process(&mut self, command: &str) -> Result<String> {
        if !command.split_whitespace().any(|word| word == EXAMPLE_PID) {
            return Ok(command.to_owned());
        }
        if self.service.is_none() {
            self.make("leaky_service", Prepare::Program("leaky_service"))?;
            let mut service = clean(self.dir.path().join("leaky_service"));
            self.service = Some(Target::spawn(service.current_dir(self.dir.path()).arg("service.sock"))?);
        }
        let pid = self.service.as_ref().map(|service| service.pid().to_string()).unwrap_or_default();
        Ok(command.replace(EXAMPLE_PID, &pid))
    }

    fn run(&mut self, step: &Step, exact: bool) -> Result<()> {
        self.prepare(&step.command)?;
        let command = self.with_process(&step.command)?;
        let (status, output) = self.shell.run(&command)?;
        ensure!(status == step.exit, "ends with {status} instead of {}:\n{output}", step.exit);
        if step.output.is_empty() { Ok(()) } else { compare(&step.output, &output, exact) }
    }
}

#[test]
fn every_example_does_what_is_shown() -> Result<()> {
    let mut wrong = Vec::new();
    let mut n_steps = 0;
    for document in documents()? {
        let mut workshop = Workshop::open()?;
        for Block { content, .. } in blocks(&document)? {
            let Content::Console { steps, exact } = content else { continue };
            for step in steps {
                n_steps += 1;
                if let Err(error) = workshop.run(&step, exact) {
                    wrong.push(format!("{}:{}: `{}` {error:#}", document.display(), step.line, step.command));
                }
            }
        }
    }
    ensure!(n_steps > 5, "the examples were found");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    Ok(())
}

#[test]
fn an_example_that_is_wrong_is_found() -> Result<()> {
    let mut workshop = Workshop::open()?;
    let mut fails = |command: &str, output: &[&str]| -> Result<String> {
        let output = output.iter().map(|&line| line.to_owned()).collect();
        let step = Step { line: 1, command: command.to_owned(), output, exit: 0 };
        match workshop.run(&step, false) {
            Ok(()) => bail!("`{command}` passed"),
            Err(error) => Ok(format!("{error:#}")),
        }
    };
    ensure!(fails("memtrace-bpf frobnicate", &[])?.contains("ends with 2 instead of 0"));
    ensure!(fails("no-such-program --x", &[])?.contains("ends with 127"));
    ensure!(fails("memtrace-bpf --version", &["another-tool 1.0"])?.contains("the document shows"));
    ensure!(fails("memtrace-bpf check not_prepared.mtb --max-peak 1K", &[])?.contains("ends with 2"));
    Ok(())
}

#[test]
fn a_session_in_the_background_is_driven_by_the_next_commands() -> Result<()> {
    let session = [
        "$ sudo memtrace-bpf --pid 4711 --record service.mtb &",
        "$ ./leaky_service service.sock 1000",
        "1000 requests answered",
        "$ sudo memtrace-bpf snapshot --session 4711 --label first",
        "$ ./leaky_service service.sock 1000",
        "$ sudo memtrace-bpf snapshot --session 4711 --label second",
        "$ kill -INT %1",
        "$ wait",
        "pid ... (leaky_service) ... current 273 KiB in 2 576 blocks  peak ... nothing lost",
        "...",
        "#1 c/leaky_service.c:39: size=240 KiB, count=2000, average=123 B     session_create",
        "...",
        "$ memtrace-bpf diff service.mtb@first service.mtb@second",
        "...",
        "#1 c/leaky_service.c:39: size=240 KiB (+120 KiB), count=2000 (+1000), average=123 B     session_create",
        "...",
    ];
    let document = format!("```console exact\n{}\n```\n", session.join("\n"));
    let dir = TempDir::new()?;
    let path = dir.path().join("example.md");
    fs::write(&path, document)?;
    let mut workshop = Workshop::open()?;
    for Block { content, .. } in blocks(&path)? {
        let Content::Console { steps, exact } = content else { bail!("a console block") };
        for step in steps {
            workshop.run(&step, exact).with_context(|| step.command.clone())?;
        }
    }
    Ok(())
}

/// The YAML blocks of docs/ci.md: GitHub's, then GitLab's.
fn jobs() -> Result<Vec<Yaml>> {
    let mut jobs = Vec::new();
    for document in documents()?.into_iter().filter(|document| document.ends_with("docs/ci.md")) {
        for Block { content, line } in blocks(&document)? {
            if let Content::Data(kind, text) = content
                && kind == "yaml"
            {
                let place = format!("{}:{line}", document.display());
                let loaded = YamlLoader::load_from_str(&text).context(place.clone())?;
                let [job] = &loaded[..] else { bail!("{place}: {} documents", loaded.len()) };
                jobs.push(job.clone());
            }
        }
    }
    ensure!(jobs.len() == 2, "{} jobs", jobs.len());
    Ok(jobs)
}

/// The scripts of a job in their order, less the lines that set up.
fn scripts(scripts: &[&Yaml]) -> Vec<String> {
    let text = scripts.iter().filter_map(|script| script.as_str());
    text.filter(|script| !SETUP.iter().any(|set| script.starts_with(set))).map(str::to_owned).collect()
}

/// Runs a job twice, as a first run on the main branch and as one with that as its baseline.
fn run_job(scripts: &[String]) -> Result<()> {
    ensure!(scripts.iter().any(|script| script.contains("memtrace-bpf run --check")), "no check in {scripts:?}");
    let mut workshop = Workshop::open()?;
    for (name, prepare) in PREPARED {
        if ["build/tests", "leaks.supp", "Makefile"].contains(name) {
            workshop.make(name, *prepare)?;
        }
    }
    for n_budgets in [2, 9] {
        let mut said = String::new();
        for script in scripts {
            let (status, output) = workshop.shell.run(script)?;
            ensure!(status == 0, "`{script}` ends with {status}:\n{output}");
            said.push_str(&output);
        }
        ensure!(said.contains(&format!("{n_budgets} budgets checked: {n_budgets} ok")), "{said}");
    }
    let dir = workshop.dir.path();
    for made in ["memory.mtb", "memory.xml", "baseline.mtb"] {
        ensure!(dir.join(made).metadata().is_ok_and(|file| file.len() > 0), "no {made}");
    }
    let summary = ["summary.md", "memory.md"].iter().find_map(|name| fs::read_to_string(dir.join(name)).ok());
    ensure!(summary.is_some_and(|text| text.matches("### ✅ Memory check").count() == 2), "no two summaries");
    Ok(())
}

#[test]
fn the_github_job_checks_twice_and_keeps_its_baseline() -> Result<()> {
    let jobs = jobs()?;
    let steps = jobs[0]["jobs"]["memory"]["steps"].as_vec().context("the job has steps")?;
    for step in steps {
        ensure!(step["run"].as_str().is_some() != step["uses"].as_str().is_some(), "a step runs or uses: {step:?}");
    }
    run_job(&scripts(&steps.iter().map(|step| &step["run"]).collect::<Vec<_>>()))
}

#[test]
fn the_gitlab_job_checks_twice_and_keeps_its_baseline() -> Result<()> {
    let jobs = jobs()?;
    let job = &jobs[1]["memory"];
    ensure!(job["artifacts"]["reports"]["junit"].as_str() == Some("memory.xml"), "{job:?}");
    run_job(&scripts(&job["script"].as_vec().context("the job has a script")?.iter().collect::<Vec<_>>()))
}

#[test]
fn every_prepared_file_is_used_and_as_the_documents_show_it() -> Result<()> {
    let mut all = String::new();
    for document in documents()? {
        all.push_str(&fs::read_to_string(&document)?);
    }
    for (name, prepare) in PREPARED {
        let is_used = match *name {
            "leaky_service" => all.contains(EXAMPLE_PID),
            "Makefile" => all.contains("make tests"),
            name => all.contains(name),
        };
        ensure!(is_used, "`{name}` is used by no document");
        if let ("leaks.supp", Prepare::Text(text)) = (*name, prepare) {
            let rules = text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
            ensure!(all.contains(&rules), "the documents show another `{name}`");
        }
    }
    Ok(())
}
