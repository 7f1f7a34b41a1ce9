//! Opens a recording for a command, with names: those of the file, else looked up here.

use std::{collections::HashSet, path::Path};

use anyhow::Context as _;
use tracer_common::addr::FileVaddr;

use crate::{
    recording::Recording,
    snapshot::ModuleId,
    symbolize::{Names, SymbolizeOptions, Symbolizer},
};

/// Reads the recording at `path`. What is wrong with it, if anything, stands in [`Recording::problems`]; commands tell it.
///
/// # Errors
/// It cannot be read, or is no recording.
pub(super) fn open(path: &Path) -> anyhow::Result<Recording> {
    let mut recording = read(path)?;
    if recording.names.is_empty() {
        let mut symbolizer =
            Symbolizer::new(SymbolizeOptions { only_by_build_id: true, ..SymbolizeOptions::default() });
        recording.names = symbolizer.resolve_locations(&recording.modules, locations(&recording), &|_| ());
        if !recording.names.is_empty() {
            let (found, all) = (n_named(&recording.names), recording.names.len());
            recording.problems.push(format!(
                "it holds no names: {found} of {all} addresses found theirs in the files of this machine"
            ));
        }
    }
    Ok(recording)
}

/// Reads the recording at `path`, as it is.
///
/// # Errors
/// It cannot be read, or is no recording.
pub(super) fn read(path: &Path) -> anyhow::Result<Recording> {
    Recording::read(path).with_context(|| format!("failed to open `{}`", path.display()))
}

/// Where the frames of all stacks lie, each once.
pub(super) fn locations(recording: &Recording) -> HashSet<(ModuleId, FileVaddr)> {
    recording.stacks.iter().flat_map(|stack| &stack.frames).filter_map(|frame| frame.location).collect()
}

fn n_named(names: &Names) -> usize {
    names.iter().filter(|(_, names)| names.iter().any(|name| name.function.is_ok())).count()
}
