//! `resymbolize`: names looked up again, with more debug files.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context as _, bail};

use super::open::{locations, read};
use crate::{
    recording::rewrite_names,
    report::escaped,
    symbolize::{FrameName, Names, SymbolizeOptions, Symbolizer},
};

/// `resymbolize REC --debug-dir DIR`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResymbolizeOptions {
    /// The recording.
    pub path: PathBuf,
    /// Roots of debug files.
    pub debug_dirs: Vec<PathBuf>,
}

/// Runs the command; the exit status.
///
/// # Errors
/// The recording cannot be read or rewritten, or the output not written.
pub fn resymbolize(options: &ResymbolizeOptions) -> anyhow::Result<u8> {
    let path = options.path.display();
    for dir in &options.debug_dirs {
        if !dir.is_dir() {
            bail!("failed to read `{}`: not a directory", dir.display());
        }
    }
    let recording = read(&options.path)?;
    let mut roots = options.debug_dirs.clone();
    roots.extend(SymbolizeOptions::default().debug_roots);
    let mut symbolizer = Symbolizer::new(SymbolizeOptions { debug_roots: roots, only_by_build_id: true });
    let found = symbolizer.resolve_locations(&recording.modules, locations(&recording), &|_| ());
    let (names, better) = best_of(&recording.names, &found);
    if better.addresses > 0 {
        rewrite_names(&options.path, &names).with_context(|| format!("failed to rewrite `{path}`"))?;
    }
    for problem in &recording.problems {
        eprintln!("memtrace-bpf: note: `{}`: {}", escaped(&path.to_string()), escaped(problem));
    }

    let mut stdout = io::stdout();
    if better.addresses == 0 {
        writeln!(
            stdout,
            "nothing better was found for any of {} addresses: `{}` is left as it is",
            names.len(),
            escaped(&path.to_string())
        )?;
        return Ok(0);
    }
    writeln!(
        stdout,
        "{} of {} addresses got lines, {} got functions, {} got better names in all; {} have lines now",
        better.lines,
        names.len(),
        better.functions,
        better.addresses,
        names.iter().filter(|(_, names)| rank(names).lines).count()
    )?;
    Ok(0)
}

/// Addresses that are better named than before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Better {
    /// All of them; some only name more inlined functions.
    addresses: usize,
    functions: usize,
    lines: usize,
}

/// How much the names at one address say; lines count more than functions, and each inlined function more than none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    lines: bool,
    function: bool,
    n_known: usize,
}

fn rank(names: &[FrameName]) -> Rank {
    let n_known = names.iter().filter(|name| name.function.is_ok()).count();
    Rank { lines: names.iter().any(|name| name.line.is_some()), function: n_known > 0, n_known }
}

/// At each address the names that say more; the old ones where neither does.
fn best_of(old: &Names, found: &Names) -> (Names, Better) {
    let mut best = old.clone();
    let mut better = Better::default();
    for ((module, vaddr), new) in found.iter() {
        let had = old.at(module, vaddr).map(|names| rank(names));
        let has = rank(new);
        if had.is_none_or(|had| has > had && has.function >= had.function) {
            best.insert(module, vaddr, Arc::clone(new));
            better.addresses += 1;
            better.lines += usize::from(has.lines && !had.is_some_and(|had| had.lines));
            better.functions += usize::from(has.function && !had.is_some_and(|had| had.function));
        }
    }
    (best, better)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tracer_common::addr::FileVaddr;

    use super::*;
    use crate::{snapshot::ModuleId, symbolize::NoSymbol};

    const AT: (ModuleId, FileVaddr) = (ModuleId(0), FileVaddr(0x10));

    fn name(function: Option<&str>, line: Option<u32>) -> FrameName {
        FrameName {
            function: function.map(Arc::from).ok_or(NoSymbol::Stripped),
            file: line.map(|_| Arc::from(Path::new("a.c"))),
            line,
            inlined: false,
        }
    }

    fn names(list: &[FrameName]) -> Names {
        let mut names = Names::default();
        names.insert(AT.0, AT.1, list.into());
        names
    }

    fn kept(old: &[FrameName], new: &[FrameName]) -> (Arc<[FrameName]>, Better) {
        let (best, better) = best_of(&names(old), &names(new));
        (Arc::clone(best.at(AT.0, AT.1).expect("one address")), better)
    }

    #[test]
    fn a_better_name_is_never_replaced_by_a_worse_one() {
        let ladder = [
            vec![name(None, None)],
            vec![name(Some("f"), None)],
            vec![name(Some("f"), Some(3))],
            vec![name(Some("inlined"), Some(9)), name(Some("f"), Some(3))],
        ];
        for (worse, better) in (0..ladder.len()).flat_map(|b| (0..=b).map(move |a| (a, b))) {
            assert_eq!(kept(&ladder[better], &ladder[worse]), (ladder[better].as_slice().into(), Better::default()));
            assert_eq!(&*kept(&ladder[worse], &ladder[better]).0, ladder[better].as_slice());
        }
    }

    #[test]
    fn a_line_without_its_function_does_not_cost_the_function() {
        assert_eq!(&*kept(&[name(Some("f"), None)], &[name(None, Some(3))]).0, [name(Some("f"), None)]);
    }

    #[test]
    fn what_got_better_is_counted() {
        let better = kept(&[name(None, None)], &[name(Some("f"), Some(3))]).1;
        assert_eq!(better, Better { addresses: 1, functions: 1, lines: 1 });
        assert_eq!(
            kept(&[name(Some("f"), None)], &[name(Some("f"), Some(3))]).1,
            Better { addresses: 1, functions: 0, lines: 1 }
        );
    }
}
