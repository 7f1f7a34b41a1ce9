//! Arguments of `export`.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, ValueEnum, builder::PossibleValue};
use tracer_user::{
    offline::{ExportOptions, ExportOutput},
    recording::Reference,
    report::export::Format,
};

use super::{args::refuse, view::ViewArgs};

/// A format as it is typed; names and help are those of the table of formats.
#[derive(Clone, Copy, Debug)]
struct FormatArg(Format);

impl ValueEnum for FormatArg {
    fn value_variants<'a>() -> &'a [Self] {
        static VARIANTS: [FormatArg; Format::ALL.len()] = {
            let mut all = [FormatArg(Format::Folded); Format::ALL.len()];
            let mut at = 0;
            while at < all.len() {
                all[at] = FormatArg(Format::ALL[at]);
                at += 1;
            }
            all
        };
        &VARIANTS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0.name()).help(self.0.about()))
    }
}

/// What `export` takes.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Recording, and the snapshot by label, number, start, end or peak [default: end]
    #[arg(value_name = "REC[@SNAPSHOT]")]
    reference: OsString,
    /// Older snapshot to show the difference against (folded, flamegraph, pprof)
    #[arg(long, value_name = "REC[@SNAPSHOT]")]
    base: Option<OsString>,
    /// Form to write
    #[arg(long, short, value_enum)]
    format: FormatArg,
    /// Where it goes; standard output: -
    #[arg(long, short, value_name = "FILE|-")]
    output: PathBuf,
    #[command(flatten)]
    view: ViewArgs,
}

impl ExportArgs {
    /// The validated options.
    pub(super) fn validated(self) -> ExportOptions {
        let format = self.format.0;
        if let Some(option) = self.view.given().into_iter().find(|option| !format.heeds(option)) {
            let able = Format::ALL.into_iter().filter(|format| format.heeds(option)).map(Format::name);
            let able = able.collect::<Vec<_>>().join(", ");
            refuse(&format!("{option} makes no difference to {}, but to {able}", format.name()));
        }
        ExportOptions {
            reference: Reference::parse(&self.reference),
            base: self.base.map(|text| Reference::parse(&text)),
            format,
            output: match self.output {
                path if path.as_os_str() == "-" => ExportOutput::Stdout,
                path => ExportOutput::File(path),
            },
            report: self.view.validated(),
        }
    }
}
