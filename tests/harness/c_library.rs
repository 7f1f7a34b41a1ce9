//! The C library of a running program, to be probed by a test's own kernel side.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use tracer_user::{bpf::Binding, plan::plan};

/// The file, and the places of these functions in it.
pub fn sites_of_libc(pid: u32, functions: &[&str]) -> Result<(PathBuf, Vec<Binding>)> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let library = maps.lines().find_map(|map| Some(map.split_once('/')?.1).filter(|path| path.contains("/libc.so")));
    let library = Path::new("/").join(library.context("the program has a C library")?);
    let plan = plan(&fs::read(&library)?)?;
    let wanted = plan.sites.iter().filter(|site| functions.contains(&site.symbol));
    let bindings: Vec<Binding> = wanted.map(Binding::from).collect();
    ensure!(bindings.len() == functions.len(), "{bindings:?}");
    Ok((library, bindings))
}
