//! Names that come later: from debug files, or from the modules' own files where the tracer was killed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use object::{Object as _, ObjectSymbol as _};
use tempfile::TempDir;
use tracer_common::addr::{FileVaddr, FrameAddr, UserAddr};
use tracer_user::{
    recording::{Recorder, Recording, SessionInfo, SnapshotMeta},
    snapshot::{Frame, Module, ModuleId, ModuleKind, Snapshot, Stack, StackId, StackStats, Totals},
    symbolize::{FrameName, Names, NoSymbol},
};

use crate::bad_input::run;

const SOURCE: &str = "int keep(int n)\n{\n    return n * 3;\n}\n\nint main(void)\n{\n    return keep(0);\n}\n";

/// A program without debug information, and its debug file beside it.
struct Program {
    path: PathBuf,
    debug: PathBuf,
    build_id: Vec<u8>,
    /// Of the line `return n * 3`: behind `push rbp; mov rbp, rsp; mov [rbp-4], edi`, 7 bytes.
    vaddr: FileVaddr,
}

impl Program {
    fn build(dir: &Path) -> Self {
        let (source, path, debug) = (dir.join("keep.c"), dir.join("keep"), dir.join("keep.debug"));
        fs::write(&source, SOURCE).expect("there is room");
        let tool = |name: &str, arguments: &[&Path]| {
            let flags: &[&str] = match name {
                "gcc" => &["-O0", "-g", "-Wl,--build-id", "-o"],
                "objcopy" => &["--only-keep-debug"],
                _ => &["--strip-all"],
            };
            let status = Command::new(name).args(flags).args(arguments).status().expect("binutils and gcc are there");
            assert!(status.success(), "{name}: {status}");
        };
        tool("gcc", &[&path, &source]);
        tool("objcopy", &[&path, &debug]);
        let bytes = fs::read(&path).expect("just built");
        let elf = object::File::parse(&*bytes).expect("gcc makes ELF files");
        let keep = elf.symbols().find(|symbol| symbol.name() == Ok("keep")).expect("it is defined").address();
        let build_id = elf.build_id().expect("well-formed notes").expect("asked for").to_vec();
        tool("strip", &[&path]);
        Self { path, debug, build_id, vaddr: FileVaddr(keep + 8) }
    }

    /// Puts the debug file where distributions put theirs.
    fn debug_root(&self, dir: &Path) -> PathBuf {
        let hex = self.build_id.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        let folder = dir.join("debug/.build-id").join(&hex[..2]);
        fs::create_dir_all(&folder).expect("there is room");
        fs::copy(&self.debug, folder.join(format!("{}.debug", &hex[2..]))).expect("there is room");
        dir.join("debug")
    }

    /// A recording of one stack in `keep`; the program lay at `path`.
    fn record(&self, recording: &Path, path: &Path) -> Recorder {
        let frame = Frame { addr: FrameAddr::Exact(UserAddr(self.vaddr.0)), location: Some((ModuleId(0), self.vaddr)) };
        let module = Module {
            kind: ModuleKind::File,
            path: path.into(),
            open_path: path.into(),
            deleted: false,
            build_id: Some(self.build_id.clone()),
            mappings: Vec::new(),
        };
        let totals = Totals {
            current_bytes: 123,
            current_count: 1,
            allocated_bytes: 123,
            allocated_count: 1,
            ..Totals::default()
        };
        let snapshot = Snapshot {
            totals,
            modules: vec![Arc::new(module)],
            stacks: vec![StackStats {
                id: StackId(1),
                stack: Arc::new(Stack { frames: vec![frame], ..Stack::default() }),
                totals,
            }],
            ..Snapshot::default()
        };
        let mut recorder = Recorder::create(recording, &SessionInfo::default()).expect("a new file");
        recorder.snapshot(&snapshot, SnapshotMeta::default()).expect("there is room");
        recorder
    }
}

fn resymbolize(recording: &Path, root: &Path) -> String {
    let output = run(&["resymbolize".as_ref(), recording.as_os_str(), "--debug-dir".as_ref(), root.as_os_str()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("messages are UTF-8")
}

fn name(recording: &Path, vaddr: FileVaddr) -> Vec<FrameName> {
    let recording = Recording::read(recording).expect("it was whole");
    recording.names.at(ModuleId(0), vaddr).expect("it was looked up").to_vec()
}

#[test]
fn a_debug_file_names_a_recording_from_another_machine() {
    let dir = TempDir::new().expect("a folder for tests");
    let program = Program::build(dir.path());
    let recording = dir.path().join("a.mtb");
    let mut names = Names::default();
    names.insert(ModuleId(0), program.vaddr, [FrameName::unknown(NoSymbol::Stripped)].as_slice().into());
    program.record(&recording, Path::new("/nowhere/keep")).finish(&names).expect("there is room");

    let empty = dir.path().join("empty");
    fs::create_dir(&empty).expect("there is room");
    let before = fs::read(&recording).expect("just written");
    assert!(resymbolize(&recording, &empty).starts_with("nothing better was found for any of 1 addresses"));
    assert_eq!(fs::read(&recording).expect("still there"), before);

    let root = program.debug_root(dir.path());
    let told = resymbolize(&recording, &root);
    assert_eq!(told, "1 of 1 addresses got lines, 1 got functions, 1 got better names in all; 1 have lines now\n");
    let [name] = &name(&recording, program.vaddr)[..] else { panic!("nothing is inlined") };
    assert_eq!((name.function.as_deref(), name.line), (Ok("keep"), Some(3)));

    // Without the debug file nothing is better: the names stay.
    assert!(resymbolize(&recording, &empty).starts_with("nothing better"));
}

#[test]
fn a_file_of_another_build_names_nothing() {
    let dir = TempDir::new().expect("a folder for tests");
    let mut program = Program::build(dir.path());
    let root = program.debug_root(dir.path());
    // The path is there, and the debug file lies under the recorded build id: but it is not its own.
    program.build_id[5] ^= 1;
    program.debug_root(dir.path());
    let recording = dir.path().join("a.mtb");
    program.record(&recording, &program.path).finish(&Names::default()).expect("there is room");
    resymbolize(&recording, &root);
    assert_eq!(name(&recording, program.vaddr), [FrameName::unknown(NoSymbol::FileReplaced)]);
}

#[test]
fn the_recording_of_a_killed_tracer_is_named_at_open() {
    let dir = TempDir::new().expect("a folder for tests");
    let program = Program::build(dir.path());
    // An unstripped copy under its own name would do; here the debug file lies beside the program, and takes its place.
    let unstripped = dir.path().join("unstripped");
    let source = dir.path().join("keep.c");
    let status = Command::new("gcc").args(["-O0", "-g", "-Wl,--build-id", "-o"]).args([&unstripped, &source]).status();
    assert!(status.expect("gcc is there").success());
    let recording = dir.path().join("a.mtb");
    drop(program.record(&recording, &unstripped));

    let output = run(&["report".as_ref(), recording.as_os_str()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("keep.c:3"), "{text}");
    assert!(text.contains("its end is missing"), "{text}");
    assert!(text.contains("it holds no names: 1 of 1 addresses found theirs in the files of this machine"), "{text}");
}

#[test]
fn a_damaged_recording_is_left_as_it_is() {
    let dir = TempDir::new().expect("a folder for tests");
    let program = Program::build(dir.path());
    let root = program.debug_root(dir.path());
    let recording = dir.path().join("a.mtb");
    program.record(&recording, Path::new("/nowhere/keep")).finish(&Names::default()).expect("there is room");
    let mut bytes = fs::read(&recording).expect("just written");
    *bytes.last_mut().expect("the chunk of the end") ^= 1;
    fs::write(&recording, &bytes).expect("there is room");

    let output = run(&["resymbolize".as_ref(), recording.as_os_str(), "--debug-dir".as_ref(), root.as_os_str()]);
    let said = String::from_utf8(output.stderr).expect("messages are UTF-8");
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("a.mtb`: it is damaged at byte ") && !said.contains("at its start"), "{said}");
    assert_eq!(fs::read(&recording).expect("still there"), bytes);
}
