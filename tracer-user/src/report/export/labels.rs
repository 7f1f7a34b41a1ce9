//! Stacks as lists of labels, for formats in which a frame is nothing but its text: what the key cannot tell apart is one.

use std::{collections::HashMap, path::Path};

use super::{
    Source, text,
    walk::{ExportFrame, Walk, Walked},
};
use crate::{
    analysis::statistics::module_of,
    options::Key,
    report::format::{path_text, short_path},
    snapshot::Snapshot,
    symbolize::{Names, module_name},
};

/// All stacks of a source, by label.
#[derive(Debug, Default)]
pub(super) struct Labelled {
    /// Texts in their order.
    pub labels: Vec<String>,
    /// Stacks by their labels, in the order of the texts, outermost first.
    pub stacks: Vec<LabelledStack>,
}

/// One stack.
#[derive(Debug)]
pub(super) struct LabelledStack {
    /// Indices of [`Labelled::labels`], outermost first.
    pub frames: Box<[u32]>,
    /// Bytes of the source's view.
    pub bytes: u64,
    /// The same in the older snapshot; 0 without one.
    pub base_bytes: u64,
}

/// Labels every stack that has bytes in the source's view, now or in its base.
pub(super) fn labelled(source: &Source<'_>) -> Labelled {
    let mut ids = HashMap::new();
    let mut sums: HashMap<Box<[u32]>, (u64, u64)> = HashMap::new();
    add(source, source.snapshot, source.names, &mut ids, |stack, bytes| sums.entry(stack).or_default().0 += bytes);
    if let Some(base) = source.base {
        add(source, base.snapshot, base.names, &mut ids, |stack, bytes| sums.entry(stack).or_default().1 += bytes);
    }
    in_order(ids, sums)
}

fn add(
    source: &Source<'_>,
    snapshot: &Snapshot,
    names: &Names,
    ids: &mut HashMap<String, u32>,
    mut put: impl FnMut(Box<[u32]>, u64),
) {
    let key = source.options.key;
    let mut walk = Walk::with_owners(snapshot, names, source.owners());
    let mut walked = Walked::default();
    let mut of_frame: Vec<u32> = Vec::new();
    for stats in &snapshot.stacks {
        let bytes = source.options.view.size(&stats.totals);
        if bytes == 0 {
            continue;
        }
        walk.stack(stats, key, &mut walked);
        for frame in &walk.frames[of_frame.len()..] {
            let next = ids.len() as u32;
            of_frame.push(*ids.entry(label(snapshot, frame, key)).or_insert(next));
        }
        let mut stack: Vec<u32> = walk.frames_of(&walked).map(|frame| of_frame[frame as usize]).collect();
        if matches!(key, Key::Filename | Key::Module) {
            // Calls within one file or module are one frame.
            stack.dedup();
        }
        put(stack.into(), bytes);
    }
}

/// Numbers the labels by their text, so that the order of stacks does not hang on that of the snapshot.
fn in_order(ids: HashMap<String, u32>, sums: HashMap<Box<[u32]>, (u64, u64)>) -> Labelled {
    let mut labels: Vec<(String, u32)> = ids.into_iter().collect();
    labels.sort_unstable();
    let mut rank = vec![0; labels.len()];
    for (at, (_, id)) in (0..).zip(&labels) {
        rank[*id as usize] = at;
    }
    let mut stacks: Vec<LabelledStack> = sums
        .into_iter()
        .map(|(mut frames, (bytes, base_bytes))| {
            frames.iter_mut().for_each(|frame| *frame = rank[*frame as usize]);
            LabelledStack { frames, bytes, base_bytes }
        })
        .collect();
    stacks.sort_unstable_by(|a, b| a.frames.cmp(&b.frames));
    Labelled { labels: labels.into_iter().map(|(label, _)| label).collect(), stacks }
}

/// What a frame is called under a key.
fn label(snapshot: &Snapshot, frame: &ExportFrame, key: Key) -> String {
    let module = || module_of(snapshot, frame.module).map(|module| text(&module_name(module)));
    let own = || frame.function.clone();
    match key {
        Key::Function => own(),
        Key::Filename => frame.file.clone().or_else(module).unwrap_or_else(own),
        Key::Module => module_of(snapshot, frame.module).map_or_else(own, |module| match module.kind {
            crate::snapshot::ModuleKind::File => text(&path_text(&module.path)),
            _ => text(&module_name(module)),
        }),
        _ => match (&frame.file, frame.line) {
            (Some(file), Some(line)) => format!("{} ({}:{line})", frame.function, short_path(Path::new(file))),
            _ => own(),
        },
    }
}
