//! Debian packages as material: fetched from the mirrors that this machine is configured for, out of suites that it need
//! not have, and unpacked into `target/`. Nothing of the system's package state is read into or written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::exec::{clean, output, run, say};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Package lists of one suite, kept beside the system's own.
pub struct Suite {
    name: String,
    options: Vec<String>,
    lists: PathBuf,
}

impl Suite {
    /// The lists of a suite, in `dir`; fetched when they are not there yet.
    pub fn open(name: &str, dir: &Path) -> Result<Self> {
        let dir = dir.join(name);
        let lists = dir.join("lists");
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(dir.join("cache/archives/partial"))?;
        fs::write(dir.join("status"), "")?;
        let line = format!("deb [signed-by={KEYRING} arch=amd64] {} {name} main\n", mirror_of(name)?);
        fs::write(dir.join("sources.list"), line)?;
        let at = |option: &str, path: &str| format!("{option}={}", dir.join(path).display());
        let options = vec![
            "-qq".to_owned(),
            "-oAPT::Architecture=amd64".to_owned(),
            at("-oDir::State::status", "status"),
            at("-oDir::State::Lists", "lists"),
            at("-oDir::Etc::SourceList", "sources.list"),
            "-oDir::Etc::SourceParts=/dev/null".to_owned(),
            "-oDir::Etc::PreferencesParts=/dev/null".to_owned(),
            at("-oDir::Cache", "cache"),
            "-oAPT::Sandbox::User=root".to_owned(),
            "-oAcquire::Languages=none".to_owned(),
            "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ];
        let suite = Self { name: name.to_owned(), options, lists };
        if !suite.lists.join("complete").exists() {
            suite.update()?;
        }
        Ok(suite)
    }

    /// Fetches the lists again: a package that they name may be gone.
    pub fn update(&self) -> Result<()> {
        say(format!("fetching the package lists of {}", self.name));
        // apt says why on stderr; its command line of our options would drown that.
        if run(self.apt("apt-get").arg("update")).is_err() {
            bail!("failed to fetch the lists of suite `{}`: old suites disappear from the mirrors", self.name);
        }
        Ok(fs::write(self.lists.join("complete"), "")?)
    }

    /// The package that a name stands for: itself, the highest version of a name with `*`, and for a metapackage of
    /// kernels the image that it depends on.
    pub fn resolve(&self, name: &str) -> Result<String> {
        let mut package = self.highest(name)?;
        let depends = output(self.apt("apt-cache").args(["depends", &package]))?;
        let image = depends.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
        if let Some(image) = image.filter(|image| image.starts_with(|c: char| c.is_ascii_digit())) {
            package = format!("linux-image-{image}");
        }
        // From 6.19 the image is in linux-binary-*, and linux-image-* only depends on it.
        let binary = package.replacen("linux-image-", "linux-binary-", 1);
        let is_split = binary != package && output(self.apt("apt-cache").args(["show", &binary])).is_ok();
        Ok(if is_split { binary } else { package })
    }

    /// The highest version of a name with one `*`; a name without is itself.
    fn highest(&self, name: &str) -> Result<String> {
        let Some((before, after)) = name.split_once('*') else {
            return Ok(name.to_owned());
        };
        let names = output(self.apt("apt-cache").args(["pkgnames", before]))?;
        let matching = names.lines().filter(|line| line.ends_with(after) && line.len() >= before.len() + after.len());
        let highest = matching.max_by_key(|line| numbers(line));
        highest.map(str::to_owned).with_context(|| format!("suite `{}` has no `{name}`", self.name))
    }

    /// Downloads a package into a folder.
    pub fn download(&self, package: &str, into: &Path) -> Result<PathBuf> {
        fs::create_dir_all(into)?;
        let mut download = self.apt("apt-get");
        download.args(["download", package]).current_dir(into);
        if run(&mut download).is_err() {
            self.update()?;
            run(&mut download)?;
        }
        let prefix = format!("{package}_");
        for entry in fs::read_dir(into)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                return Ok(entry.path());
            }
        }
        bail!("apt-get download left no `{prefix}*.deb` in `{}`", into.display())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = clean(program);
        command.args(&self.options).env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Downloads packages of this machine's own suites with what they need that is not installed, and unpacks all of it.
pub fn unpack_system_packages(names: &[&str], into: &Path) -> Result<()> {
    let debs = into.join("debs");
    fs::create_dir_all(debs.join("partial"))?;
    let mut fetch = clean("apt-get");
    fetch.args(["-qq", "-y", "--no-install-recommends", "--download-only", "-oAPT::Sandbox::User=root"]);
    fetch.arg(format!("-oDir::Cache::archives={}", debs.display())).arg("install").args(names);
    fetch.env("DEBIAN_FRONTEND", "noninteractive");
    output(&mut fetch).with_context(|| format!("failed to download {}", names.join(", ")))?;
    for entry in fs::read_dir(&debs)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            unpack(&entry.path(), into)?;
        }
    }
    Ok(())
}

/// Unpacks a package's files into a folder.
pub fn unpack(deb: &Path, into: &Path) -> Result<()> {
    run(clean("dpkg-deb").arg("-x").arg(deb).arg(into))
}

/// The configured Debian mirror that has a suite.
fn mirror_of(suite: &str) -> Result<String> {
    let listed = output(clean("apt-get").args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]))
        .context("needs apt (Debian) to fetch packages")?;
    let wanted = if suite.ends_with("-security") { "/debian-security" } else { "/debian" };
    let found = listed.lines().find(|uri| uri.trim_end_matches('/').ends_with(wanted));
    found.map(str::to_owned).with_context(|| format!("no configured apt source ends in `{wanted}`"))
}

/// The numbers in a name, to compare versions by.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_versions_compare_higher() {
        let names = ["linux-image-6.18.9+deb13-cloud-amd64", "linux-image-6.18.15+deb13-cloud-amd64"];
        assert!(numbers(names[1]) > numbers(names[0]));
    }
}
