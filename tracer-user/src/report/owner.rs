//! Whose memory it is, in words: what a report is about, and lines by process, container, command or user.

use std::borrow::Cow;

use super::format::{escaped, shortened};
use crate::{
    analysis::statistics::Statistic,
    options::Key,
    snapshot::{Home, Owner, ProcessEnd, ProcessStats, Snapshot},
};

/// What a report is about: `pid 4711 (imgsrv)`, or `container web, 7 processes (5 running)`.
pub fn subject(snapshot: &Snapshot) -> String {
    let target = &snapshot.target;
    if !snapshot.is_of_many() {
        return format!("pid {} ({})", target.pid, shortened(&target.comm));
    }
    format!("{}, {}", shortened(&scope_name(snapshot)), counted(snapshot.told().map(|(_, process)| process)))
}

/// What selected the processes; hostile.
pub(super) fn scope_name(snapshot: &Snapshot) -> Cow<'_, str> {
    if snapshot.scope.is_empty() {
        return Cow::Owned(format!("pid {} ({}) and others", snapshot.target.pid, snapshot.target.comm));
    }
    Cow::Borrowed(&snapshot.scope)
}

/// `7 processes (5 running)`.
fn counted<'a>(processes: impl Iterator<Item = &'a ProcessStats>) -> String {
    let (n_all, n_running) = numbers_of(processes);
    let what = if n_all == 1 { "process" } else { "processes" };
    match n_running {
        0 => format!("{n_all} {what} (all ended)"),
        n if n == n_all => format!("{n_all} {what}"),
        n => format!("{n_all} {what} ({n} running)"),
    }
}

/// How many processes there are, and how many of them run. A forged recording may say that there are any number.
pub(super) fn numbers_of<'a>(processes: impl Iterator<Item = &'a ProcessStats>) -> (u64, u64) {
    processes.map(number_of).fold((0, 0), |(all, running): (u64, u64), (more_all, more_running)| {
        (all.saturating_add(more_all), running.saturating_add(more_running))
    })
}

/// How many processes an entry stands for, and how many of them run: one, or the number that a sum of ended ones has behind its
/// command.
fn number_of(process: &ProcessStats) -> (u64, u64) {
    let n = process.n_processes();
    (n, if process.pid != 0 && process.ended.is_none() { n } else { 0 })
}

/// What a line by process, container, command or user stands for.
pub(super) fn label(line: &Statistic<'_>, snapshot: &Snapshot, key: Key) -> String {
    let Some(owner) = snapshot.owner(&line.largest.stack) else { return "<process not known>".to_owned() };
    match key {
        Key::Container => home(owner.home()),
        Key::Command => shortened(owner.command()),
        Key::User => owner.user().map_or_else(|| "<user not recorded>".to_owned(), shortened),
        _ => process(owner),
    }
}

/// `pid 4711 (nginx)`; the sum of several has no pid.
pub(super) fn process(owner: Owner<'_>) -> String {
    match owner.pid() {
        0 => shortened(owner.comm()),
        pid => format!("pid {pid} ({})", shortened(owner.comm())),
    }
}

/// `container web`.
pub(super) fn home(home: Home<'_>) -> String {
    match home {
        Home::NotKnown => "<container not recorded>".to_owned(),
        Home::Host => "<no container>".to_owned(),
        Home::Container(name) => format!("container {}", shortened(name)),
    }
}

/// What stands after the figures of a line: of a process where it runs and whether it ended, of others how many processes.
pub(super) fn tail(line: &Statistic<'_>, snapshot: &Snapshot, key: Key) -> String {
    let Some(owner) = snapshot.owner(&line.largest.stack) else { return String::new() };
    if key != Key::Process {
        let same = snapshot.told().filter(|(id, process)| {
            let other = Owner::One(*id, process);
            match key {
                Key::Container => other.home() == owner.home(),
                Key::Command => other.command() == owner.command(),
                _ => other.user() == owner.user(),
            }
        });
        return match owner {
            Owner::One(..) => counted(same.map(|(_, process)| process)),
            Owner::Target(_) => String::new(),
        };
    }
    let place = match owner.home() {
        Home::Container(name) => Some(format!("container {}", shortened(name))),
        Home::NotKnown | Home::Host => None,
    };
    let end = owner.ended().map(|(at, how)| format!("{} at {:.1} s", ended(how), at.as_secs_f64()));
    place.into_iter().chain(end).collect::<Vec<_>>().join(", ")
}

/// How a process ended, in reports and exports.
pub(super) const fn ended(how: ProcessEnd) -> &'static str {
    match how {
        ProcessEnd::Exited => "exited",
        ProcessEnd::Exec => "exec",
        ProcessEnd::Released => "released",
    }
}

/// All processes of one command in one place, as lines of two sessions are compared by: `nginx in container web`.
pub(super) fn program(line: &Statistic<'_>, snapshot: &Snapshot) -> String {
    let Some(owner) = snapshot.owner(&line.largest.stack) else { return "<process not known>".to_owned() };
    match owner.home() {
        Home::Container(name) => format!("{} in container {}", shortened(owner.command()), shortened(name)),
        Home::NotKnown | Home::Host => shortened(owner.command()),
    }
}

/// Cut to `width` columns; the end of what is cut is `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    let text = escaped(text);
    if text.chars().count() <= width {
        return text;
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}
