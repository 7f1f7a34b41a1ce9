//! A flame graph: an SVG that a browser opens, drawn by inferno. With a base, red is what grew and blue what shrank.

use std::io::{self, Write};

use inferno::flamegraph::{Options, color::BasicPalette, color::Palette, from_lines};

use super::{
    Source, folded,
    labels::{Labelled, labelled},
    view_name,
};
use crate::report::format::size;

/// Draws the stacks.
pub(super) fn write(source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
    let Labelled { labels, stacks } = labelled(source);
    if stacks.is_empty() {
        return write_empty(source, out);
    }
    let labels: Vec<String> = labels.iter().map(|label| folded::field(label)).collect();
    let mut lines = Vec::with_capacity(stacks.len());
    for stack in &stacks {
        let mut line = Vec::new();
        folded::line(&labels, stack, source.base.is_some(), &mut line)?;
        lines.push(String::from_utf8(line).expect("labels are text"));
    }
    let mut options = options(source);
    from_lines(&mut options, lines.iter().rev().map(|line| line.trim_end()), out)
}

fn options(source: &Source<'_>) -> Options<'static> {
    let mut options = Options::default();
    options.title = title(source);
    options.subtitle = Some(subtitle(source));
    options.colors = Palette::Basic(BasicPalette::Mem);
    options.deterministic = true;
    "bytes".clone_into(&mut options.count_name);
    "Frame:".clone_into(&mut options.name_type);
    options.notes = format!("memtrace-bpf {}; {}; {}", source.version, source.figures(), source.losses());
    // The stacks are in order already, and by frames: by text, `f;…`, `f-x;…` and `f …` would tear `f` apart. What inferno
    // calls a flame chart is a graph drawn in the reverse of the order given.
    options.flame_chart = true;
    options
}

fn title(source: &Source<'_>) -> String {
    let what = view_name(source.options.view);
    let differs = if source.base.is_some() { ", difference" } else { "" };
    format!("{what} bytes of {}{differs}, {}", source.target(), source.moment())
}

fn subtitle(source: &Source<'_>) -> String {
    let sum = source.options.view.size(&source.shown());
    let before = source.base.map(|base| {
        let sum: u64 = base.snapshot.stacks.iter().map(|stack| source.options.view.size(&stack.totals)).sum();
        format!(" (before: {})", size(sum))
    });
    format!("{}{}; {}", size(sum), before.unwrap_or_default(), source.losses())
}

/// inferno refuses to draw nothing.
fn write_empty(source: &Source<'_>, out: &mut dyn Write) -> io::Result<()> {
    let words = [title(source), subtitle(source), "no bytes in this view".to_owned()];
    let [title, subtitle, empty] = words.map(|words| xml(&words));
    write!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1200\" height=\"90\">\n\
         <text x=\"10\" y=\"25\">{title}</text>\n<text x=\"10\" y=\"50\">{subtitle}</text>\n\
         <text x=\"10\" y=\"75\">{empty}</text>\n</svg>\n"
    )
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
