//! Other tools on the same program: heaptrack's raw events and valgrind's totals.

use std::{collections::HashMap, ffi::OsStr, fs, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    guard::{Guard, piped},
    report::Figure,
    session::clean,
};

/// heaptrack's library, which its script preloads.
const PRELOAD: &str = "/usr/lib/heaptrack/libheaptrack_preload.so";

/// heaptrack's raw record of one run, summed without rounding.
#[derive(Clone, Debug, Default)]
pub struct HeaptrackEvents {
    /// Every allocation, in order.
    pub allocations: Vec<u64>,
    /// Ever allocated.
    pub allocated: Figure,
    /// The highest total.
    pub peak: Figure,
    /// Never freed, in heaptrack's view: "leaked".
    pub live: Figure,
}

/// Runs a program under heaptrack's library, which writes its events to a file.
pub fn heaptrack<A: AsRef<OsStr>>(program: &str, args: &[A], dir: &Path) -> Result<HeaptrackEvents> {
    ensure!(Path::new(PRELOAD).exists(), "`{PRELOAD}` is missing (apt-get install heaptrack)");
    let scratch = TempDir::new()?;
    let raw = scratch.path().join("heaptrack.raw");
    let mut command = clean(program);
    command.args(args).env("LD_PRELOAD", PRELOAD).env("DUMP_HEAPTRACK_OUTPUT", &raw).current_dir(dir);
    let output = Guard::spawn(piped(&mut command))?.finish()?;
    ensure!(output.status.success(), "{program} failed under heaptrack ({}): {}", output.status, output.stderr);
    HeaptrackEvents::parse(&fs::read_to_string(&raw).context("heaptrack left no record")?)
}

/// valgrind's `total heap usage`: what was ever allocated.
pub fn valgrind<A: AsRef<OsStr>>(program: &str, args: &[A], dir: &Path) -> Result<Figure> {
    let mut command = clean("valgrind");
    command.arg("--tool=memcheck").arg("--leak-check=no").arg(program).args(args).current_dir(dir);
    let output = Guard::spawn(piped(&mut command))?.finish()?;
    ensure!(output.status.success(), "{program} failed under valgrind ({}): {}", output.status, output.stderr);
    let usage = output.stderr.lines().find_map(|line| line.split_once("total heap usage: "));
    let (_, usage) = usage.with_context(|| format!("no `total heap usage` in:\n{}", output.stderr))?;
    let number = |part: &str| part.trim().split(' ').next().unwrap_or_default().replace(',', "").parse();
    // Commas stand between the parts and in the numbers: `6,849 allocs, 6,849 frees, 956,409 bytes allocated`.
    let parts: Vec<&str> = usage.split(", ").collect();
    let [allocs, _frees, bytes] = parts.as_slice() else { bail!("`{usage}` is not valgrind's line") };
    Ok(Figure::new(number(bytes)?, number(allocs)?))
}

impl HeaptrackEvents {
    /// Sums the raw format: `+ SIZE TRACE ADDRESS` and `- ADDRESS` in hexadecimal (libheaptrack.cpp, 1.4.0).
    fn parse(raw: &str) -> Result<Self> {
        let mut events = Self::default();
        let mut blocks = HashMap::new();
        let hex = |text: Option<&str>| u64::from_str_radix(text.unwrap_or_default(), 16);
        for line in raw.lines() {
            let mut fields = line.split(' ');
            match fields.next() {
                Some("+") => {
                    let size = hex(fields.next())?;
                    let address = hex(fields.nth(1))?;
                    if let Some(earlier) = blocks.insert(address, size) {
                        bail!("heaptrack saw {address:#x} handed out twice ({earlier} and {size} bytes)");
                    }
                    events.allocations.push(size);
                    events.allocated = events.allocated + Figure::new(size, 1);
                    events.live = events.live + Figure::new(size, 1);
                    if events.live.bytes > events.peak.bytes {
                        events.peak = events.live;
                    }
                }
                Some("-") => {
                    let address = hex(fields.next())?;
                    if let Some(size) = blocks.remove(&address) {
                        events.live = events.live - Figure::new(size, 1);
                    }
                }
                _ => {}
            }
        }
        Ok(events)
    }
}
