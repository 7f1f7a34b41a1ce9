//! A snapshot of some kinds of memory only.

use super::model::{Domain, Snapshot};

/// Which kinds of memory are followed, or shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Domains {
    /// Blocks of allocators.
    #[default]
    Heap,
    /// Anonymous mappings that the program itself makes.
    Mmap,
    /// Both, each on its own.
    All,
}

impl Domains {
    /// Every one, in the order of the help.
    pub const ALL: [Self; 3] = [Self::Heap, Self::Mmap, Self::All];

    /// The name on the command line and in reports and exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Mmap => "mmap",
            Self::All => "all",
        }
    }

    /// Whether a domain is one of them.
    pub const fn has(self, domain: Domain) -> bool {
        match self {
            Self::Heap => matches!(domain, Domain::Heap),
            Self::Mmap => matches!(domain, Domain::Mmap),
            Self::All => true,
        }
    }
}

impl Domain {
    /// The name in reports and exports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Heap => "heap",
            Self::Mmap => "mmap",
        }
    }
}

impl Snapshot {
    /// What the snapshot says of some kinds of memory. Of mappings alone the totals are theirs, and what is known of blocks is left out:
    /// their ages, their share of the resident memory, the time of their peak.
    #[must_use]
    pub fn of_domains(mut self, domains: Domains) -> Self {
        self.stacks.retain(|stack| domains.has(stack.stack.domain));
        match domains {
            Domains::Heap => {
                self.mmap = None;
                self.processes.iter_mut().for_each(|process| process.mmap = None);
            }
            Domains::Mmap => {
                self.totals = self.mmap.unwrap_or_default();
                for process in &mut self.processes {
                    process.totals = process.mmap.unwrap_or_default();
                }
                (self.peak_at, self.memory, self.ages) = (None, None, None);
            }
            Domains::All => {}
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::{Stack, StackId, StackStats, Totals};

    #[test]
    fn each_domain_has_its_own_stacks_and_totals() {
        let of = |bytes: u64| Totals { current_bytes: bytes, ..Totals::default() };
        let stack = |id: u32, domain: Domain| StackStats {
            id: StackId(id),
            stack: Arc::new(Stack { domain, ..Stack::default() }),
            totals: of(u64::from(id)),
        };
        let both = Snapshot {
            totals: of(1),
            mmap: Some(of(2)),
            stacks: vec![stack(1, Domain::Heap), stack(2, Domain::Mmap)],
            ..Snapshot::default()
        };
        let ids = |snapshot: &Snapshot| snapshot.stacks.iter().map(|stack| stack.id.0).collect::<Vec<_>>();
        let heap = both.clone().of_domains(Domains::Heap);
        assert_eq!((ids(&heap), heap.totals, heap.mmap), (vec![1], of(1), None));
        let mmap = both.clone().of_domains(Domains::Mmap);
        assert_eq!((ids(&mmap), mmap.totals, mmap.mmap), (vec![2], of(2), Some(of(2))));
        let all = both.of_domains(Domains::All);
        assert_eq!((ids(&all), all.totals, all.mmap), (vec![1, 2], of(1), Some(of(2))));
    }
}
