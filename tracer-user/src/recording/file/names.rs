//! Names of frames in a payload: texts and paths once, then columns that refer to them.

use std::{collections::HashMap, ffi::OsStr, hash::Hash, os::unix::ffi::OsStrExt as _, path::Path, sync::Arc};

use tracer_common::addr::FileVaddr;

use super::wire::{Column, Malformed, Reader, Wire as _, Writer, unzigzag};
use crate::{
    recording::stacks::deltas,
    snapshot::ModuleId,
    symbolize::{FrameName, Names, NoSymbol},
};

/// Memory of an entry of [`Names`], the free places of its table and both tables while it grows included.
const ENTRY_BYTES: usize = 192;
/// Memory of a shared text beside its bytes.
const SHARED_BYTES: usize = 48;

/// The payload.
pub fn put(names: &Names) -> Writer {
    let (mut texts, mut paths) = (Interner::default(), Interner::default());
    let mut addresses: Vec<_> = names.iter().collect();
    addresses.sort_unstable_by_key(|(at, _)| *at);
    let all = || addresses.iter().flat_map(|(_, names)| names.iter());
    let functions: Vec<u64> =
        all().map(|name| name.function.as_ref().map_or(0, |function| texts.number(function))).collect();
    let reasons: Vec<(u64, u64)> = all()
        .map(|name| match &name.function {
            Ok(_) => (0, 0),
            Err(reason) => {
                let (code, text) = code(reason);
                (code, text.map_or(0, |text| texts.number(text)))
            }
        })
        .collect();
    let files: Vec<u64> = all().map(|name| name.file.as_ref().map_or(0, |file| paths.number(file))).collect();

    let mut w = Writer::default();
    w.number(texts.all.len() as u64);
    texts.all.iter().for_each(|text| w.bytes(text.as_bytes()));
    w.number(paths.all.len() as u64);
    paths.all.iter().for_each(|path| w.bytes(path.as_os_str().as_bytes()));
    w.number(addresses.len() as u64);
    w.column(deltas(addresses.iter().map(|((module, _), _)| u64::from(module.0))));
    w.column(deltas(addresses.iter().map(|((_, vaddr), _)| vaddr.0)));
    w.column(addresses.iter().map(|(_, names)| names.len() as u64));
    w.number(functions.len() as u64);
    w.column(functions.iter().copied());
    w.column(reasons.iter().map(|(code, _)| *code));
    w.column(reasons.iter().map(|(_, text)| *text));
    w.column(files.iter().copied());
    w.column(all().map(|name| name.line.map_or(0, |line| u64::from(line) + 1)));
    w.column(all().map(|name| u64::from(name.inlined)));
    w
}

/// Reads it back.
pub fn get(n_modules: usize, r: &mut Reader<'_>) -> Result<Names, Malformed> {
    let n_texts = r.count(SHARED_BYTES)?;
    let texts: Vec<Arc<str>> = (0..n_texts).map(|_| String::get(r).map(Arc::from)).collect::<Result<_, _>>()?;
    let n_paths = r.count(SHARED_BYTES)?;
    let path = |r: &mut Reader<'_>| {
        let bytes = r.bytes()?;
        r.charge(bytes.len() as u64, 1)?;
        Ok(Arc::from(Path::new(OsStr::from_bytes(bytes))))
    };
    let paths: Vec<Arc<Path>> = (0..n_paths).map(|_| path(r)).collect::<Result<_, _>>()?;

    let n_addresses = r.count(ENTRY_BYTES)?;
    let (mut modules, mut vaddrs, mut lens) = (r.column()?, r.column()?, r.column()?);
    // Each address has a copy of its own while its list grows.
    let n_names = r.count(3 * size_of::<FrameName>())?;
    let (mut functions, mut codes, mut reasons) = (r.column()?, r.column()?, r.column()?);
    let (mut files, mut lines, mut inlined) = (r.column()?, r.column()?, r.column()?);
    r.end()?;

    let mut left = n_names;
    let mut names = Names::default();
    let (mut module, mut vaddr) = (0_u64, 0_u64);
    for _ in 0..n_addresses {
        module = module.wrapping_add(unzigzag(modules.next()?));
        vaddr = vaddr.wrapping_add(unzigzag(vaddrs.next()?));
        if module >= n_modules as u64 {
            return Err(Malformed::Id);
        }
        let n = usize::try_from(lens.next()?).map_err(|_| Malformed::Number)?;
        left = left.checked_sub(n).ok_or(Malformed::Number)?;
        let mut found = Vec::with_capacity(n);
        for _ in 0..n {
            let (function, code, reason) = (functions.next()?, codes.next()?, shared(&texts, reasons.next()?)?);
            let function = match shared(&texts, function)? {
                Some(function) => Ok(function),
                None => Err(reason_of(code, reason)?),
            };
            let file = shared(&paths, files.next()?)?;
            let line = lines.next()?.checked_sub(1).map(u32::try_from).transpose().map_err(|_| Malformed::Number)?;
            found.push(FrameName { function, file, line, inlined: inlined.next()? != 0 });
        }
        names.insert(ModuleId(module as u32), FileVaddr(vaddr), found.into());
    }
    if left > 0 {
        return Err(Malformed::Surplus);
    }
    [modules, vaddrs, lens, functions, codes, reasons, files, lines, inlined].iter().try_for_each(Column::end)?;
    Ok(names)
}

/// What a reference means: 0 is none, others count from 1.
fn shared<T: ?Sized>(all: &[Arc<T>], number: u64) -> Result<Option<Arc<T>>, Malformed> {
    let Some(index) = number.checked_sub(1) else { return Ok(None) };
    let index = usize::try_from(index).map_err(|_| Malformed::Id)?;
    all.get(index).cloned().map(Some).ok_or(Malformed::Id)
}

fn code(reason: &NoSymbol) -> (u64, Option<&Arc<str>>) {
    match reason {
        NoSymbol::Stripped => (1, None),
        NoSymbol::NotCovered => (2, None),
        NoSymbol::FileUnreadable(why) => (3, Some(why)),
        NoSymbol::FileReplaced => (4, None),
        NoSymbol::FileBroken(what) => (5, Some(what)),
        NoSymbol::NotMapped => (6, None),
        NoSymbol::GeneratedCode => (7, None),
    }
}

fn reason_of(code: u64, text: Option<Arc<str>>) -> Result<NoSymbol, Malformed> {
    Ok(match (code, text) {
        (1, None) => NoSymbol::Stripped,
        (2, None) => NoSymbol::NotCovered,
        (3, Some(why)) => NoSymbol::FileUnreadable(why),
        (4, None) => NoSymbol::FileReplaced,
        (5, Some(what)) => NoSymbol::FileBroken(what),
        (6, None) => NoSymbol::NotMapped,
        (7, None) => NoSymbol::GeneratedCode,
        _ => return Err(Malformed::Number),
    })
}

/// Numbers from 1, in the order of first sight.
struct Interner<'a, T: ?Sized> {
    numbers: HashMap<&'a T, u64>,
    all: Vec<&'a T>,
}

impl<T: ?Sized> Default for Interner<'_, T> {
    fn default() -> Self {
        Self { numbers: HashMap::new(), all: Vec::new() }
    }
}

impl<'a, T: ?Sized + Eq + Hash> Interner<'a, T> {
    fn number(&mut self, text: &'a T) -> u64 {
        let next = self.all.len() as u64 + 1;
        *self.numbers.entry(text).or_insert_with(|| {
            self.all.push(text);
            next
        })
    }
}
