//! Real programs of the distribution with work that is the same on every run: what they read is made on the spot.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Result, ensure};

use crate::{
    guard::{Guard, piped},
    session::clean,
};

/// One program with its arguments, to be run in a folder that [`RealProgram::prepare`] has filled.
#[derive(Clone, Copy, Debug)]
pub struct RealProgram {
    /// The executable, by its path: a user may have put another first in `PATH`.
    pub path: &'static str,
    /// Its arguments.
    pub args: &'static [&'static str],
    prepare: fn(&Path) -> Result<()>,
}

/// A script with a recursive insert, an index and sorted reads.
pub const SQLITE3: RealProgram = RealProgram {
    path: "/usr/bin/sqlite3",
    args: &["-init", "/dev/null", ":memory:", ".read script.sql"],
    prepare: |dir| {
        let script = "create table t(a integer primary key, b text);\n\
            with recursive n(i) as (select 1 union all select i+1 from n where i<2000)\n\
            insert into t select i, printf('row %d', i*7919) from n;\n\
            create index ti on t(b);\n\
            select count(*), sum(length(b)) from t where b like 'row 1%';\n\
            select a,b from t order by b limit 5;\n";
        Ok(fs::write(dir.join("script.sql"), script)?)
    },
};

/// Groups and sums an array of 800 objects.
pub const JQ: RealProgram = RealProgram {
    path: "/usr/bin/jq",
    args: &["-c", "group_by(.tags[0])|map({k:.[0].tags[0],n:length,s:(map(.value)|add)})", "in.json"],
    prepare: |dir| {
        let mut json = String::from("[");
        for i in 0..800 {
            let comma = if i == 0 { "" } else { "," };
            let name = i * 7919 % 1000;
            write!(
                json,
                r#"{comma}{{"id":{i},"name":"item {name}","tags":["t{}","u{}"],"value":{i}.5}}"#,
                i % 7,
                i % 11
            )?;
        }
        json.push(']');
        Ok(fs::write(dir.join("in.json"), json)?)
    },
};

/// The whole history with patches of a repository of 25 commits.
pub const GIT: RealProgram = RealProgram {
    path: "/usr/bin/git",
    args: &["--no-pager", "-C", "repository", "log", "-p", "--stat", "--no-color"],
    prepare: make_repository,
};

/// Imports modules in C and in Python, and works with them. Isolated, without `site`: nothing of the machine is read.
pub const PYTHON3: RealProgram =
    RealProgram { path: "/usr/bin/python3", args: &["-I", "-S", "-c", PYTHON_SCRIPT], prepare: |_| Ok(()) };

const PYTHON_SCRIPT: &str = "\
import json, decimal, sqlite3, re, hashlib, zlib, struct, collections\n\
print(len(json.dumps([list(range(100))] * 50)))\n\
decimal.getcontext().prec = 300\n\
print(len(str(sum(decimal.Decimal(i).sqrt() for i in range(100)))))\n\
db = sqlite3.connect(':memory:')\n\
db.execute('create table t(a, b)')\n\
db.executemany('insert into t values (?, ?)', [(i, 'x' * (i % 97)) for i in range(1000)])\n\
print(db.execute('select sum(length(b)) from t').fetchall())\n\
print(len(re.findall(r'(a+)b', 'aab' * 500)), hashlib.sha256(b'z' * 99999).hexdigest())\n\
print(len(zlib.compress(struct.pack('<1000I', *range(1000)))), sorted([(i, -i) for i in range(500)], key=lambda p: p[1])[0])\n";

impl RealProgram {
    /// Makes what it reads.
    pub fn prepare(&self, dir: &Path) -> Result<()> {
        ensure!(Path::new(self.path).exists(), "`{}` is missing (cargo xtask setup --what tests)", self.path);
        (self.prepare)(dir)
    }
}

fn make_repository(dir: &Path) -> Result<()> {
    let repository = dir.join("repository");
    fs::create_dir(&repository)?;
    let git = |args: &[&str]| {
        let mut command = clean(GIT.path);
        command.args(args).current_dir(&repository);
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "A U Thor").env(format!("GIT_{who}_EMAIL"), "author@example.org");
            command.env(format!("GIT_{who}_DATE"), "2024-02-03T04:05:06Z");
        }
        let output = Guard::spawn(piped(&mut command))?.finish()?;
        ensure!(output.status.success(), "git {args:?} failed: {}", output.stderr);
        anyhow::Ok(())
    };
    git(&["init", "--quiet", "--initial-branch=main", "--template="])?;
    for i in 0..25 {
        let lines: String = (0..200).fold(String::new(), |text, n| text + &format!("line {}\n", n * (1 + i * (n % 3))));
        fs::write(repository.join(format!("file{}", i % 6)), lines)?;
        git(&["add", "."])?;
        git(&["-c", "gc.auto=0", "commit", "--quiet", "--message", &format!("change {i}")])?;
    }
    Ok(())
}
