//! A profile of speedscope: one weighted stack a sample, one profile a view. The form is speedscope's published schema
//! (file-format-schema.json in its npm package).

use std::io::{self, Write};

use serde::Serialize;

use super::{
    Source, view_name,
    walk::{Walk, Walked},
};
use crate::options::View;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    exporter: String,
    name: String,
    active_profile_index: usize,
    shared: Shared<'a>,
    profiles: Vec<Profile<'a>>,
}

#[derive(Serialize)]
struct Shared<'a> {
    frames: Vec<Frame<'a>>,
}

#[derive(Serialize)]
struct Frame<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    file: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    line: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Profile<'a> {
    r#type: &'static str,
    name: String,
    unit: &'static str,
    start_value: u64,
    end_value: u64,
    samples: Vec<&'a [u32]>,
    weights: Vec<u64>,
}

/// Writes the profiles.
pub(super) fn write(source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut walk = Walk::with_owners(source.snapshot, source.names, source.owners());
    let mut walked = Walked::default();
    let mut stacks: Vec<Box<[u32]>> = Vec::with_capacity(source.snapshot.stacks.len());
    for stats in &source.snapshot.stacks {
        walk.stack(stats, source.options.key, &mut walked);
        stacks.push(walk.frames_of(&walked).collect());
    }
    let wanted = view_name(source.options.view);
    let mut profiles: Vec<Profile<'_>> = [View::Live, View::Peak, View::Allocated, View::Freed]
        .into_iter()
        .map(|view| profile(source, &stacks, view))
        .filter(|profile| profile.end_value > 0 || profile.name.starts_with(wanted))
        .collect();
    let active_profile_index =
        profiles.iter().position(|profile| profile.name.starts_with(wanted)).expect("the wanted view is never dropped");
    // Viewers show one profile at a time: what is lost belongs to each.
    let losses = source.losses();
    for profile in &mut profiles {
        profile.name = format!("{} ({losses})", profile.name);
    }
    let frames =
        walk.frames.iter().map(|frame| Frame { name: &frame.function, file: frame.file.as_deref(), line: frame.line });
    let file = File {
        schema: "https://www.speedscope.app/file-format-schema.json",
        exporter: format!("memtrace-bpf@{}", source.version),
        name: format!("{}, {}; {}", source.target(), source.moment(), source.figures()),
        active_profile_index,
        shared: Shared { frames: frames.collect() },
        profiles,
    };
    serde_json::to_writer(&mut *out, &file)?;
    out.write_all(b"\n")
}

fn profile<'a>(source: &Source<'_>, stacks: &'a [Box<[u32]>], view: View) -> Profile<'a> {
    let mut samples = Vec::new();
    let mut weights = Vec::new();
    for (stats, stack) in source.snapshot.stacks.iter().zip(stacks) {
        let bytes = view.size(&stats.totals);
        if bytes > 0 {
            samples.push(&**stack);
            weights.push(bytes);
        }
    }
    Profile {
        r#type: "sampled",
        name: format!("{} bytes", view_name(view)),
        unit: "bytes",
        start_value: 0,
        end_value: weights.iter().sum(),
        samples,
        weights,
    }
}
