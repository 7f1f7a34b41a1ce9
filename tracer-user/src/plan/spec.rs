//! Allocators that the user describes: pools and programs' own functions.
//!
//! ```text
//! alloc=MODULE:SYMBOL(size=argN[*argM],ret=ptr|out=argK) free=MODULE:SYMBOL(ptr=argN)
//! ```
//! Arguments count from 0 to 5. With `out=argK` the block comes through that pointer and the function returns 0 for success,
//! as posix_memalign does. `alloc=` and `free=` may stand more than once.

use std::{
    collections::HashSet,
    path::Path,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use thiserror::Error;
use tracer_common::cookie::{Reg, Shape};

use super::{allocators::AllocatorFunction, prologue::Arguments};

/// Registers of integer arguments 0–5 (System V ABI).
const ARG_REGISTERS: [Reg; 6] = [Reg(7), Reg(6), Reg(2), Reg(1), Reg(8), Reg(9)];

/// Longest description that is read.
const MAX_BYTES: usize = 4096;

/// One `--allocator`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocatorSpec {
    /// In the order of the text.
    pub functions: Vec<SpecFunction>,
}

/// One function of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecFunction {
    /// The file: its path, its name, or its name without `.so` and what follows.
    pub module: String,
    /// The symbol, as the symbol table has it (mangled).
    pub symbol: &'static str,
    /// Where its arguments are.
    pub arguments: Arguments,
}

impl SpecFunction {
    /// Whether a mapped file is the one that is meant.
    pub fn is_of(&self, path: &Path) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        path.to_str() == Some(&self.module)
            || name == self.module
            || name.strip_prefix(&self.module).is_some_and(|rest| rest == ".so" || rest.starts_with(".so."))
    }

    /// As a row of the table.
    pub fn row(&self) -> AllocatorFunction {
        AllocatorFunction {
            name: self.symbol,
            symbols: &[],
            shape: self.arguments.shape,
            args: self.arguments.regs,
            needs: &[],
            is_common_name: false,
            throws: self.arguments.shape.returns(),
            is_wrapper: false,
        }
    }
}

/// Why a description is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SpecError {
    /// The text is not of the form.
    #[error("does not parse at column {column}: expected {expected}")]
    Syntax {
        /// The first character that does not fit, counted from 1.
        column: usize,
        /// What would fit.
        expected: &'static str,
    },
    /// Half an allocator: its blocks would never end, or never begin.
    #[error("has no `{missing}=`: an allocator is described by both")]
    Half {
        /// What is missing.
        missing: &'static str,
    },
    /// No entry program reads this.
    #[error("a product of arguments with `out=` is not supported: use `ret=ptr`, or one size argument")]
    ProductWithOut,
    /// Not for a command line.
    #[error("is longer than {MAX_BYTES} bytes")]
    TooLong,
}

impl FromStr for AllocatorSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        if text.len() > MAX_BYTES {
            return Err(SpecError::TooLong);
        }
        let mut cursor = Cursor { text, at: 0 };
        let mut functions = Vec::new();
        cursor.skip_spaces();
        loop {
            functions.push(function(&mut cursor)?);
            if !cursor.skip_spaces() {
                break;
            }
        }
        if !cursor.rest().is_empty() {
            return Err(cursor.expected("a space, or the end"));
        }
        let has = |returns| functions.iter().any(|function| function.arguments.shape.returns() == returns);
        match (has(true), has(false)) {
            (true, true) => Ok(Self { functions }),
            (false, _) => Err(SpecError::Half { missing: "alloc" }),
            (_, false) => Err(SpecError::Half { missing: "free" }),
        }
    }
}

fn function(cursor: &mut Cursor<'_>) -> Result<SpecFunction, SpecError> {
    let allocates = if cursor.take("alloc=") {
        true
    } else if cursor.take("free=") {
        false
    } else {
        return Err(cursor.expected("`alloc=` or `free=`"));
    };
    let module = cursor.until(':', "MODULE:SYMBOL")?.to_owned();
    let symbol = intern(cursor.until('(', "SYMBOL(")?);
    let arguments = if allocates { allocation(cursor)? } else { release(cursor)? };
    cursor.need(")", "`)`")?;
    Ok(SpecFunction { module, symbol, arguments })
}

fn allocation(cursor: &mut Cursor<'_>) -> Result<Arguments, SpecError> {
    cursor.need("size=", "`size=`")?;
    let size = cursor.arg()?;
    let factor = if cursor.take("*") { Some(cursor.arg()?) } else { None };
    cursor.need(",", if factor.is_some() { "`,`" } else { "`*argM` or `,`" })?;
    if cursor.take("ret=ptr") {
        let (shape, second) = factor.map_or((Shape::Size, size), |factor| (Shape::CountSize, factor));
        return Ok(Arguments { shape, regs: [size, second, second] });
    }
    cursor.need("out=", "`ret=ptr` or `out=argK`")?;
    let out = cursor.arg()?;
    if factor.is_some() {
        return Err(SpecError::ProductWithOut);
    }
    Ok(Arguments { shape: Shape::OutAlignSize, regs: [out, size, size] })
}

fn release(cursor: &mut Cursor<'_>) -> Result<Arguments, SpecError> {
    cursor.need("ptr=", "`ptr=`")?;
    Ok(Arguments { shape: Shape::Pointer, regs: [cursor.arg()?; 3] })
}

struct Cursor<'text> {
    text: &'text str,
    at: usize,
}

impl<'text> Cursor<'text> {
    fn rest(&self) -> &'text str {
        &self.text[self.at..]
    }

    fn expected(&self, expected: &'static str) -> SpecError {
        SpecError::Syntax { column: self.text[..self.at].chars().count() + 1, expected }
    }

    fn take(&mut self, word: &str) -> bool {
        let is_there = self.rest().starts_with(word);
        if is_there {
            self.at += word.len();
        }
        is_there
    }

    fn need(&mut self, word: &str, expected: &'static str) -> Result<(), SpecError> {
        if self.take(word) { Ok(()) } else { Err(self.expected(expected)) }
    }

    /// Whether there were any, and something behind them.
    fn skip_spaces(&mut self) -> bool {
        let n = self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
        self.at += n;
        n > 0 && !self.rest().is_empty()
    }

    /// A word up to `end`, which is taken too.
    fn until(&mut self, end: char, expected: &'static str) -> Result<&'text str, SpecError> {
        let word = self.rest().split([end, ' ', '\t']).next().unwrap_or_default();
        if word.is_empty() || !self.rest()[word.len()..].starts_with(end) {
            self.at += word.len();
            return Err(self.expected(expected));
        }
        self.at += word.len() + end.len_utf8();
        Ok(word)
    }

    fn arg(&mut self) -> Result<Reg, SpecError> {
        const EXPECTED: &str = "`arg0` to `arg5`";
        let start = self.at;
        self.need("arg", EXPECTED)?;
        let digits = self.rest().len() - self.rest().trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number = self.rest()[..digits].parse::<usize>().ok();
        let Some(register) = number.and_then(|number| ARG_REGISTERS.get(number)) else {
            self.at = start;
            return Err(self.expected(EXPECTED));
        };
        self.at += digits;
        Ok(*register)
    }
}

/// Keeps a name for the life of the process, as plans refer to names. Each is kept once, and only users type them.
fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    let names = names.get_or_insert_default();
    if let Some(known) = names.get(name) {
        return known;
    }
    let kept: &'static str = Box::leak(name.into());
    names.insert(kept);
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<AllocatorSpec, SpecError> {
        text.parse()
    }

    #[test]
    fn each_form_becomes_its_shape() {
        let spec = parse(
            "alloc=libpool.so.1:pool_alloc(size=arg1,ret=ptr) alloc=/opt/app:make(size=arg0*arg3,ret=ptr) \
             alloc=app:get(size=arg2,out=arg5)  free=libpool:pool_free(ptr=arg1)",
        );
        let functions = spec.expect("it parses").functions;
        let shapes: Vec<_> =
            functions.iter().map(|f| (f.symbol, f.arguments.shape, f.arguments.regs.map(|reg| reg.0))).collect();
        assert_eq!(
            shapes,
            [
                ("pool_alloc", Shape::Size, [6, 6, 6]),
                ("make", Shape::CountSize, [7, 1, 1]),
                ("get", Shape::OutAlignSize, [9, 2, 2]),
                ("pool_free", Shape::Pointer, [6, 6, 6]),
            ]
        );
    }

    #[test]
    fn errors_name_the_column() {
        let rows = [
            ("", 1, "`alloc=` or `free=`"),
            ("malloc=a:b", 1, "`alloc=` or `free=`"),
            ("alloc=", 7, "MODULE:SYMBOL"),
            ("alloc=lib", 10, "MODULE:SYMBOL"),
            ("alloc=lib:", 11, "SYMBOL("),
            ("alloc=lib:f", 12, "SYMBOL("),
            ("alloc=lib:f(", 13, "`size=`"),
            ("alloc=lib:f(size=4", 18, "`arg0` to `arg5`"),
            ("alloc=lib:f(size=arg6,ret=ptr)", 18, "`arg0` to `arg5`"),
            ("alloc=lib:f(size=arg0)", 22, "`*argM` or `,`"),
            ("alloc=lib:f(size=arg0*arg1)", 27, "`,`"),
            ("alloc=lib:f(size=arg0,ret=int)", 23, "`ret=ptr` or `out=argK`"),
            ("alloc=lib:f(size=arg0,ret=ptr", 30, "`)`"),
            ("alloc=lib:f(size=arg0,ret=ptr)free=", 31, "a space, or the end"),
            ("alloc=lib:f(size=arg0,ret=ptr) x", 32, "`alloc=` or `free=`"),
            ("alloc=lib:f(size=arg0,ret=ptr) free=lib:g(p=arg0)", 43, "`ptr=`"),
            ("alloc=lüb:f(x", 13, "`size=`"),
        ];
        for (text, column, expected) in rows {
            assert_eq!(parse(text), Err(SpecError::Syntax { column, expected }), "{text}");
        }
        let error = parse("alloc=lib").expect_err("half").to_string();
        assert_eq!(error, "does not parse at column 10: expected MODULE:SYMBOL");
    }

    #[test]
    fn half_an_allocator_is_refused() {
        let missing = |text| parse(text).expect_err("half");
        assert_eq!(missing("alloc=l:f(size=arg0,ret=ptr)"), SpecError::Half { missing: "free" });
        assert_eq!(missing("free=l:f(ptr=arg0)"), SpecError::Half { missing: "alloc" });
        assert_eq!(missing("alloc=l:f(size=arg0*arg1,out=arg2) free=l:g(ptr=arg0)"), SpecError::ProductWithOut);
    }

    #[test]
    fn a_module_is_told_by_path_name_or_stem() {
        let of = |module: &str, path: &str| {
            let arguments = Arguments { shape: Shape::Pointer, regs: Reg::ARGS };
            SpecFunction { module: module.to_owned(), symbol: "f", arguments }.is_of(Path::new(path))
        };
        for module in ["/lib/libpool.so.1", "libpool.so.1", "libpool"] {
            assert!(of(module, "/lib/libpool.so.1"), "{module}");
        }
        for module in ["libpoo", "pool", "/usr/lib/libpool.so.1", ""] {
            assert!(!of(module, "/lib/libpool.so.1"), "{module}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(alloc=|free=|size=|arg[0-9]|ret=ptr|[:(),* ]|\\PC){0,12}") {
            if let Err(SpecError::Syntax { column, .. }) = parse(&text) {
                prop_assert!(column <= text.chars().count() + 1);
            }
        }
    }
}
