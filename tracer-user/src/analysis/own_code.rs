//! Which code is the program's own, for `--own-code`: not in a system library's directory, not a language's runtime.

use std::path::Path;

use crate::{
    snapshot::{Module, ModuleKind},
    symbolize::{Attribution, FrameName, NoSymbol, attribute::Fallback, module_name},
    text::glob::Glob,
};

/// Where distributions install libraries (Filesystem Hierarchy Standard 3.0; the stores of Nix and Guix). `/usr/local` and `/opt`
/// are the administrator's own.
const SYSTEM_DIRS: &[&str] = &[
    "/lib/",
    "/lib32/",
    "/lib64/",
    "/libx32/",
    "/usr/lib/",
    "/usr/lib32/",
    "/usr/lib64/",
    "/usr/libexec/",
    "/usr/libx32/",
    "/nix/store/",
    "/gnu/store/",
];

/// Where headers of system libraries and of compilers lie, whose functions are inlined into programs.
const SYSTEM_SOURCES: &[&str] = &["/usr/include/", "/usr/lib/", "/usr/lib64/", "/nix/store/", "/gnu/store/"];

/// Interpreters and virtual machines, by the last component of their path; the C, C++ and Rust libraries are plumbing already.
const RUNTIMES: &[&str] = &[
    "python",
    "python[23]",
    "python[23].[0-9]*",
    "libpython[23]*.so*",
    "perl",
    "perl5*",
    "libperl.so*",
    "ruby",
    "ruby[0-9]*",
    "libruby*.so*",
    "node",
    "nodejs",
    "libnode.so*",
    "libv8*.so*",
    "java",
    "libjvm.so",
    "libjava.so",
    "dotnet",
    "libcoreclr.so",
    "php",
    "php[0-9]*",
    "libphp*.so*",
    "lua",
    "lua[0-9]*",
    "luajit*",
    "liblua*.so*",
    "libLLVM*.so*",
];

/// The rules, compiled.
pub(super) struct OwnCode {
    plumbing: Attribution,
    runtimes: Vec<Glob>,
}

impl OwnCode {
    /// The built-in rules.
    pub(super) fn new() -> Self {
        let plumbing = Attribution::new(&[], false).expect("no patterns of a user");
        Self { plumbing, runtimes: RUNTIMES.iter().map(|pattern| Glob::new(pattern)).collect() }
    }

    /// Whether a name in `module` is the program's own code. The target's executable `exe` is, wherever it is installed, unless it
    /// is a language's runtime. Code made at run time is the program's.
    pub(super) fn is_own(&self, exe: Option<&Path>, module: Option<&Module>, name: &FrameName) -> bool {
        self.is_own_module(exe, module) && self.is_own_file(name)
    }

    fn is_own_module(&self, exe: Option<&Path>, module: Option<&Module>) -> bool {
        let Some(module) = module else { return true };
        match module.kind {
            ModuleKind::Vdso => return false,
            ModuleKind::Generated => return true,
            ModuleKind::File => {}
        }
        let short = module_name(module);
        let is_runtime = self.runtimes.iter().any(|runtime| runtime.is_match(&short))
            || self.plumbing.judge(Some(module), &[]).fallback != Fallback::OwnModule;
        !is_runtime && (exe == Some(&module.path) || !lies_in(SYSTEM_DIRS, &module.path))
    }

    fn is_own_file(&self, name: &FrameName) -> bool {
        let Some(file) = &name.file else { return true };
        // Without its function, only the rules on files apply: a program's own `xmalloc` is its own code.
        let by_file = FrameName { function: Err(NoSymbol::Stripped), ..name.clone() };
        !lies_in(SYSTEM_SOURCES, file) && self.plumbing.judge(None, &[by_file]).site.is_some()
    }
}

fn lies_in(dirs: &[&str], path: &Path) -> bool {
    let path = path.as_os_str().as_encoded_bytes();
    dirs.iter().any(|dir| path.starts_with(dir.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn is_own(exe: &str, kind: ModuleKind, module: &str, file: Option<&str>) -> bool {
        let module = Module {
            kind,
            path: module.into(),
            open_path: module.into(),
            deleted: false,
            build_id: None,
            mappings: Vec::new(),
        };
        let file = file.map(|file| Arc::from(Path::new(file)));
        let name = FrameName { function: Ok("f".into()), file, line: Some(1), inlined: false };
        OwnCode::new().is_own(Some(Path::new(exe)), Some(&module), &name)
    }

    #[test]
    fn own_code_is_what_the_system_and_the_runtimes_did_not_bring() {
        for (module, file, expected) in [
            ("/home/u/app/app", None, true),
            ("/home/u/app/app", Some("/home/u/app/src/cache.c"), true),
            ("/home/u/app/app", Some("src/cache.rs"), true),
            ("/home/u/app/app", Some("/usr/include/c++/12/bits/stl_vector.h"), false),
            ("/home/u/app/app", Some("/usr/include/json-c/json.h"), false),
            ("/home/u/app/app", Some("/rustc/0/library/alloc/src/vec/mod.rs"), false),
            ("/opt/app/libplugin.so", None, true),
            ("/usr/local/lib/libmine.so", None, true),
            ("/usr/lib/x86_64-linux-gnu/libcurl.so.4", None, false),
            ("/lib/x86_64-linux-gnu/libz.so.1", Some("inflate.c"), false),
            ("/opt/jemalloc/libjemalloc.so.2", None, false),
            ("/home/u/.pyenv/bin/python3.11", None, false),
            ("/opt/py/lib/libpython3.11.so.1.0", None, false),
            ("/usr/lib/postgresql/15/bin/postgres", None, false),
            ("/opt/tools/pythonista", None, true),
        ] {
            assert_eq!(is_own("/home/u/app/app", ModuleKind::File, module, file), expected, "{module} {file:?}");
        }
    }

    #[test]
    fn the_targets_executable_is_its_own_wherever_it_is_installed() {
        let server = "/usr/lib/postgresql/15/bin/postgres";
        assert!(is_own(server, ModuleKind::File, server, None));
        assert!(!is_own("/usr/bin/python3.11", ModuleKind::File, "/usr/bin/python3.11", None));
    }

    #[test]
    fn code_made_at_run_time_is_the_programs() {
        assert!(is_own("/app", ModuleKind::Generated, "", None));
        assert!(!is_own("/app", ModuleKind::Vdso, "[vdso]", None));
    }
}
