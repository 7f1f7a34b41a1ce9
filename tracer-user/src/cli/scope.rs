//! Arguments that say which processes are traced.

use clap::Args;
use tracer_user::scope::Scope;

/// Any number of scopes of any kind: what any of them selects is traced.
#[derive(Debug, Args)]
pub(super) struct ScopeArgs {
    /// Trace the running process with this id (repeatable, as all of these; what any of them selects is traced)
    #[arg(long = "pid", short = 'p', value_name = "PID", value_parser = Scope::pid)]
    pids: Vec<Scope>,
    /// Trace processes whose name matches, those that start later too (* and ? and [...])
    #[arg(long = "comm", value_name = "GLOB", value_parser = Scope::comm)]
    comms: Vec<Scope>,
    /// Trace processes that run this executable, a path as seen from their own root
    #[arg(long = "exe", value_name = "PATH", value_parser = Scope::exe)]
    exes: Vec<Scope>,
    /// Trace processes of this user (a name of this host, or a number)
    #[arg(long = "user", value_name = "NAME", value_parser = Scope::user)]
    users: Vec<Scope>,
    /// Trace processes of this cgroup and those below it: its directory, or its path below the v2 root
    #[arg(long = "cgroup", value_name = "PATH", value_parser = Scope::cgroup)]
    cgroups: Vec<Scope>,
    /// Trace processes of this container of docker, podman or containerd, those of `docker exec` too
    #[arg(long = "container", value_name = "NAME|ID", value_parser = Scope::container)]
    containers: Vec<Scope>,
    /// Trace all containers of this Kubernetes pod
    #[arg(long = "pod", value_name = "NAMESPACE/NAME", value_parser = Scope::pod)]
    pods: Vec<Scope>,
    /// Trace every process of this host but memtrace-bpf itself
    #[arg(long, conflicts_with_all = ["pids", "comms", "exes", "users", "cgroups", "containers", "pods"])]
    all: bool,
}

impl ScopeArgs {
    /// The scopes, each once; none where none was given.
    pub(super) fn validated(self) -> Vec<Scope> {
        let Self { pids, comms, exes, users, cgroups, containers, pods, all } = self;
        let mut scopes: Vec<Scope> = Vec::new();
        for scope in [pids, comms, exes, users, cgroups, containers, pods].into_iter().flatten() {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        scopes.extend(all.then_some(Scope::All));
        scopes
    }
}

/// What becomes of processes that start while tracing.
#[derive(Debug, Args)]
pub(super) struct JoiningArgs {
    /// Trace processes that a traced one starts too, by fork or exec [default: with `run`, cgroups and containers]
    #[arg(long, overrides_with = "no_follow_children")]
    follow_children: bool,
    /// Leave processes that a traced one starts alone
    #[arg(long, overrides_with = "follow_children")]
    no_follow_children: bool,
    /// Miss no allocation of processes that join later, as --pid lets children then: probes for everyone, so that others pay a trap a call
    #[arg(long)]
    pub(super) from_first_allocation: bool,
}

impl JoiningArgs {
    /// What was asked for, if anything was.
    pub(super) fn follow_children(&self) -> Option<bool> {
        (self.follow_children || self.no_follow_children).then_some(self.follow_children)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Both {
        #[command(flatten)]
        scopes: ScopeArgs,
        #[command(flatten)]
        joining: JoiningArgs,
    }

    fn parse(line: &str) -> Result<Both, clap::Error> {
        Both::try_parse_from(std::iter::once("memtrace-bpf").chain(line.split_whitespace()))
    }

    fn scopes(line: &str) -> Vec<String> {
        parse(line).expect(line).scopes.validated().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn scopes_of_any_kind_come_together() {
        assert_eq!(scopes(""), [""; 0]);
        assert_eq!(scopes("-p 7 --pid 8 -p 7"), ["pid 7", "pid 8"]);
        assert_eq!(scopes("--container web --pid 7 --container db"), ["pid 7", "container web", "container db"]);
        assert_eq!(scopes("--pod a/b --user root --exe /x --comm y* --cgroup z").len(), 5);
        assert_eq!(scopes("--all"), ["all processes"]);
    }

    #[test]
    fn all_leaves_nothing_to_add() {
        for line in ["--all --pid 7", "--comm x --all", "--all --pod a/b", "--pod b", "--pid 0", "--container="] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn the_last_word_on_children_counts() {
        for (line, follow) in [
            ("", None),
            ("--follow-children", Some(true)),
            ("--no-follow-children", Some(false)),
            ("--follow-children --no-follow-children", Some(false)),
            ("--no-follow-children --follow-children", Some(true)),
        ] {
            assert_eq!(parse(line).expect(line).joining.follow_children(), follow, "{line}");
        }
    }
}
