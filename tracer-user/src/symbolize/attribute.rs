//! Which frame of a stack is the *site*: the innermost one, inlined frames included, that is not plumbing.
//!
//! Plumbing is allocators, what wraps them, and the containers of standard libraries. [`RULES`] says what that is.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use thiserror::Error;

use super::name::{FrameName, module_name};
use crate::snapshot::Module;

/// What a rule's pattern is matched against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// The last component of the module's path.
    Module,
    /// The source file's path as the debug information spells it.
    File,
    /// The function's whole qualified name (`std::vector::push_back`: no template or call arguments, no return type).
    Function,
    /// The same, but only where the source file is unknown: users write functions in these namespaces too
    /// (`impl Trait for Vec<T>`, a specialisation of `std::hash`), and then the file tells whose it is.
    Namespace,
}

/// What a rule's frames are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// An allocator or the C library around it.
    Allocator,
    /// A language's runtime or its containers.
    Runtime,
    /// A function that only passes an allocation on.
    Wrapper,
    /// Where a thread's stack begins; calls everything and allocates nothing itself.
    Root,
}

/// One row: what is plumbing, why, and a name that the row is for (each is a test).
struct Rule {
    on: On,
    glob: &'static str,
    part: Part,
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test of the rows"))]
    example: &'static str,
}

const fn rule(on: On, glob: &'static str, part: Part, example: &'static str) -> Rule {
    Rule { on, glob, part, example }
}

/// All rules. Whole names are matched, so `xmalloc` does not cover `xmalloc_table_grow`.
#[rustfmt::skip]
const RULES: &[Rule] = &[
    // C libraries and allocators, whole modules.
    rule(On::Module, "{libc.so*,libc-[0-9]*.so}", Part::Allocator, "libc.so.6"),
    rule(On::Module, "{libpthread,libdl,librt}{.so*,-[0-9]*.so}", Part::Allocator, "libpthread-2.31.so"),
    rule(On::Module, "ld-{linux,[0-9]}*", Part::Allocator, "ld-linux-x86-64.so.2"),
    rule(On::Module, "{ld-musl,libc.musl}-*", Part::Allocator, "ld-musl-x86_64.so.1"),
    rule(On::Module, "libjemalloc*.so*", Part::Allocator, "libjemalloc.so.2"),
    rule(On::Module, "libtcmalloc*.so*", Part::Allocator, "libtcmalloc_minimal.so.4"),
    rule(On::Module, "libmimalloc*.so*", Part::Allocator, "libmimalloc.so.2.0"),
    // Language runtimes, whole modules.
    rule(On::Module, "libstdc++.so*", Part::Runtime, "libstdc++.so.6.0.30"),
    rule(On::Module, "{libc++,libc++abi}.so*", Part::Runtime, "libc++.so.1"),
    rule(On::Module, "{libgcc_s,libunwind}.so*", Part::Runtime, "libgcc_s.so.1"),
    rule(On::Module, "libstd-*.so", Part::Runtime, "libstd-2b7d6a0f4e9e8c1d.so"),

    // Source files of containers, inlined or instantiated into the program.
    rule(On::File, "/rustc/*/library/**", Part::Runtime, "/rustc/59807616e1fa/library/alloc/src/raw_vec/mod.rs"),
    rule(On::File, "**/library/{alloc,core,std}/src/**", Part::Runtime, "/usr/src/rustc-1.63.0/library/alloc/src/vec/mod.rs"),
    rule(On::File, "**/hashbrown{-*,}/src/**", Part::Runtime, "/rust/deps/hashbrown-0.15.2/src/raw/mod.rs"),
    rule(On::File, "**/include/c++/**", Part::Runtime, "/usr/include/c++/12/bits/stl_vector.h"),
    // Debian compiles libstdc++'s headers under other roots; only the folder's name stays.
    rule(On::File, "**/libstdc++-v3/**", Part::Runtime, "/build/gcc/src/libstdc++-v3/libsupc++/new_op.cc"),
    rule(On::File, "**/bits/{stl_*,basic_string,vector,deque,list,hashtable*,alloc*,new_allocator,shared_ptr*,unique_ptr,std_function,unordered_*}.{h,tcc}", Part::Runtime, "/opt/toolchain/bits/stl_vector.h"),

    // The operators and the namespaces of standard libraries.
    rule(On::Function, "operator {new,delete}{,\\[\\]}", Part::Allocator, "operator new[](unsigned long)"),
    rule(On::Function, "{,__rustc::}__{rust,rdl,rg,rustc}_{alloc,alloc_zeroed,realloc,dealloc}", Part::Allocator, "__rustc::__rust_alloc_zeroed"),
    rule(On::Namespace, "{std,__gnu_cxx,__cxxabiv1}::**", Part::Runtime, "void std::vector<Row>::_M_realloc_insert<Row const&>(Row const&)"),
    rule(On::Namespace, "{alloc,core,std,hashbrown}::**", Part::Runtime, "alloc::raw_vec::finish_grow"),
    rule(On::Namespace, "<{alloc,core,std,hashbrown}::**", Part::Runtime, "<alloc::string::String as core::clone::Clone>::clone"),
    // Symbols that could not be demangled.
    rule(On::Namespace, "_ZN{5alloc,4core,3std,9hashbrown}*", Part::Runtime, "_ZN5alloc7raw_vec11finish_grow17h0123456789abcdefE"),
    rule(On::Namespace, "_ZN{,K}{St,9__gnu_cxx}*", Part::Runtime, "_ZNSt6vectorIiSaIiEE17_M_realloc_insertE"),

    // The allocation functions themselves, linked statically or interposed.
    rule(On::Function, "{malloc,calloc,realloc,reallocarray,free,posix_memalign,memalign,aligned_alloc,valloc,pvalloc,strdup,strndup,asprintf,vasprintf}", Part::Allocator, "malloc"),
    rule(On::Function, "__libc_{malloc,calloc,realloc,memalign,free}", Part::Allocator, "__libc_malloc"),
    rule(On::Function, "{je,tc,mi}_{malloc,calloc,realloc,memalign,aligned_alloc,new,newarray}", Part::Allocator, "mi_malloc"),
    rule(On::Function, "{,__}{mmap,mmap64,mremap,brk,sbrk}", Part::Allocator, "__sbrk"),

    // Wrappers that abort or count: GNU, BSD and everyone's own.
    rule(On::Function, "{,do_}x{malloc,calloc,realloc,zalloc,mallocz,mallocarray,reallocarray,memdup,memdup0,memdupz,strdup,strndup,asprintf,vasprintf}", Part::Wrapper, "xmalloc"),
    rule(On::Function, "{x2realloc,x2nrealloc,xnmalloc,xnrealloc,xcharalloc,xpalloc,ximalloc,xicalloc,xirealloc,xinmalloc,xizalloc,ximemdup}", Part::Wrapper, "x2realloc"),
    rule(On::Function, "sh_x{malloc,calloc,realloc}", Part::Wrapper, "sh_xmalloc"),
    rule(On::Function, "{safe,checked,my,emalloc,s}_{malloc,calloc,realloc,strdup}", Part::Wrapper, "safe_malloc"),
    rule(On::Function, "{e,u,s,k,q,safe,ck}{malloc,calloc,realloc,zalloc}", Part::Wrapper, "emalloc"),
    // GLib.
    rule(On::Function, "g_{,try_}{malloc,malloc0,realloc}{,_n}", Part::Wrapper, "g_malloc0_n"),
    rule(On::Function, "g_{strdup,strndup,strdup_printf,strdup_vprintf,strdup_inline,memdup,memdup2,aligned_alloc,aligned_alloc0}", Part::Wrapper, "g_strdup"),
    rule(On::Function, "g_slice_{alloc,alloc0,copy}", Part::Wrapper, "g_slice_alloc0"),
    // CPython's three domains and their back ends (Objects/obmalloc.c).
    rule(On::Function, "{,_}Py{Mem,Object,DataMem}_{,Raw,Debug}{Malloc,Calloc,Realloc,MallocEx}", Part::Wrapper, "PyObject_Malloc"),
    rule(On::Function, "_Py{Mem,Object}_{,Raw,DebugRaw,Debug,Arena,Mi}{Malloc,Calloc,Realloc,Alloc,Mmap,StrDup,WcsDup,Strdup,Wcsdup}", Part::Wrapper, "_PyMem_RawMalloc"),
    rule(On::Function, "_PyMem_DebugRawAlloc", Part::Wrapper, "_PyMem_DebugRawAlloc"),
    rule(On::Function, "{pymalloc_alloc,pymalloc_realloc,allocate_from_new_pool,new_arena}", Part::Wrapper, "allocate_from_new_pool"),
    // SQLite.
    rule(On::Function, "sqlite3Mem{Malloc,Realloc}", Part::Wrapper, "sqlite3MemMalloc"),
    rule(On::Function, "sqlite3{Malloc,MallocZero,Realloc,_malloc,_malloc64,_realloc,_realloc64}", Part::Wrapper, "sqlite3_malloc64"),
    rule(On::Function, "sqlite3Db{MallocRaw,MallocRawNN,MallocZero,Realloc,ReallocOrFree,StrDup,StrNDup,SpanDup}", Part::Wrapper, "sqlite3DbMallocRawNN"),
    rule(On::Function, "{mallocWithAlarm,dbMallocRawFinish,dbReallocFinish}", Part::Wrapper, "mallocWithAlarm"),
    // Redis, nginx, APR, PostgreSQL, OpenSSL, jq, Perl, Ruby.
    rule(On::Function, "z{malloc,calloc,realloc,trymalloc,trycalloc,tryrealloc,strdup}{,_usable,_usable_internal,_num}", Part::Wrapper, "zmalloc_usable"),
    rule(On::Function, "ngx_{alloc,calloc,memalign,palloc,pnalloc,pcalloc,pmemalign,palloc_block,palloc_large,palloc_small}", Part::Wrapper, "ngx_alloc"),
    rule(On::Function, "apr_{palloc,palloc_debug,pcalloc,pcalloc_debug,pstrdup,pstrndup,pmemdup,allocator_alloc}", Part::Wrapper, "apr_palloc"),
    rule(On::Function, "{palloc,palloc0,palloc_extended,repalloc,pstrdup,pnstrdup,AllocSetAlloc,AllocSetRealloc,MemoryContextAlloc,MemoryContextAllocZero,MemoryContextStrdup}", Part::Wrapper, "palloc0"),
    rule(On::Function, "CRYPTO_{malloc,zalloc,realloc,clear_realloc,strdup,strndup,memdup,aligned_alloc}", Part::Wrapper, "CRYPTO_zalloc"),
    rule(On::Function, "jv_mem_{alloc,calloc,realloc,strdup,alloc_unguarded,calloc_unguarded,strdup_unguarded}", Part::Wrapper, "jv_mem_alloc"),
    rule(On::Function, "Perl_{safesysmalloc,safesyscalloc,safesysrealloc,savepv,savepvn}", Part::Wrapper, "Perl_safesysmalloc"),
    rule(On::Function, "{ruby_,rb_,objspace_}{xmalloc,xmalloc0,xmalloc2,xcalloc,xrealloc,xrealloc2,gc_impl_malloc}", Part::Wrapper, "ruby_xmalloc2"),

    // The bottom of every stack, present in the program itself.
    rule(On::Function, "{_start,__libc_start_main,__libc_start_call_main,_dl_start_user,start_thread,clone,clone3,__clone,__clone3}", Part::Root, "_start"),
];

/// A `--plumbing` pattern that is not a glob.
#[derive(Debug, Error)]
#[error("`{pattern}` is not a pattern: {source}")]
pub struct PlumbingError {
    /// The pattern as given.
    pub pattern: String,
    /// What is wrong with it.
    #[source]
    pub source: globset::Error,
}

/// The rules, compiled, with the user's own.
#[derive(Clone, Debug)]
pub struct Attribution {
    modules: PartSet,
    files: PartSet,
    functions: PartSet,
    namespaces: PartSet,
    added: GlobSet,
    raw_leaf: bool,
}

/// Globs of one kind, each with its part.
#[derive(Clone, Debug)]
struct PartSet {
    globs: GlobSet,
    parts: Vec<Part>,
}

impl PartSet {
    fn of(on: On) -> Self {
        let rows = || RULES.iter().filter(|rule| rule.on == on);
        let globs = rows().map(|rule| compile(rule.glob).expect("a test compiles every row"));
        Self {
            globs: set(globs).expect("rows that compile alone compile together"),
            parts: rows().map(|rule| rule.part).collect(),
        }
    }

    fn part(&self, name: &str) -> Option<Part> {
        self.globs.matches(name).first().map(|&row| self.parts[row])
    }
}

fn compile(pattern: &str) -> Result<Glob, globset::Error> {
    GlobBuilder::new(pattern).empty_alternates(true).backslash_escape(true).build()
}

fn set(globs: impl Iterator<Item = Glob>) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        set.add(glob);
    }
    set.build()
}

/// What one address contributes to the choice of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The innermost of the address's names that is not plumbing.
    pub site: Option<usize>,
    /// How good the address is when every frame of the stack is plumbing.
    pub fallback: Fallback,
}

/// Rank of a frame among stacks of nothing but plumbing; the highest wins, the innermost among equals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fallback {
    /// Where a thread begins: says nothing.
    Root,
    /// Inside an allocator's or the C library's module: always there.
    AllocatorModule,
    /// Inside a runtime's module (`libstdc++.so` allocating its own pool).
    RuntimeModule,
    /// In the program's own code, by a plumbing function or header that was inlined there.
    OwnModule,
}

impl Attribution {
    /// The built-in rules with the user's patterns; `raw_leaf`: no rules, the innermost frame is the site.
    pub fn new(added: &[String], raw_leaf: bool) -> Result<Self, PlumbingError> {
        let user_error = |pattern: &String, source| PlumbingError { pattern: pattern.clone(), source };
        let globs = added
            .iter()
            .map(|pattern| compile(pattern).map_err(|source| user_error(pattern, source)))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            modules: PartSet::of(On::Module),
            files: PartSet::of(On::File),
            functions: PartSet::of(On::Function),
            namespaces: PartSet::of(On::Namespace),
            added: set(globs.into_iter()).map_err(|source| user_error(&added.join(" "), source))?,
            raw_leaf,
        })
    }

    /// Judges the names at one address of `module`.
    pub fn judge(&self, module: Option<&Module>, names: &[FrameName]) -> Candidate {
        if self.raw_leaf {
            return Candidate { site: Some(0), fallback: Fallback::OwnModule };
        }
        let module_part = module.and_then(|module| self.modules.part(&module_name(module)));
        let outermost = names.last().and_then(|name| self.part(name));
        let fallback = match module_part {
            Some(Part::Allocator) => Fallback::AllocatorModule,
            Some(_) => Fallback::RuntimeModule,
            None if outermost == Some(Part::Root) => Fallback::Root,
            None => Fallback::OwnModule,
        };
        let site = if module_part.is_some() { None } else { names.iter().position(|name| self.part(name).is_none()) };
        Candidate { site, fallback }
    }

    /// What kind of plumbing a name is, by its function or file.
    fn part(&self, name: &FrameName) -> Option<Part> {
        let file = name.file.as_ref().map(|file| file.to_string_lossy());
        if let Some(file) = &file {
            if self.added.is_match(&**file) {
                return Some(Part::Wrapper);
            }
            if let Some(part) = self.files.part(file) {
                return Some(part);
            }
        }
        let function = name.function.as_deref().ok()?;
        let qualified = qualified_name(function);
        if self.added.is_match(function) || self.added.is_match(&*qualified) {
            return Some(Part::Wrapper);
        }
        self.functions.part(&qualified).or_else(|| if file.is_none() { self.namespaces.part(&qualified) } else { None })
    }
}

/// A demangled function's name without return type, arguments and clone suffixes:
/// `void std::vector<int>::push_back<int>(int)` → `std::vector::push_back`. Rust's leading `<T as Trait>` stays.
pub(crate) fn qualified_name(function: &str) -> String {
    // A linker's or compiler's suffix: `xmalloc.part.0`, `f() [clone .cold]`. Rust's names have no dots but in `{...}`.
    let function = function.split(" [clone").next().unwrap_or(function);
    let function = match function.split_once('.') {
        Some((head, _)) if !head.is_empty() && !head.contains(['(', '<', ' ']) => head,
        _ => function,
    };
    let (operator_at, operator_len) = operator(function);

    let mut out = String::with_capacity(function.len());
    let mut depth = 0_usize;
    let mut at = 0;
    // `<impl T>` at the very start is Rust's; everywhere else `<…>` are arguments.
    let leading_angle = function.starts_with('<');
    while at < function.len() {
        if operator_at == Some(at) && depth == 0 {
            out.push_str(&function[at..at + operator_len]);
            // What follows an operator is only its arguments.
            break;
        }
        let Some(c) = function[at..].chars().next() else { break };
        at += c.len_utf8();
        match c {
            '<' if depth > 0 || !(leading_angle && at == 1) => depth += 1,
            '>' if depth > 0 => depth -= 1,
            _ if depth > 0 => {}
            // The arguments begin, unless it is `(anonymous namespace)::f`.
            '(' if !function[at..].starts_with("anonymous namespace)") => break,
            // What came before was the return type.
            ' ' if !leading_angle && !out.ends_with("(anonymous") => out.clear(),
            c => out.push(c),
        }
    }
    out
}

/// Where `operator new[]`, `operator<` and the like begin in a name, and how long they are; their brackets are no arguments.
fn operator(function: &str) -> (Option<usize>, usize) {
    const WORD: &str = "operator";
    for (at, _) in function.match_indices(WORD) {
        let starts = at == 0 || function[..at].ends_with(['>', ':', ' ']);
        let rest = &function[at + WORD.len()..];
        if !starts || rest.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let len = if rest.starts_with("()") { 2 } else { rest.find('(').unwrap_or(rest.len()) };
        return (Some(at), WORD.len() + len);
    }
    (None, 0)
}

#[cfg(test)]
mod tests {
    use std::{path::Path, sync::Arc};

    use super::*;
    use crate::{snapshot::ModuleKind, symbolize::NoSymbol};

    fn built_in() -> Attribution {
        Attribution::new(&[], false).expect("no patterns of a user")
    }

    fn module(path: &str) -> Module {
        Module {
            kind: ModuleKind::File,
            path: path.into(),
            open_path: path.into(),
            deleted: false,
            build_id: None,
            mappings: Vec::new(),
        }
    }

    fn name(function: &str, file: Option<&str>) -> FrameName {
        let file = file.map(|file| Arc::from(Path::new(file)));
        FrameName { function: Ok(function.into()), file, line: Some(1), inlined: false }
    }

    #[test]
    fn every_row_covers_its_example() {
        let rules = built_in();
        for rule in RULES {
            compile(rule.glob).unwrap_or_else(|error| panic!("{}: {error}", rule.glob));
            let found = match rule.on {
                On::Module => rules.modules.part(rule.example),
                On::File => rules.part(&name("f", Some(rule.example))),
                On::Function => rules.part(&name(rule.example, Some("/src/own.c"))),
                On::Namespace => rules.part(&name(rule.example, None)),
            };
            assert!(found.is_some(), "`{}` does not cover `{}`", rule.glob, rule.example);
            let alone = compile(rule.glob).expect("compiled above").compile_matcher();
            let plain = if matches!(rule.on, On::Function | On::Namespace) {
                qualified_name(rule.example)
            } else {
                rule.example.to_owned()
            };
            assert!(alone.is_match(&plain), "`{}` alone does not cover `{plain}`", rule.glob);
        }
    }

    #[test]
    fn names_that_only_look_like_plumbing_are_sites() {
        let rules = built_in();
        for function in [
            "xmalloc_table_grow",
            "my_xmalloc",
            "zmalloc_get_memory_size",
            "palloc_context_grow",
            "stdx::vector::push",
            "allocate",
            "alloc_user",
            "corelib::run",
            "sqlite3BtreeOpen",
            "PyUnicode_New",
            "g_string_append",
            "operator_new",
            "Matrix::operator()(int, int)",
            "myns::std::f()",
            "<my::Thing as alloc::borrow::ToOwned>::to_owned",
        ] {
            assert_eq!(rules.part(&name(function, None)), None, "{function}");
        }
        for file in ["/home/u/src/alloc/src/lib.rs", "/src/bits/io.h", "/src/library.c", "src/include/c.h"] {
            assert_eq!(rules.part(&name("f", Some(file))), None, "{file}");
        }
        for file in ["libcurl.so.4", "libcap.so.2", "ld.bfd", "libc_helper.so", "libstdc.so"] {
            assert_eq!(rules.modules.part(file), None, "{file}");
        }
    }

    #[test]
    fn a_users_function_in_a_standard_namespace_is_a_site_by_its_file() {
        let rules = built_in();
        let function = "<alloc::vec::Vec<T> as app::Load>::load";
        assert_eq!(rules.part(&name(function, None)), Some(Part::Runtime));
        assert_eq!(rules.part(&name(function, Some("/app/src/load.rs"))), None);
    }

    #[test]
    fn an_inlined_container_leaves_its_caller_as_the_site() {
        let names = [
            name("alloc::alloc::alloc", Some("/rustc/0/library/alloc/src/alloc.rs")),
            name("alloc::vec::Vec<T,A>::push", Some("/rustc/0/library/alloc/src/vec/mod.rs")),
            name("app::cache::add", Some("src/cache.rs")),
        ];
        assert_eq!(built_in().judge(Some(&module("/usr/bin/app")), &names).site, Some(2));
    }

    #[test]
    fn frames_of_a_plumbing_module_are_never_a_site() {
        let names = [name("fopen", Some("./libio/iofopen.c"))];
        let judged = built_in().judge(Some(&module("/lib/x86_64-linux-gnu/libc.so.6")), &names);
        assert_eq!(judged, Candidate { site: None, fallback: Fallback::AllocatorModule });
    }

    #[test]
    fn a_frame_without_a_name_is_a_site() {
        let names = [FrameName::unknown(NoSymbol::Stripped)];
        assert_eq!(built_in().judge(Some(&module("/opt/libfoo.so")), &names).site, Some(0));
    }

    #[test]
    fn the_users_patterns_add_to_the_rules() {
        let rules = Attribution::new(&["strbuf_*".into(), "*/pool.c".into()], false).expect("both are globs");
        assert!(rules.part(&name("strbuf_grow", None)).is_some());
        assert!(rules.part(&name("pool_get", Some("/src/pool.c"))).is_some());
        assert!(rules.part(&name("xmalloc", None)).is_some());
        assert!(rules.part(&name("commit_add", Some("/src/commit.c"))).is_none());
    }

    #[test]
    fn raw_leaf_makes_the_innermost_name_the_site() {
        let rules = Attribution::new(&[], true).expect("no patterns");
        assert_eq!(rules.judge(Some(&module("/lib/libc.so.6")), &[name("fopen", None)]).site, Some(0));
    }

    #[test]
    fn a_broken_pattern_is_named() {
        let error = Attribution::new(&["[a".into()], false).expect_err("an open bracket");
        assert!(error.to_string().starts_with("`[a` is not a pattern: "), "{error}");
    }

    #[test]
    fn qualified_names_lose_types_and_arguments() {
        for (function, expected) in [
            ("main", "main"),
            ("xmalloc.part.0", "xmalloc"),
            ("f(int) [clone .cold]", "f"),
            (
                "void std::vector<int, std::allocator<int> >::_M_realloc_insert<int>(int&&)",
                "std::vector::_M_realloc_insert",
            ),
            ("operator new[](unsigned long, std::nothrow_t const&)", "operator new[]"),
            ("std::ostream& std::operator<< <char>(std::ostream&, char)", "std::operator<< <char>"),
            ("Matrix::operator()(int, int) const", "Matrix::operator()"),
            ("(anonymous namespace)::grow(int)", "(anonymous namespace)::grow"),
            ("<alloc::vec::Vec<T> as core::clone::Clone>::clone", "<alloc::vec::Vec as core::clone::Clone>::clone"),
            ("alloc::vec::Vec<T,A>::push", "alloc::vec::Vec::push"),
            ("app::main::{{closure}}", "app::main::{{closure}}"),
            ("", ""),
            ("<<<>", "<"),
        ] {
            assert_eq!(qualified_name(function), expected, "{function}");
        }
    }
}
