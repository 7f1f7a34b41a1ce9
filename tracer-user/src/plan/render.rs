//! A plan as text, for `memtrace-bpf plan`.

use std::fmt::Write as _;

use tracer_common::cookie::Reg;

use super::{ProbePlan, ProbeSite, allocators::arg_name};

const REG_NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

impl ProbePlan {
    /// One line a site and one a problem, under a heading with `label` (the file's name).
    pub fn render(&self, label: &str) -> String {
        let family = self.family.map_or("no known allocator", |family| family.name);
        let mut out = format!("{}: {family}, {} sites\n", escape(label), self.sites.len());
        let rows: Vec<_> = self.sites.iter().map(row).collect();
        let mut widths = [0; COLUMNS];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        for row in &rows {
            let mut line = String::from(" ");
            for (cell, width) in row.iter().zip(widths) {
                // Writing to a String cannot fail.
                let _infallible = write!(line, " {cell:width$} ");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        if !self.covered.is_empty() {
            out.push_str("  seen through the traced functions that they call: ");
            out.push_str(&self.covered.join(", "));
            out.push('\n');
        }
        for problem in &self.problems {
            out.push_str("  not probed: ");
            out.push_str(&escape(&problem.to_string()));
            out.push('\n');
        }
        out
    }
}

const COLUMNS: usize = 7;

fn row(site: &ProbeSite) -> [String; COLUMNS] {
    let mut why = site.why.to_string();
    if !site.aliases.is_empty() {
        why = format!("{why}; also {}", site.aliases.join(", "));
    }
    [
        escape(site.name),
        format!("{:#x}", site.file_offset),
        format!("{}+{}", site.symbol, site.offset_from_entry),
        escape(&site.instruction),
        site.execution.to_string(),
        format!("{} {}", probes(site), args(site)),
        escape(&why),
    ]
}

fn probes(site: &ProbeSite) -> String {
    match (site.return_probe, site.exits.len()) {
        (true, _) => "entry+return".to_owned(),
        (false, 0) => "entry".to_owned(),
        (false, n) => format!("entry+{n} exits"),
    }
}

fn args(site: &ProbeSite) -> String {
    let read = (0..3).filter(|&n| site.shape.reads_arg(n));
    let mut args: Vec<_> = read.map(|n| format!("{}={}", arg_name(site.shape, n), reg_name(site.args[n]))).collect();
    if site.rsp_moved_bytes > 0 {
        args.push(format!("return address at rsp+{}", site.rsp_moved_bytes));
    }
    args.join(" ")
}

fn reg_name(reg: Reg) -> &'static str {
    REG_NAMES[usize::from(reg.0 & 15)]
}

/// Names come from a file that someone else wrote: no control character of theirs reaches the terminal.
fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut escaped, character| {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use tracer_common::{
        addr::{FileOffset, FileVaddr},
        cookie::Shape,
    };

    use super::{
        super::{Execution, Problem, Why},
        *,
    };

    #[test]
    fn plan_reads_as_a_table() {
        let malloc = ProbeSite {
            function: 0,
            shape: Shape::Size,
            name: "malloc",
            symbol: "malloc",
            aliases: vec!["__libc_malloc"],
            entry: FileVaddr(0x2000),
            file_offset: FileOffset(0x1007),
            offset_from_entry: 7,
            instruction: "ja 0x2040".to_owned(),
            execution: Execution::Emulated,
            args: [Reg(6), Reg(6), Reg(2)],
            rsp_moved_bytes: 0,
            return_probe: true,
            exits: Vec::new(),
            why: Why::FirstEmulated { n_passed: 2 },
        };
        let free = ProbeSite {
            function: 4,
            shape: Shape::Pointer,
            name: "free",
            symbol: "free",
            aliases: Vec::new(),
            file_offset: FileOffset(0x1100),
            offset_from_entry: 0,
            instruction: "sub rsp, 0x18".to_owned(),
            execution: Execution::SingleStepped,
            args: Reg::ARGS,
            rsp_moved_bytes: 24,
            return_probe: false,
            why: Why::NoBranchFound,
            ..malloc.clone()
        };
        let problems = vec![Problem::NotAFunction { symbol: "valloc" }];
        let exits = vec![FileOffset(0x1300), FileOffset(0x1310)];
        let new = ProbeSite { name: "operator new", symbol: "_Znwm", return_probe: false, exits, ..malloc.clone() };
        let plan = ProbePlan {
            family: None,
            sites: vec![malloc, free, new],
            problems,
            covered: vec!["_Znam", "_ZdlPv"],
            is_stripped: true,
        };
        assert_eq!(
            plan.render("lib\x1b[31m.so"),
            concat!(
                "lib\\u{1b}[31m.so: no known allocator, 3 sites\n",
                "  malloc        0x1007  malloc+7  ja 0x2040      emulated        entry+return size=rsi                   ",
                "first emulated instruction, behind 2; also __libc_malloc\n",
                "  free          0x1100  free+0    sub rsp, 0x18  single-stepped  entry ptr=rdi return address at rsp+24  ",
                "the entry: no branch found\n",
                "  operator new  0x1007  _Znwm+7   ja 0x2040      emulated        entry+2 exits size=rsi                  ",
                "first emulated instruction, behind 2; also __libc_malloc\n",
                "  seen through the traced functions that they call: _Znam, _ZdlPv\n",
                "  not probed: valloc is not a function\n",
            )
        );
    }
}
