//! What an image holds: a program and the libraries that it needs, no distribution.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use object::{Object as _, ObjectSection as _};

use crate::{
    guard::{Guard, piped},
    programs::copy_program,
    session::clean,
};

/// A path in the image, and the file that lies there.
pub type ImageFile = (PathBuf, PathBuf);

/// musl's libc, as musl-tools has it; in images it is the loader too.
const MUSL_LIBC: &str = "/usr/lib/x86_64-linux-musl/libc.so";

/// A program at a path in the image, with its loader and its libraries: glibc's, musl's, or none.
pub fn files_of(program: &Path, path: &str) -> Result<Vec<ImageFile>> {
    let mut files = vec![(PathBuf::from(path), program.to_owned())];
    let bytes = fs::read(program)?;
    let elf = object::File::parse(&*bytes).with_context(|| format!("{} is no ELF file", program.display()))?;
    let Some(section) = elf.section_by_name(".interp") else { return Ok(files) };
    let loader = std::str::from_utf8(section.data()?)?.trim_end_matches('\0').to_owned();
    if loader.contains("ld-musl-") {
        files.push((loader.into(), MUSL_LIBC.into()));
        return Ok(files);
    }
    let listed = Guard::spawn(piped(clean("ldd").arg(program)).stdin(Stdio::null()))?.finish()?;
    ensure!(listed.status.success(), "ldd {}: {}", program.display(), listed.stderr);
    // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`
    let library = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    files.extend(listed.stdout.lines().filter_map(library).map(|library| (library.clone(), library)));
    Ok(files)
}

/// Makes an image of files: lays them out below `root`, and streams that to an engine's command.
pub fn import(root: &Path, files: &[ImageFile], engine: &mut Command) -> Result<()> {
    lay_out(root, files)?;
    let mut tar = clean("tar");
    let mut tar = Guard::spawn(tar.arg("-C").arg(root).args(["-c", "."]).stdout(Stdio::piped()))?;
    let stream = tar.child_mut().stdout.take().context("stdout is a pipe")?;
    let imported = Guard::spawn(piped(engine).stdin(stream))?.finish()?;
    ensure!(imported.status.success(), "failed to make an image: {}", imported.stderr);
    ensure!(tar.finish()?.status.success(), "tar failed");
    fs::remove_dir_all(root)?;
    Ok(())
}

/// Copies files to their places below a directory.
pub(super) fn lay_out(root: &Path, files: &[ImageFile]) -> Result<()> {
    for (path, file) in files {
        let to = root.join(path.strip_prefix("/").with_context(|| format!("`{}` is not absolute", path.display()))?);
        fs::create_dir_all(to.parent().context("it lies in a directory")?)?;
        copy_program(file, &to)?;
    }
    Ok(())
}
